"""A run folder in an object store: killed, resumed and evaluated."""

import json
from pathlib import Path

import pytest

from lgd.clusters.testbed.processes import run_lgd, run_lgd_until
from lgd.pipeline.storage.storage import Storage
from tests.training.runs import STEPS, positions, train_command, without_repeats


@pytest.mark.cluster
def test_a_run_in_an_object_store_is_resumed_and_evaluated(s3: str, dataset_folder: Path, tmp_path: Path):
    run = Storage(f"{s3}/run")
    words = train_command(dataset_folder, f"{s3}/run", "--num-workers", 1, 1)
    run_lgd_until(lambda: any(name.startswith("step-") for name in run.names("checkpoints")), *words)
    assert not run.exists("result.json")
    done = run_lgd(*words)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in run.read("metrics.jsonl").decode().splitlines()]
    assert positions(without_repeats(lines)) == list(range(4 * STEPS))
    assert json.loads(run.read("result.json"))["steps"] == STEPS
    assert any(name.startswith("events.out.tfevents") for name in run.names("tensorboard"))
    scores = f"{s3}/scores.parquet"
    done = run_lgd("evaluate", f"{s3}/run", "--data", dataset_folder, "--clips", 1, "--out", scores, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["videos"] == 6
    again = run_lgd(*words)
    assert again.returncode == 0
    assert f"is already finished ({STEPS} steps); nothing to do" in again.stderr
