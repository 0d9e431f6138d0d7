"""The scaling benchmark: numbers from a run's metrics, and the check of the prediction. Times are not tested."""

import io

import pytest
from rich.console import Console

from lgd.benchmarks.dev.scaling import Loopback, StepSettings, WorkerRun, loopback_of, mean_step_s, start_up, summarize
from lgd.benchmarks.dev.scaling_child import ring
from lgd.benchmarks.dev.scaling_model import ring_s

COMPUTE_S = {8: 8.0, 4: 4.4, 2: 2.4, 1: 1.4}
SETTINGS = StepSettings(
    recipe="nano-rgb",
    batch=8,
    precision="float32",
    compile=False,
    gradient_bytes=10**9,
    device="cpu",
    latency_us=0.0,
    assumptions=("one",),
)
START_UP = {"cluster": 1.0, "workers": 2.0, "network_and_dali": 0.5, "first_batch": 0.25, "first_step": 0.25}
LOOPBACK = Loopback(gbit=8, latency_us=0)


def test_loopback_explains_its_measurements():
    loopback = loopback_of({"large_s": 1.002, "small_s": 0.002}, 10**9)
    assert loopback.gbit == pytest.approx(8)
    assert loopback.latency_us == pytest.approx(1000)
    seconds = ring_s(2, 10**6, loopback.gbit * 1e9 / 8, latency_s=loopback.latency_us / 1e6)
    assert seconds == pytest.approx(0.003)


def test_an_all_reduce_of_two_processes_is_measured():
    assert {name: seconds > 0 for name, seconds in ring(1000, 1).items()} == {"large_s": True, "small_s": True}


def test_the_first_step_of_a_run_is_part_of_its_start_up():
    lines = [
        {"time": 110.0, "step_s": 4.0, "data_wait": 0.25, "losses": [1.0]},
        {"step_s": 1.0, "losses": [1.0] * 3},
        {"step_s": 2.0, "losses": [1.0]},
    ]
    assert mean_step_s(lines) == 1.25
    stages = start_up({"cluster_s": 3.0, "train_at": 100.0}, entered=105.0, first=lines[0])
    assert stages == {"cluster": 3, "workers": 5, "network_and_dali": 1, "first_batch": 1, "first_step": 3}


def test_the_prediction_is_compared_with_real_workers():
    runs = [WorkerRun(1, 8.8, START_UP), WorkerRun(2, 7.0, START_UP)]
    result = summarize(SETTINGS, COMPUTE_S, (8, 80), loopback=LOOPBACK, runs=runs)
    one, two = result.checks
    assert one.error == pytest.approx(0.1)
    assert two.predicted_s == pytest.approx((4.4, 5.4))
    assert two.predicted_over_measured == pytest.approx((4.4 / 7, 5.4 / 7))
    (claim,) = result.claims_not_met
    assert claim == "a step with 2 workers took 1.30 times as long as predicted (maximum: 1.25)"
    assert result.failed == f"claims not met: {claim}"
    runs[1] = WorkerRun(2, 5.0, START_UP)  # between the bounds
    result = summarize(SETTINGS, COMPUTE_S, (8, 80), loopback=LOOPBACK, runs=runs)
    assert result.checks[1].error == 0
    assert result.failed == ""
    assert result.document()["checks"][1].keys() == {
        "workers", "step_s", "start_up_s", "predicted_s", "predicted_over_measured", "error",
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    for line in result.lines():
        console.print(line)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for shown in ("* one", "80 Gbit/s", "74% to 91%", "0.88 to 1.08", "network and dali"):
        assert shown in text
