"""Values made from words."""

import contextlib
import io
from pathlib import Path
from typing import Any, Literal

import pytest
import tyro

from lgd.pipeline.console.option_values import count_values, value_rules

TAKES = [
    (int, ["3"], 3),
    (int | None, ["3"], 3),
    (int | None, ["None"], None),
    (str | None, ["None"], None),
    (float, ["3"], 3.0),
    (float | None, ["1e-3"], 1e-3),
    (Path, ["a/b"], Path("a/b")),
    (Path, ["~nobody-has-this-name/b"], Path("~nobody-has-this-name/b")),
    (Literal["a", "b"], ["b"], "b"),
    (Literal[1, 2], ["2"], 2),
    (int | tuple[int, int] | None, ["3"], 3),
    (int | tuple[int, int] | None, ["3", "4"], (3, 4)),
    (tuple[int, int] | None, ["None"], None),
    (bool | Literal["auto"], ["auto"], "auto"),
    (bool | Literal["auto"], ["true"], True),
    (bool | Literal["auto"], ["False"], False),
    (bool | Literal["auto"], [], True),
    (int | float, ["3"], 3),
    (int | float, ["3.5"], 3.5),
    (int | str, ["auto"], "auto"),
    (tuple[Path, ...] | None, ["a", "b"], (Path("a"), Path("b"))),
]


def parse(kind: Any, words: list[str]) -> Any:
    def command(value: Any) -> Any:
        return value

    command.__annotations__ = {"value": kind}
    return tyro.cli(command, args=["--value", *words], registry=value_rules())


@pytest.mark.parametrize(("kind", "words", "value"), TAKES)
def test_words_become_the_value_of_the_first_type_that_fits(kind: Any, words: list[str], value: Any):
    found = parse(kind, words)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "words"), [(int, ["3.0"]), (int, ["None"]), (float, ["x"]), (Literal["a"], ["None"]), (int | None, ["x"])]
)
def test_words_that_fit_no_type_are_refused(kind: Any, words: list[str]):
    with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as printed:
        parse(kind, words)
    assert "must be" in printed.getvalue()


def test_values_are_counted_in_words():
    assert [count_values(count) for count in (1, 2)] == ["a value", "2 values"]
