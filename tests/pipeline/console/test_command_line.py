"""Groups of commands, results that failed, and what `lgd` prints without a command."""

import dataclasses
import subprocess
import sys

import pytest

import lgd
from lgd.pipeline.console.command_line import (
    CommandResult,
    Commands,
    CommandSequence,
    Json,
    Line,
    dispatch,
    overview,
    run_command_line,
)
from lgd.pipeline.console.errors import UsageError


@dataclasses.dataclass(frozen=True)
class StepResult(CommandResult):
    size: int

    def lines(self) -> list[Line]:
        return [f"size {self.size}"]

    @property
    def failed(self) -> str:
        return "too slow" if self.size > 5 else ""


def bench_step(size: int = 3, json: Json = False) -> StepResult:
    """Measure a step. Takes
    minutes."""
    return StepResult(size)


def train(json: Json = False) -> StepResult:
    """Train a network with a recipe
    (e.g. nano) on a dataset. Rerun to resume."""
    return StepResult(0)


def stop(json: Json = False) -> StepResult:
    """Be interrupted."""
    raise KeyboardInterrupt


COMMANDS: Commands = {"train": train, "stop": stop, "bench": {"step": bench_step, "train": bench_step}}


def no_defaults(command: str, words: list[str]) -> dict[str, object]:
    return {}


def test_the_first_word_after_a_group_names_a_command_of_it():
    assert dispatch(["train"], COMMANDS, no_defaults) == StepResult(0)
    assert dispatch(["bench", "step", "--size", "4"], COMMANDS, no_defaults) == StepResult(4)


def test_defaults_are_looked_up_by_the_full_name_of_the_command():
    def defaults(command: str, words: list[str]) -> dict[str, object]:
        return {"size": 9} if command == "bench train" else {}

    assert dispatch(["bench", "train"], COMMANDS, defaults) == StepResult(9)
    assert dispatch(["bench", "step"], COMMANDS, defaults) == StepResult(3)


@pytest.mark.parametrize(("words", "code"), [(["bench"], 2), (["bench", "--help"], 0), (["bench", "-h"], 0)])
def test_a_group_without_a_command_lists_its_commands(words: list[str], code: int, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        dispatch(words, COMMANDS, no_defaults)
    assert stopped.value.code == code
    printed = capsys.readouterr().out
    assert "usage: lgd bench COMMAND [OPTIONS]" in printed
    assert "  step   Measure a step\n" in printed


def test_the_overview_is_aligned_wrapped_and_has_the_first_sentence_of_every_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = overview(COMMANDS, "lgd").splitlines()
    assert "  train  Train a network with a recipe" in lines
    assert "         (e.g. nano) on a dataset" in lines
    assert "  bench  Run one of: step, train" in lines
    assert not [line for line in lines[4:-1] if len(line) > 40]


def test_an_unknown_command_names_the_choices():
    with pytest.raises(UsageError, match=r"^unknown command bench stop: choose from step, train$"):
        dispatch(["bench", "stop"], COMMANDS, no_defaults)
    with pytest.raises(UsageError, match=r"^unknown command fly: choose from train, stop, bench$"):
        dispatch(["fly"], COMMANDS, no_defaults)
    with pytest.raises(UsageError, match=r"; see `lgd bench step --help`$"):
        dispatch(["bench", "step", "--seize", "4"], COMMANDS, no_defaults)


def test_a_failed_result_is_printed_and_exits_with_1(capfd: pytest.CaptureFixture):
    for words, expected in ((["--size", "6"], "size 6\n"), (["--size", "6", "--json"], '{\n  "size": 6\n}\n')):
        with pytest.raises(SystemExit) as stopped:
            run_command_line(["bench", "step", *words], COMMANDS, no_defaults)
        assert stopped.value.code == 1
        assert capfd.readouterr() == (expected, "lgd: too slow\n")
    run_command_line(["bench", "step"], COMMANDS, no_defaults)
    assert capfd.readouterr() == ("size 3\n", "")


def test_an_interrupted_command_says_how_to_resume(capfd: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        run_command_line(["stop"], COMMANDS, no_defaults)
    assert stopped.value.code == 130
    assert capfd.readouterr() == ("", "lgd: stopped; rerun the same command to resume\n")


def test_a_sequence_prints_each_command_and_returns_its_document(capsys: pytest.CaptureFixture):
    sequence = CommandSequence(COMMANDS, no_defaults)
    assert sequence.do("measure", "bench", "step", "--size", 4) == {"size": 4}
    assert [*sequence.seconds] == ["measure"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "\n$ lgd bench step --size 4\nsize 4\n"


def test_the_version_is_printed():
    done = subprocess.run([sys.executable, "-m", "lgd", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lgd {lgd.__version__}\n", "")


def test_other_platforms_than_linux_are_refused_before_anything_is_imported():
    script = "import sys; sys.platform = 'darwin'; from lgd.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "lgd: runs on Linux only, not on darwin\n")
