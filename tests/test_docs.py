"""Documentation that must follow the code."""

import dataclasses
import re
from pathlib import Path

import pytest

from lgd.cli import COMMANDS
from tests.support.json_page import descriptions, page, results

ROOT = Path(__file__).parents[1]


def test_the_page_of_json_documents_is_up_to_date():
    assert (ROOT / "docs" / "json.md").read_text() == page(results()), "run `make docs`"


def test_every_key_of_every_document_is_described():
    missing = [
        f"{result.__name__}.{field.name}"
        for result in results().values()
        for field in dataclasses.fields(result)
        if field.name not in descriptions(result)
    ]
    assert missing == []


@pytest.mark.parametrize("page_path", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")), ids=str)
def test_links_between_pages_lead_somewhere(page_path: Path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page_path.read_text()):
        assert (page_path.parent / target).exists(), target


def test_readme_lists_every_command():
    readme = (ROOT / "README.md").read_text()
    assert [command for command in COMMANDS if f"| `{command}` |" not in readme] == []
