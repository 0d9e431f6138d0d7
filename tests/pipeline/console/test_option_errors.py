"""Wrong command lines: errors of one line in plain English."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import pytest
from tyro.conf import Positional, arg

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.option_parser import parse_command

OK = ("d", "--data", "x")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    lr: float = 0.1
    kind: Literal["sgd", "adam"] = "sgd"
    flip: bool = True

    def __post_init__(self) -> None:
        if self.lr < 0:
            raise ValueError("the learning rate must be 0 or more")


def learn(
    dataset: Annotated[Positional[str], arg(help="Folder of the dataset.")],
    data: str,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    *,
    workers: int | tuple[int, int] | None = None,
    weights: tuple[float, float] = (1.0, 1.0),
    verify: bool = False,
    optimizer: Optimizer = Optimizer(),
) -> None:
    """Learn."""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "missing DATASET and --data DATA"),
        (("d",), "missing --data DATA"),
        (("--data", "x"), "missing DATASET"),
        (("d", "--data"), "--data needs a value"),
        ((*OK, "--weights", "1"), "--weights needs 2 values"),
        ((*OK, "--workers"), "--workers needs a value or 2 values, not 0"),
        ((*OK, "--workers", "1", "2", "3"), "--workers needs a value or 2 values, not 3"),
        ((*OK, "--workers", "many"), "--workers must be a whole number, not 'many'"),
        ((*OK, "--weights", "1", "much"), "--weights must be a number, not 'much'"),
        ((*OK, "--weights", "1", "x" * 90), f"--weights must be a number, not '{'x' * 20}...'"),
        ((*OK, "--optimizer.kind", "adm"), "--optimizer.kind must be sgd or adam, not 'adm'"),
        ((*OK, "--optimizer.lr=-1"), "optimizer: the learning rate must be 0 or more"),
        ((*OK, "--out"), "--out needs a value"),
        ((*OK, "e", "f"), "unexpected argument 'e'"),
        ((*OK, "--wights", "1", "2"), "unknown option --wights (did you mean --weights?)"),
        ((*OK, "--lr", "1"), "unknown option --lr (did you mean --optimizer.lr?)"),
        ((*OK, "--optimiser.lr=1"), "unknown option --optimiser.lr (did you mean --optimizer.lr?)"),
        ((*OK, "--quite-different"), "unknown option --quite-different"),
        ((*OK, "-q"), "unknown option -q"),
        (("d", "--dta", "x"), "unknown option --dta (did you mean --data?)"),
        ((*OK, "--foo", "1", "--verfy"), "unknown options --foo, --verfy (did you mean --verify?)"),
    ],
)
def test_what_is_wrong_is_one_line(words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch):
    for columns in ("40", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(UsageError) as raised:
            parse_command(learn, [*words], "lgd learn", defaults={})
        assert str(raised.value) == f"{message}; see `lgd learn --help`"
