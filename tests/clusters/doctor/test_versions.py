"""The versions of a node, and what is said about other ones."""

import sys
from pathlib import Path

import pytest

import lgd
from lgd.clusters.doctor.rows import OK, WARNING, WRONG
from lgd.clusters.doctor.versions import introduce, version_rows

EXPECTED = {"lgd": "0.3.0", "Ray": "2.60.0", "Python": "3.11.7", "torch": "2.13.0+cpu", "DALI": "2.4.0"}


def test_a_node_introduces_itself_with_the_versions_that_are_installed():
    found = introduce()
    assert found["lgd"] == lgd.__version__
    assert found["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(found.values())


def test_a_copy_on_the_path_counts_and_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lgd").mkdir()
    (tmp_path / "lgd" / "__init__.py").write_text('__version__ = "0.2.9"\nraise SystemExit("imported")\n')
    monkeypatch.delitem(sys.modules, "lgd")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert introduce()["lgd"] == "0.2.9"


def test_equal_versions_are_ok():
    assert {(row.name, row.figure, row.verdict, row.advice) for row in version_rows(EXPECTED, EXPECTED)} == {
        (name, version, OK, "") for name, version in EXPECTED.items()
    }


@pytest.mark.parametrize(
    ("name", "version", "verdict", "figure", "advice"),
    [
        ("lgd", "0.2.9", WRONG, "0.2.9, but 0.3.0 where the command runs", "install lgd 0.3.0 on this node"),
        ("lgd", "", WRONG, "not installed", "install lgd 0.3.0 on this node, or run commands with lgd submit"),
        ("Ray", "2.59.0", WRONG, "2.59.0, but 2.60.0 where", "install ray 2.60.0 on this node"),
        ("Python", "3.11.2", WRONG, "3.11.2, but 3.11.7", "use the same Python on every node"),
        ("torch", "2.11.0+cu130", WARNING, "2.11.0+cu130, but", "constraints.txt"),
        ("torch", "", WRONG, "not installed", "pip install torch"),
        ("DALI", "", WRONG, "not installed", "pip install nvidia-dali-cuda130"),
    ],
)
def test_other_versions_are_named_with_what_to_do(name: str, version: str, verdict: str, figure: str, advice: str):
    rows = version_rows(EXPECTED | {name: version}, EXPECTED)
    (row,) = [row for row in rows if row.verdict != OK]
    assert (row.name, row.verdict) == (name, verdict)
    assert row.figure.startswith(figure)
    assert advice in row.advice
