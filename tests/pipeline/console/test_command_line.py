"""Verbs that have verbs of their own, and answers that fall short."""

import pytest

from lgd.pipeline.console.command_line import Answer, Commands, Json, dispatch, overview, run
from lgd.pipeline.console.errors import UsageError


def bench_step(size: int = 3, json: Json = False) -> Answer:
    """A step."""
    return Answer({"size": size}, [f"size {size}"], "too slow" if size > 5 else "")


def train(json: Json = False) -> Answer:
    """Train."""
    return Answer("train", [])


COMMANDS: Commands = {"train": train, "bench": {"step": bench_step, "train": bench_step}}


def no_defaults(command: str, words: list[str]) -> dict[str, object]:
    return {}


def test_the_first_word_after_a_verb_may_be_a_verb():
    assert dispatch(["train"], COMMANDS, no_defaults).document == "train"
    assert dispatch(["bench", "step", "--size", "4"], COMMANDS, no_defaults).document == {"size": 4}


def test_defaults_are_asked_for_by_the_whole_name():
    def defaults(command: str, words: list[str]) -> dict[str, object]:
        return {"size": 9} if command == "bench train" else {}

    assert dispatch(["bench", "train"], COMMANDS, defaults).document == {"size": 9}
    assert dispatch(["bench", "step"], COMMANDS, defaults).document == {"size": 3}


@pytest.mark.parametrize(("words", "code"), [(["bench"], 2), (["bench", "--help"], 0), (["bench", "-h"], 0)])
def test_a_verb_without_its_verb_lists_them(words: list[str], code: int, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        dispatch(words, COMMANDS, no_defaults)
    assert stop.value.code == code
    printed = capsys.readouterr().out
    assert "usage: lgd bench VERB" in printed
    assert "step        A step." in printed


def test_the_overview_names_the_verbs_of_a_verb():
    assert "bench       one of step, train" in overview(COMMANDS, "lgd")


def test_an_unknown_verb_of_a_verb_names_the_choices():
    with pytest.raises(UsageError, match="there is no verb 'bench stop': choose from step, train"):
        dispatch(["bench", "stop"], COMMANDS, no_defaults)
    with pytest.raises(UsageError, match="`lgd bench step --help` explains"):
        dispatch(["bench", "step", "--seize", "4"], COMMANDS, no_defaults)


def test_an_answer_that_falls_short_is_printed_and_exits_with_1(capfd: pytest.CaptureFixture):
    for words, expected in ((["--size", "6"], "size 6\n"), (["--size", "6", "--json"], '{\n  "size": 6\n}\n')):
        with pytest.raises(SystemExit) as stop:
            run(["bench", "step", *words], COMMANDS, no_defaults)
        assert stop.value.code == 1
        assert capfd.readouterr() == (expected, "lgd: too slow\n")
    run(["bench", "step"], COMMANDS, no_defaults)
    assert capfd.readouterr() == ("size 3\n", "")
