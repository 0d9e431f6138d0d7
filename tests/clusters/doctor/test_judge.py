"""Verdicts that compare nodes."""

import pytest

from lgd.clusters.doctor.judge import clock_row, cpus_per_gpu_row, nodes_row, with_outliers
from lgd.clusters.doctor.nodes import Member
from lgd.clusters.doctor.rows import NODE, OK, SLOW, WARNING, Row


def member(name: str, cpus: float = 8, gpus: int = 0) -> Member:
    return Member(id=name, name=name, address="10.0.0.1", cpus=cpus, gpus=gpus)


def test_the_number_of_nodes():
    assert nodes_row([member("a", cpus=1)], lost=0).figure == "1, for Ray with 1 CPU and 0 GPUs"
    assert nodes_row([member("a"), member("b", gpus=1)], lost=2).figure == (
        "2, for Ray with 16 CPUs and 1 GPU; 2 lost before"
    )


@pytest.mark.parametrize(
    ("offsets", "verdict", "figure"),
    [
        ({"a": (0.0, 0.001)}, OK, "differ by at most 0.0 ms (measured to ± 1.0 ms)"),
        (
            {"a": (0.0, 0.001), "b": (0.25, 0.002), "c": (-0.25, 0.0)},
            OK,
            "differ by at most 500.0 ms (measured to ± 2.0 ms)",
        ),
        ({"a": (0.0, 0.001), "b": (0.001, 0.001), "c": (61.5, 0.01)}, WARNING, "c is 61.5 s ahead of the others"),
        ({"a": (0.0, 0.001), "b": (0.0, 0.001), "c": (-3.0, 0.01)}, WARNING, "c is 3.0 s behind the others"),
        (
            {"a": (0, 0), "b": (0, 0), "c": (0, 0), "d": (9, 0), "e": (-4, 0)},
            WARNING,
            "d is 9.0 s ahead of the others, and 1 more differ by over 1 s",
        ),
        ({"a": (0.0, 0.001), "b": (-3.0, 0.01)}, WARNING, "a is 3.0 s ahead of the others"),
        ({"a": (1.2, 0.5)}, OK, "differ by at most 1200.0 ms (measured to ± 500.0 ms)"),  # may be equal: a slow call
        ({}, WARNING, "no node responds"),
    ],
)
def test_clocks_that_differ_by_more_than_a_second_are_a_warning(
    offsets: dict[str, tuple[float, float]], verdict: str, figure: str
):
    row = clock_row(offsets)
    assert (row.verdict, row.figure) == (verdict, figure)


def test_a_clock_warning_says_why():
    assert "S3 requests" in clock_row({"a": (0.0, 0.0), "b": (5.0, 0.0)}).advice


@pytest.mark.parametrize(
    ("members", "rows"),
    [
        ([member("a", 64)], []),
        ([member("a", 64), member("b", 64, 8), member("c", 32, 4)], [("8", OK)]),
        ([member("b", 64, 8), member("c", 2, 1)], [("2 on c, up to 8 on other nodes", WARNING)]),
        ([member("b", 64, 8), member("c", 64, 4)], [("8 on b, up to 16 on other nodes", WARNING)]),
        ([member("b", 0, 8)], [("0", WARNING)]),
    ],
)
def test_the_cpus_per_gpu(members: list[Member], rows: list[tuple[str, str]]):
    assert [(row.figure, row.verdict) for row in cpus_per_gpu_row(members)] == rows


def test_a_node_with_less_than_half_of_the_speed_of_the_others_is_slow():
    def rows(value: float) -> list[Row]:
        return [
            Row(NODE, "copy", f"{value:g} GB/s", value=value, unit="GB/s"),
            Row(NODE, "data, latency", f"{value:g} ms", value=value, unit="ms"),  # not a speed
            Row(NODE, "lgd", "0.3.0"),
        ]

    nodes = {"a": rows(10), "b": rows(9), "c": rows(4), "d": rows(11)}
    with_outliers(nodes)
    assert {name: [row.verdict for row in each] for name, each in nodes.items()} == {
        "a": [OK, OK, OK],
        "b": [OK, OK, OK],
        "c": [SLOW, OK, OK],
        "d": [OK, OK, OK],
    }
    assert nodes["c"][0].figure == "4 GB/s; the median of the nodes is 10"
    assert nodes["c"][0].advice


def test_one_node_is_not_compared_with_itself():
    nodes = {"a": [Row(NODE, "copy", "1 GB/s", value=1.0, unit="GB/s")]}
    with_outliers(nodes)
    assert nodes["a"][0].verdict == OK
