"""Documentation that must follow the code."""

import dataclasses
import json
import re
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lgd import cli
from lgd.cli import COMMANDS
from tests.support.json_page import keys, mismatches, nested, page, results

ROOT = Path(__file__).parents[1]


def test_the_page_of_json_documents_is_up_to_date():
    assert (ROOT / "docs" / "json.md").read_text() == page(results()), "run `make docs`"


def test_every_key_of_every_document_is_described():
    kinds = dict.fromkeys(kind for result in results().values() for kind in (result, *nested(result)))
    assert [f"{kind.__name__}.{key.name}" for kind in kinds for key in keys(kind) if not key.text] == []


@pytest.mark.parametrize("with_optional", [True, False], ids=["all keys", "without optional keys"])
@pytest.mark.parametrize("command", results())
def test_the_document_of_every_result_has_the_keys_of_the_page(command: str, with_optional: bool):
    """Results with arbitrary values: the commands themselves may take minutes."""
    kind = results()[command]
    document = json.loads(json.dumps(example(kind, with_optional).document()))
    assert mismatches(document, kind, command) == []
    absent = [key.name for key in keys(kind) if key.optional and key.name not in document]
    assert absent == ([] if with_optional else [key.name for key in keys(kind) if key.optional])


def example(hint: Any, with_optional: bool) -> Any:
    """A value of a type; without optional values, what may be None is None."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        allowed = [each for each in arguments if (each is type(None)) != with_optional]
        return example((allowed or arguments)[0], with_optional)
    if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
        hints = typing.get_type_hints(hint)
        names = hints if typing.is_typeddict(hint) else [field.name for field in dataclasses.fields(hint)]
        return hint(**{name: example(hints[name], with_optional) for name in names})
    if origin is typing.Literal:
        return arguments[0]
    if origin is not None and issubclass(origin, Mapping):
        return {"name": example(arguments[1], with_optional)}
    if origin is not None:
        return origin([example(arguments[0], with_optional)])
    return {str: "text", int: 2, float: 0.5, bool: True, type(None): None, Any: "anything"}[hint]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("lgd models", ["models"]),
        ("lgd recipes", ["recipes"]),
        ("lgd recipes NAME", ["recipes", "nano-flow"]),
        ("lgd inspect", ["inspect", "DATASET"]),
        ("lgd inspect", ["inspect", "DATASET", "--verify", "--pictures", "OUT", "--dali-index", "OUT"]),
    ],
)
def test_a_printed_document_has_the_keys_of_the_page(
    command: str,
    words: list[str],
    dataset_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    paths = {"DATASET": str(dataset_folder), "OUT": str(tmp_path)}
    monkeypatch.setattr(sys, "argv", ["lgd", *(paths.get(word, word) for word in words), "--json"])
    cli.main()
    assert mismatches(json.loads(capfd.readouterr().out), results()[command], command) == []


def test_mismatches_with_the_page_are_found():
    kind = results()["lgd inspect"]
    document = example(kind, True).document()
    del document["videos"]
    document |= {"new": 1, "streams": {"rgb": {**document["streams"]["name"], "frames": "many"}}}
    document["pictures"][0]["full_color_px"] = "fast"
    assert mismatches(document, kind, "it") == [
        "it lacks videos",
        "it.streams.rgb.frames: 'many' is not integer",
        "it.pictures[].full_color_px: 'fast' is not number",
        "it.new is not described",
    ]


@pytest.mark.parametrize("page_path", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=str)
def test_links_between_pages_lead_somewhere(page_path: Path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page_path.read_text()):
        assert (page_path.parent / target).exists(), target


def test_readme_lists_every_command():
    readme = (ROOT / "README.md").read_text()
    assert [command for command in COMMANDS if f"| `{command}` |" not in readme] == []
