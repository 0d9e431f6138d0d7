"""JSON files: what is refused, and that the error names the file and the field in one line."""

import json
from dataclasses import dataclass

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.checked_json import MAX_DEPTH, DamagedFile, parse_json, read_json


@dataclass(frozen=True)
class Inner:
    name: str


@dataclass(frozen=True)
class Best:
    step: int
    top1: float
    inner: Inner
    many: list[int]
    optional: float | None = None

    def __post_init__(self) -> None:
        if self.step < 0:
            raise UserError(f"field 'step' is {self.step}, must not be negative")


VALID = {"step": 3, "top1": 0.5, "inner": {"name": "x"}, "many": [1, 2]}


def test_a_valid_document_is_read_with_defaults_and_without_names_of_newer_versions():
    assert read_json(Best, json.dumps({**VALID, "newer": 1}), "best.json") == Best(3, 0.5, Inner("x"), [1, 2])
    assert read_json(list[str], b'["a"]', "x.json") == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'{"a": 1, "a": 2}', "'a' appears twice in one object"),
        (b'{"a": NaN}', "NaN is not a number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is not a number of JSON"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b"9" * 10_000, "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"x":' * 2000 + b"1" + b"}" * 2000, "nested too deeply"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested too deeply"),
    ],
)
def test_a_document_that_is_not_json_is_refused(content: bytes, message: str):
    with pytest.raises(DamagedFile, match=message) as raised:
        parse_json(content, "folder/best.json")
    assert str(raised.value).startswith("folder/best.json is damaged: ")
    assert "\n" not in str(raised.value)
    with pytest.raises(DamagedFile, match=r"folder/best\.json is damaged: .*: train again$"):
        read_json(Best, content, "folder/best.json", advice="train again")


def test_the_limit_on_nesting_is_exact():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH, "x") is not None


def test_not_finite_numbers_are_read_where_they_are_allowed():
    assert parse_json('{"loss": Infinity}', "metrics.jsonl", finite=False) == {"loss": float("inf")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": "3"}, "field 'step' is '3', must be a whole number"),
        ({"step": 3.0}, "field 'step' is 3.0, must be a whole number"),
        ({"step": True}, "field 'step' is true, must be a whole number"),
        ({"step": -1}, "field 'step' is -1, must not be negative"),
        ({"top1": None}, "field 'top1' is null, must be a number"),
        ({"inner": []}, r"field 'inner' is \[\], must be a group of fields"),
        ({"inner": {}}, r"field 'inner.name' is missing"),
        ({"inner": {"name": 3}}, r"field 'inner.name' is 3, must be text"),
        ({"many": 3}, "field 'many' is 3, must be a list"),
        ({"many": [1, None]}, "field 'many' contains null, must be a whole number"),
        ({"many": ["x" * 1000]}, r"field 'many' contains 'x{20,80}\.\.\., must be a whole number"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(change: dict[str, object], message: str):
    with pytest.raises(DamagedFile, match=f"^best.json: {message}: train again$"):
        read_json(Best, json.dumps({**VALID, **change}), "best.json", advice="train again")
