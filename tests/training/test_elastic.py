"""Training as a user runs it: killed, continued, finished; then scored and fused."""

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lgd.clusters.testbed.processes import run_lgd, run_lgd_until
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.loading.transform import Transform
from lgd.training import elastic
from lgd.training.recipes import recipe_named
from lgd.training.run import begin_run, open_run
from lgd.training.worker import MAX_STARTS, _refuse_standstill

SMALL = (
    "--transform.crop",
    48,
    "--batch-size",
    4,
    "--epochs",
    30,
    "--validation.every",
    10,
    "--checkpoint.every-s",
    0.5,
)


def metrics(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def counted(lines: list[dict]) -> list[dict]:
    """The lines of the history that counts: a `resumed` line takes back what is of a later step."""
    kept: list[dict] = []
    for line in lines:
        if "resumed" in line:
            kept = [earlier for earlier in kept if earlier["step"] <= line["step"]]
        else:
            kept.append(line)
    return kept


def train(data: Path, run: Path | str, *more: object) -> tuple[object, ...]:
    return ("train", "nano-rgb", "--data", data, "--run", run, *SMALL, *more)


@pytest.fixture(scope="module")
def run(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed with SIGKILL after its first checkpoint and then finished by the same command."""
    run = tmp_path_factory.mktemp("train") / "run"
    checkpoints = run / "checkpoints"
    run_lgd_until(
        lambda: any(checkpoints.glob("step-*.pt")),
        *train(dataset_folder, run, "--num-workers", 2, 2),
    )
    assert open_run(str(run)).result() is None
    done = run_lgd(*train(dataset_folder, run, "--num-workers", 1, 2))
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.cluster
def test_a_killed_run_continues_from_its_last_checkpoint_to_its_last_step(run: Path):
    lines = metrics(run)
    resumed = [line["step"] for line in lines if "resumed" in line]
    assert len(resumed) == 1
    assert 0 < resumed[0] < 90
    history = counted(lines)
    steps = [line["step"] for line in history if "loss" in line]
    assert steps == sorted(set(steps))
    assert steps[-1] == 90  # 12 videos, 30 epochs, 4 a step
    assert positions(history) == list(range(360))
    assert json.loads((run / "result.json").read_text())["steps"] == 90


@pytest.mark.cluster
def test_metrics_say_what_a_person_wants_to_know(run: Path):
    line = next(line for line in reversed(metrics(run)) if "loss" in line)
    assert line["loss"] == pytest.approx(line["loss_local"] + line["loss_global"], abs=1e-5)
    assert {"top1", "rate", "clips_per_s", "data_wait", "step_s", "workers", "memory_mb", "epoch"} <= line.keys()
    assert 0 <= line["data_wait"] <= 1
    validations = [line for line in metrics(run) if "val_top1" in line]
    assert {line["val_videos"] for line in validations} == {6}
    assert validations[-1]["step"] == 90
    # The best checkpoint is written after a validation: what led to it must stand in the log by then.
    assert {line["step"] for line in validations} <= {line["step"] for line in metrics(run) if "positions" in line}
    assert list((run / "tensorboard").iterdir())


@pytest.mark.cluster
def test_the_last_checkpoint_loads_without_running_code(run: Path):
    content = torch.load(run / "checkpoints" / "step-00000090.pt", weights_only=True)
    assert (content["step"], content["position"]) == (90, 360)


@pytest.mark.cluster
def test_a_finished_run_says_so_and_does_nothing(run: Path, dataset_folder: Path):
    before = (run / "metrics.jsonl").read_bytes()
    done = run_lgd(*train(dataset_folder, run))
    assert done.returncode == 0
    assert "is finished already (90 steps); nothing to do" in done.stderr
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.usefixtures("joined")
def test_a_run_that_was_killed_in_its_last_validation_validates_again(run: Path, dataset_folder: Path, tmp_path: Path):
    again = tmp_path / "run"
    shutil.copytree(run, again)
    result = json.loads((again / "result.json").read_text())
    (again / "result.json").unlink()
    done = run_lgd(*train(dataset_folder, again))
    assert done.returncode == 0, done.stderr
    assert json.loads((again / "result.json").read_text()) == pytest.approx(result)
    assert result["val_videos"] == 6


@pytest.mark.cluster
def test_another_configuration_is_refused(run: Path, dataset_folder: Path):
    done = run_lgd(*train(dataset_folder, run, "--optimizer.lr", 0.5))
    assert done.returncode == 1
    assert "belongs to another configuration (--optimizer.lr: " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("joined")
def test_scores_are_written_by_key_and_fuse(run: Path, dataset_folder: Path, tmp_path: Path):
    files = []
    for clips in (1, 4):
        files.append(tmp_path / f"{clips}.parquet")
        words = ("--data", dataset_folder, "--split", "val", "--clips", clips, "--out", files[-1])
        done = run_lgd("evaluate", run, *words, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["videos"] == 6
    keys = pq.read_table(files[0]).column("key").to_pylist()
    table = pq.read_table(dataset_folder / "videos.parquet", filters=[("split", "==", "val")])
    assert sorted(keys) == sorted(table.column("key").to_pylist())
    done = run_lgd("fuse", *files, "--weights", 1, 3, "--out", tmp_path / "fused.parquet", "--json")
    assert done.returncode == 0, done.stderr
    fused = json.loads(done.stdout)
    assert fused["weights"] == [0.25, 0.75]
    a, b, c = (pq.read_table(path).column("probabilities").to_pylist() for path in (*files, tmp_path / "fused.parquet"))
    assert c[2] == pytest.approx([0.25 * x + 0.75 * y for x, y in zip(a[2], b[2], strict=True)], abs=1e-6)
    done = run_lgd("evaluate", run, "--data", dataset_folder, "--split", "test", "--out", tmp_path / "x.parquet")
    assert done.returncode == 1
    assert "no split 'test'" in done.stderr


@pytest.mark.usefixtures("joined")
def test_stage_2_starts_from_stage_1_and_says_what_it_took(run: Path, dataset_folder: Path, tmp_path: Path):
    small = ("--transform.crop", 48, "--batch-size", 4, "--epochs", 1, "--model.sketch-dimension", 64)
    words = ("train", "nano-rgb-com", "--data", dataset_folder, "--run", tmp_path / "com", "--init-from", run, *small)
    done = run_lgd(*words)
    assert done.returncode == 0, done.stderr
    assert "loaded" in done.stderr
    assert "new: " in done.stderr
    line = next(line for line in metrics(tmp_path / "com") if "loss" in line)
    assert {name for name in line if name.startswith("loss_")} == {"loss_combined"}


@pytest.mark.usefixtures("joined")
def test_a_loss_that_is_not_finite_stops_the_run_with_the_step_and_the_clips(dataset_folder: Path, tmp_path: Path):
    done = run_lgd(*train(dataset_folder, tmp_path / "run", "--optimizer.lr", 1e30, "--num-workers", 1, 1))
    assert done.returncode == 1
    assert re.search(
        r"the loss is not finite or above 10000 after step 1 \(this worker's clips: ([\w-]+, ){3}[\w-]+\): "
        r"train with a smaller --optimizer.lr; last good checkpoint: none yet",
        done.stderr,
    )
    assert "Traceback" not in done.stderr


def positions(history: list[dict]) -> list[int]:
    """Of the clips that the steps of a history took, as the workers proved them to each other."""
    return [position for line in history if "positions" in line for position in range(*line["positions"])]


def losses(run: Path) -> list[float]:
    """Of every step, in the history that counts."""
    of_step = {}
    for line in counted(metrics(run)):
        for number, loss in enumerate(line.get("losses", []), line["step"] - len(line.get("losses", []))):
            of_step[number] = loss
    assert list(of_step) == list(range(len(of_step)))
    return list(of_step.values())


@pytest.mark.usefixtures("joined")
def test_any_number_of_workers_and_any_micro_batch_give_the_same_losses(dataset_folder: Path, tmp_path: Path):
    words = ("--epochs", 3, "--validation.every", 0, "--freeze-normalization")
    found = {}
    for name, more in {
        "1": ("--num-workers", 1, 1),
        "2": ("--num-workers", 2, 2, "--micro-batch-size", 1),
        "3": ("--num-workers", 3, 3),  # of a batch of 4: uneven shares
    }.items():
        done = run_lgd(*train(dataset_folder, tmp_path / name, *words, *more))
        assert done.returncode == 0, done.stderr
        found[name] = losses(tmp_path / name)
    assert len(found["1"]) == 9
    for name in ("2", "3"):
        assert found[name] == pytest.approx(found["1"], abs=1e-4), name


@pytest.mark.usefixtures("joined")
def test_a_flipped_bit_stops_the_run_by_name_or_on_demand_costs_its_clips(dataset_folder: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(dataset_folder, data)
    index = Index(open_dataset(data), "rgb")
    row = int(index.rows("train")[2])
    where = index.frames(row, np.array([20]))
    shard = data / where.shard
    content = bytearray(shard.read_bytes())
    content[int(where.start[0]) + 100] ^= 4
    shard.write_bytes(content)
    few = ("--epochs", 4, "--num-workers", 1, 1)
    done = run_lgd(*train(data, tmp_path / "run", *few))
    assert done.returncode == 1
    assert f"frame 20 of {index.key(row)} is damaged ({shard}, from byte {where.start[0]})" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_lgd(*train(data, tmp_path / "skipping", *few, "--skip-damaged"))
    assert done.returncode == 0, done.stderr
    last = [line for line in metrics(tmp_path / "skipping") if "loss" in line][-1]
    assert 0 < last["skipped"] <= 4


def test_workers_that_die_again_and_again_without_progress_end_the_run_with_what_they_said(
    dataset_folder: Path, tmp_path: Path
):
    data = open_dataset(dataset_folder)
    config = recipe_named("nano-rgb")
    config = dataclasses.replace(config, batch_size=4, epochs=1.0, transform=Transform(crop=48))
    run = begin_run(str(tmp_path / "run"), "nano-rgb", config, dataset=data)
    for start in range(MAX_STARTS):
        _refuse_standstill(run, "this launch")
        assert json.loads((tmp_path / "run" / "starts.json").read_text())["starts"] == start + 1
    (tmp_path / "run" / "failure.json").write_text(json.dumps({"launch": "this launch", "said": "CUDA error: 7"}))
    with pytest.raises(UserError, match=r"no further than the start in 8 starts \(CUDA error: 7\): mend that"):
        _refuse_standstill(run, "this launch")
    _refuse_standstill(run, "another launch")
    (tmp_path / "run" / "checkpoints" / "step-00000003.pt").touch()
    _refuse_standstill(run, "this launch")


def test_nodes_that_come_and_go_are_noticed_also_in_a_run_of_fixed_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    import ray

    seen = iter((["a"], ["a", "b"], ["a", "b"], ["b"]))
    over = []

    def nodes() -> list[dict]:
        alive = next(seen, None)
        over.extend([True] if alive is None else [])
        return [{"NodeID": node, "Alive": True} for node in alive or ["b"]]

    def nobody(name: str, namespace: str) -> None:
        raise ValueError(f"Failed to look up actor with name '{name}'")

    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(ray, "get_actor", nobody)  # as where no worker group can change its size
    monkeypatch.setattr(elastic, "NODES_EVERY_S", 0.001)
    with elastic.NodeWatch():
        deadline = time.monotonic() + 30
        while not over and time.monotonic() < deadline:
            time.sleep(0.001)
    said = capsys.readouterr().err
    assert "the cluster has 2 nodes now, 1 new and 0 gone" in said
    assert "the cluster has 1 nodes now, 0 new and 1 gone" in said
