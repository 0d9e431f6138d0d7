"""The arithmetic of the scaling prediction, and what is read out of a run. Times are never looked at."""

import io
from typing import Any

import pytest
from rich.console import Console

from lgd.benchmarks.dev.scaling import (
    NODES,
    document,
    loopback_of,
    mean_step_s,
    predict,
    report,
    ring_s,
    start_up,
    step_bounds,
)
from lgd.clusters.testbed.processes import run_lgd

COMPUTE_S = {8: 8.0, 4: 4.4, 2: 2.4, 1: 1.4}
ABOUT: dict[str, Any] = {
    "recipe": "nano-rgb",
    "batch": 8,
    "gradient_bytes": 10**9,
    "device": "cpu",
    "latency_us": 0.0,
    "assumptions": ["one"],
}
START_UP = {"cluster": 1.0, "workers": 2.0, "network_and_dali": 0.5, "first_batch": 0.25, "first_step": 0.25}


def test_a_ring_sends_every_byte_twice_but_for_the_nodes_own_share():
    assert ring_s(1, 10**9, 1e9, latency_s=1.0) == 0
    assert ring_s(2, 10**9, 1e9, latency_s=0.0) == pytest.approx(1.0)
    assert ring_s(64, 10**9, 1e9, latency_s=0.0) == pytest.approx(2 * 63 / 64)
    assert ring_s(4, 1000, 1e9, latency_s=0.1) == pytest.approx(6 * 0.1, rel=1e-3)  # one bucket
    assert ring_s(4, 52 * 2**20, 1e30, latency_s=0.1) == pytest.approx(6 * 0.1 * 4)  # of 1, 25, 25 and 1 MB


def test_bounds_of_a_step_are_full_overlap_and_none():
    assert step_bounds(3.0, 1.0) == (3.0, 4.0)  # hidden behind 2 s of backward pass
    assert step_bounds(3.0, 5.0) == pytest.approx((6.0, 8.0))


def test_predictions_are_against_one_node():
    rows = predict(COMPUTE_S, batch=8, size=10**9, gbit=(8, 80), latency_s=0.0)
    assert len(rows) == 2 * len(NODES)
    by = {(row["nodes"], row["gbit"]): row for row in rows}
    assert by[1, 8]["strong"]["efficiency"] == [1, 1]
    assert by[1, 8]["weak"]["efficiency"] == [1, 1]
    two = by[2, 8]  # 8 Gbit/s take 1 s
    assert two["strong"]["share"] == 4
    assert two["strong"]["step_s"] == pytest.approx([4.4, 5.4])
    assert two["strong"]["efficiency"] == pytest.approx([8 / 8.8, 8 / 10.8])
    assert two["weak"]["efficiency"] == pytest.approx([1, 8 / 9])
    assert by[2, 80]["all_reduce_s"] == pytest.approx(0.1)
    assert by[8, 8]["strong"]["share"] == 1
    assert by[16, 8]["strong"] is None  # more nodes than clips
    assert by[64, 8]["weak"]["efficiency"][1] == pytest.approx(8 / (8 + 2 * 63 / 64))


def test_loopback_explains_its_measurements():
    found = loopback_of({"large_s": 1.002, "small_s": 0.002}, 10**9)
    assert found == pytest.approx({"gbit": 8, "latency_us": 1000})
    assert ring_s(2, 10**6, found["gbit"] * 1e9 / 8, latency_s=found["latency_us"] / 1e6) == pytest.approx(0.003)


def test_a_run_is_read_without_its_first_step():
    lines = [
        {"time": 110.0, "step_s": 4.0, "data_wait": 0.25, "losses": [1.0]},
        {"step_s": 1.0, "losses": [1.0] * 3},
        {"step_s": 2.0, "losses": [1.0]},
    ]
    assert mean_step_s(lines) == 1.25
    stages = start_up({"cluster_s": 3.0, "fit_at": 100.0}, entered=105.0, first=lines[0])
    assert stages == {"cluster": 3, "workers": 5, "network_and_dali": 1, "first_batch": 1, "first_step": 3}


def test_the_prediction_is_checked_against_real_workers_and_shown():
    runs = [
        {"workers": 1, "step_s": 8.8, "start_up_s": START_UP},
        {"workers": 2, "step_s": 7.0, "start_up_s": START_UP},
    ]
    result = document(ABOUT, COMPUTE_S, (8, 80), loopback={"gbit": 8, "latency_us": 0}, runs=runs)
    one, two = result["checks"]
    assert one["error"] == pytest.approx(0.1)
    assert two["predicted_s"] == pytest.approx([4.4, 5.4])
    assert two["predicted_over_measured"] == pytest.approx([4.4 / 7, 5.4 / 7])
    assert result["failed"] == ["a step of 2 workers took 1.30 times what was predicted"]
    runs[1]["step_s"] = 5.0  # between the bounds
    result = document(ABOUT, COMPUTE_S, (8, 80), loopback={"gbit": 8, "latency_us": 0}, runs=runs)
    assert result["checks"][1]["error"] == 0
    assert result["failed"] == []
    console = Console(file=io.StringIO(), width=200)
    for line in report(result):
        console.print(line)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("* one", "80 Gbit/s", "74% to 91%", "0.88 to 1.08", "network and dali"):
        assert shown in text


def test_options_come_after_the_recipe():
    done = run_lgd("train", "--data", "nowhere", "nano-rgb", "--run", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lgd: the recipe comes first: RECIPE --data ...\n"
