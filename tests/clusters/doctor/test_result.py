"""The table and the exit code."""

import io

import pytest
from rich.console import Console

from lgd.clusters.doctor.result import DoctorNode, DoctorResult, DoctorRow, describe_nodes, merge
from lgd.clusters.doctor.rows import ABSENT, CLUSTER, GPU, NODE, OK, SLOW, WARNING, WRONG


def row(node: str | None, name: str = "lgd", figure: str = "0.3.0", verdict: str = OK, **more: object) -> DoctorRow:
    values = {"section": NODE if node else CLUSTER, "advice": "", "value": None, "unit": ""} | more
    return DoctorRow(node=node, name=name, figure=figure, verdict=verdict, **values)  # type: ignore[arg-type]


def result(*rows: DoctorRow, nodes: int = 2) -> DoctorResult:
    members = tuple(DoctorNode(f"n{number:02}", "id", "10.0.0.1", 8.0, 0, 0.0) for number in range(nodes))
    return DoctorResult(members, rows, seconds=12.3)


def printed(shown: DoctorResult, width: int) -> list[str]:
    output = io.StringIO()
    console = Console(file=output, width=width, highlight=False)
    for line in shown.lines():
        console.print(line, soft_wrap=isinstance(line, str), markup=False)
    return output.getvalue().splitlines()


def test_equal_rows_are_one_and_different_nodes_are_named():
    rows = [row(f"n{number:02}") for number in range(64)]
    rows[17] = row("n17", figure="0.2.9, but 0.3.0", verdict=WRONG, advice="install lgd 0.3.0")
    merged = merge(rows)
    assert [(len(each.nodes), each.figure, each.verdict) for each in merged] == [
        (63, "0.3.0", OK),
        (1, "0.2.9, but 0.3.0", WRONG),
    ]
    assert merged[1].nodes == ("n17",)


def test_figures_that_are_numbers_become_a_range_which_names_the_lowest_node():
    values = {"n00": 10.0, "n01": 12.0, "n02": 2.5}
    rows = [row(name, "copy", f"{value} GB/s", value=value, unit="GB/s") for name, value in values.items()]
    (merged,) = merge(rows)
    assert merged.figure == "2.5 to 12 GB/s (lowest: n02)"
    assert merge(rows[:2])[0].figure == "10 to 12 GB/s"
    assert merge(rows[:1])[0].figure == "10.0 GB/s"


def test_many_different_figures_are_one_row():
    rows = [row(f"n{number:02}", "machine", f"{number} CPUs") for number in range(10)]
    (merged,) = merge(rows)
    assert merged.figure == "0 CPUs; 9 other figures are in --json"
    assert len(merged.nodes) == 10
    assert len(merge(rows[:3])) == 3


@pytest.mark.parametrize(
    ("names", "nodes", "text"),
    [
        (range(64), 64, "all 64"),
        (range(2), 64, "n0\nn1"),
        (range(62), 64, "62 others"),
        (range(10), 64, "n0\nn1\n8 more"),
        (range(0), 64, ""),
    ],
)
def test_the_nodes_of_a_row_in_a_few_words(names: range, nodes: int, text: str):
    assert describe_nodes([f"n{number}" for number in names], nodes) == text


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("nodes", [1, 2, 64])
def test_the_table_fits_the_terminal_and_does_not_grow_with_the_nodes(width: int, nodes: int):
    rows = [row(None, "nodes", f"{nodes}")]
    for number in range(nodes):
        name = f"n{number:02}"
        rows += [
            row(name),
            row(name, "open files", "at most 1,024", WARNING, advice="raise the limit before ray start: " + "x " * 40),
            row(name, "copy", f"{number} GB/s", value=float(number), unit="GB/s"),
            row(name, "GPU", "none", ABSENT, section=GPU),
        ]
    lines = printed(result(*rows, nodes=nodes), width)
    assert max(map(len, lines)) <= width
    assert len(lines) < 20
    assert [line.split()[0] for line in lines if line.startswith(" ") and line[1:2].strip()] == [
        "check",
        "cluster",
        "node",
        "GPU",
    ]
    assert ("nodes" in lines[0]) == (nodes > 1)
    assert any("-> raise the limit" in line for line in lines)
    assert lines[-1].startswith(f"{nodes} node{'s' if nodes > 1 else ''} checked in 12 s: ")


def test_only_what_is_wrong_fails_the_command():
    fine = result(
        row("n00"), row("n00", "load", "3", WARNING), row("n00", "copy", "1", SLOW), row("n00", "x", "", ABSENT)
    )
    assert fine.failed == ""
    assert fine.lines()[1] == "2 nodes checked in 12 s: 1 ok, 1 slow, 1 warning, 1 not available"
    wrong = [row(f"n{number:02}", verdict=WRONG) for number in range(5)]
    assert result(row(None, "gloo between nodes", "", WRONG)).failed == (
        "wrong: gloo between nodes; the table says what to do"
    )
    assert result(*wrong).failed == "wrong: lgd on n00, lgd on n01, lgd on n02 and 2 more; the table says what to do"


def test_the_document_has_every_row():
    document = result(row("n00"), row(None, "nodes", "2")).document()
    assert [(each["node"], each["name"], each["verdict"]) for each in document["rows"]] == [
        ("n00", "lgd", OK),
        (None, "nodes", OK),
    ]
    assert document["nodes"][0]["name"] == "n00"
