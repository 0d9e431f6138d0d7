"""The options of a command: usage, help, and the values of what is given."""

import dataclasses
import io
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from tyro.conf import Positional, arg

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.option_parser import parse_command


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How the weights
    change."""

    lr: float = 0.1
    """learning rate at
    the start"""
    flip: bool = True
    """Mirror clips."""
    max_grad_norm: float | None = 2.0
    """Largest norm of the gradient. Default: no limit."""
    kind: Literal["sgd", "adam"] = "sgd"
    """Algorithm."""


def learn(
    dataset: Annotated[Positional[str], arg(help="Folder of the dataset.")],
    extra: Annotated[Positional[tuple[Path, ...]], arg(help="More files.")] = (),
    *,
    data: Annotated[str, arg(help="Folder.")],
    run: Annotated[Path, arg(metavar="DIR", help="Folder of the run.")],
    steps: Annotated[int, arg(help="Steps to do")] = 3,
    workers: Annotated[int | tuple[int, int] | None, arg(help="Workers. Default: 1.")] = None,
    classes: Annotated[Path | None, arg(help="List of classes.")] = None,
    weights: Annotated[tuple[float, float], arg(help="Of rgb and flow.")] = (1.0, 0.5),
    verify: Annotated[bool, arg(help="Check everything.")] = False,
    optimizer: Optimizer = Optimizer(),
) -> dict[str, Any]:
    """Learn something.

    Rerun to resume, whenever
    it stopped."""
    return locals()


def parse(*words: str, **defaults: Any) -> dict[str, Any]:
    return parse_command(learn, [*words], "lgd learn", defaults=defaults)()


GIVEN = ("d", "--data", "x", "--run", "r")


@pytest.fixture
def help_text(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    assert stopped.value.code == 0
    return str(capsys.readouterr().out)


def test_the_usage_names_what_must_be_given(help_text: str):
    first, _, second, _, third, *_ = help_text.splitlines()
    assert first == "usage: lgd learn [OPTIONS] --data DATA --run DIR DATASET [EXTRA ...]"
    assert second == "Learn something."
    assert third == "Rerun to resume, whenever it stopped."


@pytest.mark.parametrize(
    "line",
    [
        "DATASET Folder of the dataset. (required)",
        "--data DATA Folder. (required)",
        "--steps N Steps to do. Default: 3.",
        "--workers N or N N Workers. Default: 1.",
        "--classes PATH List of classes.",
        "--weights NUMBER NUMBER Of rgb and flow. Default: 1 0.5.",
        "--verify Check everything.",
        "--optimizer.lr NUMBER Learning rate at the start. Default: 0.1.",
        "--optimizer.no-flip Switch off: Mirror clips.",
        "--optimizer.max-grad-norm NUMBER Largest norm of the gradient. Default: no limit.",
        "--optimizer.kind {sgd,adam} Algorithm. Default: sgd.",
        "How the weights change.",
    ],
)
def test_every_option_is_described_in_sentences_with_its_default_once(help_text: str, line: str):
    rows = " ".join(re.sub("[│─╭╮╰╯]", " ", help_text).split())
    assert f" {line} " in f"{rows} "


def test_help_on_a_terminal_is_the_same_with_colors(
    help_text: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(SystemExit):
        parse("--help")
    colored = capsys.readouterr().out
    assert "\x1b[" in colored
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == help_text


def test_the_help_has_no_words_of_the_parser(help_text: str):
    for word in ("None", "STR", "INT", "FLOAT", "False", "(default", "[-h]"):
        assert word not in help_text


def test_values_have_the_types_of_the_parameters():
    given = parse(*GIVEN, "--workers", "2", "--weights", "1", "2", "--optimizer.no-flip", "--verify")
    assert (given["extra"], given["workers"], given["weights"]) == ((), 2, (1.0, 2.0))
    assert (given["verify"], given["optimizer"]) == (True, Optimizer(flip=False))
    assert parse(*GIVEN, "--workers", "2", "4")["workers"] == (2, 4)
    assert parse("d", "e", "f", *GIVEN[1:])["extra"] == (Path("e"), Path("f"))
    assert parse(*GIVEN, "--optimizer.max-grad-norm", "None")["optimizer"].max_grad_norm is None


def test_defaults_replace_those_of_the_command(capsys: pytest.CaptureFixture):
    assert parse(*GIVEN, optimizer=Optimizer(lr=3.0), steps=7)["optimizer"].lr == 3.0
    assert parse(*GIVEN, "--steps", "8", steps=7)["steps"] == 8
    with pytest.raises(SystemExit):
        parse("--help", optimizer=Optimizer(lr=3.5))
    assert "Default: 3.5." in capsys.readouterr().out


def test_a_tilde_at_the_start_of_a_path_is_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    for words in (("--run", "~/data"), ("--run=~/data",)):
        assert parse("d", "--data", "x", *words)["run"] == Path("/home/me/data")
    given = parse("d", "~/a", "b~/c~d", "--data", "x", "--run", "~", "--classes=~/classes.txt")
    assert given["extra"] == (Path("/home/me/a"), Path("b~/c~d"))
    assert (given["run"], given["classes"]) == (Path("/home/me"), Path("/home/me/classes.txt"))


def test_a_word_that_is_wrong_is_one_line_that_names_the_help():
    with pytest.raises(UsageError, match=r"^--steps must be a whole number, not 'x'; see `lgd learn --help`$"):
        parse(*GIVEN, "--steps", "x")


def test_help_has_no_box_characters_where_the_output_cannot_show_them(monkeypatch: pytest.MonkeyPatch):
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, encoding="ascii"))
    with pytest.raises(SystemExit):
        parse("--help")
    sys.stdout.flush()
    assert b"| --steps N" in output.getvalue()
