"""`lgd train` as a user runs it: killed, resumed and finished; then evaluated and fused."""

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lgd.clusters.testbed.processes import run_lgd, run_lgd_until
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.placement import ShortageWatch
from lgd.training import checkpoint, elastic
from lgd.training.models.zoo import build
from lgd.training.recipes import RECIPES, TrainConfig
from lgd.training.run import begin_run, open_run
from tests.training.runs import STEPS, losses, metrics, positions, train_command, without_repeats


@pytest.fixture(scope="module")
def run(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed with SIGKILL after its first checkpoint and then finished by the same command."""
    run = tmp_path_factory.mktemp("train") / "run"
    checkpoints = run / "checkpoints"
    run_lgd_until(
        lambda: any(checkpoints.glob("step-*.pt")),
        *train_command(dataset_folder, run, "--num-workers", 2, 2),
    )
    assert open_run(str(run)).result() is None
    done = run_lgd(*train_command(dataset_folder, run, "--num-workers", 1, 2))
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.cluster
def test_a_killed_run_resumes_from_its_last_checkpoint_and_trains_to_its_last_step(run: Path):
    lines = metrics(run)
    resumed = [line["step"] for line in lines if "resumed" in line]
    assert len(resumed) == 1
    assert 0 < resumed[0] < STEPS
    history = without_repeats(lines)
    steps = [line["step"] for line in history if "loss" in line]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
    assert positions(history) == list(range(4 * STEPS))
    assert json.loads((run / "result.json").read_text())["steps"] == STEPS


@pytest.mark.cluster
def test_metrics_contain_loss_accuracy_speed_and_validations(run: Path):
    line = next(line for line in reversed(metrics(run)) if "loss" in line)
    assert line["loss"] == pytest.approx(line["loss_local"] + line["loss_global"], abs=1e-5)
    assert {"top1", "rate", "clips_per_s", "data_wait", "step_s", "workers", "memory_mb", "epoch"} <= line.keys()
    assert 0 <= line["data_wait"] <= 1
    validations = [line for line in metrics(run) if "val_top1" in line]
    assert {line["val_videos"] for line in validations} == {6}
    assert validations[-1]["step"] == STEPS
    # The best checkpoint is written after a validation: the metrics of the steps before it must be written by then.
    assert {line["step"] for line in validations} <= {line["step"] for line in metrics(run) if "positions" in line}
    assert list((run / "tensorboard").iterdir())


@pytest.mark.cluster
def test_the_last_checkpoint_loads_without_running_code(run: Path):
    content = torch.load(run / "checkpoints" / f"step-{STEPS:08d}.pt", weights_only=True)
    assert (content["step"], content["position"]) == (STEPS, 4 * STEPS)


@pytest.mark.cluster
def test_a_finished_run_is_reported_and_not_changed(run: Path, dataset_folder: Path):
    before = (run / "metrics.jsonl").read_bytes()
    done = run_lgd(*train_command(dataset_folder, run))
    assert done.returncode == 0
    assert f"is already finished ({STEPS} steps); nothing to do" in done.stderr
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.usefixtures("joined")
def test_a_run_that_was_killed_in_its_last_validation_validates_again(run: Path, dataset_folder: Path, tmp_path: Path):
    again = tmp_path / "run"
    shutil.copytree(run, again)
    result = json.loads((again / "result.json").read_text())
    (again / "result.json").unlink()
    done = run_lgd(*train_command(dataset_folder, again))
    assert done.returncode == 0, done.stderr
    assert json.loads((again / "result.json").read_text()) == pytest.approx(result)
    assert result["val_videos"] == 6


@pytest.mark.cluster
def test_a_different_configuration_is_refused(run: Path, dataset_folder: Path):
    done = run_lgd(*train_command(dataset_folder, run, "--optimizer.lr", 0.5))
    assert done.returncode == 1
    assert "has a different configuration (--optimizer.lr: 0.02 -> 0.5): give the same options" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("joined")
def test_scores_of_a_run_have_keys_and_can_be_fused(run: Path, dataset_folder: Path, tmp_path: Path):
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
def test_stage_2_starts_from_stage_1_and_prints_what_was_loaded(run: Path, dataset_folder: Path, tmp_path: Path):
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
    done = run_lgd(*train_command(dataset_folder, tmp_path / "run", "--optimizer.lr", 1e30, "--num-workers", 1, 1))
    assert done.returncode == 1
    assert re.search(
        r"the (loss is not finite or above 10000|gradient is not finite) after step [1-3] \(clips of this worker: "
        r"([\w-]+, ){3}[\w-]+\): (rerun|train in a new --run folder) with a lower --optimizer.lr or a "
        r"--optimizer.max-grad-norm",
        done.stderr,
    )
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("joined")
@pytest.mark.parametrize(
    ("options", "variants"),
    [
        # Groups of 2 of a batch of 4: on 3 workers the second group is spread over two of them.
        (("--normalization-group", 2), {"3": ("--micro-batch-size", 2, "--model.checkpoint-activations")}),
        (
            (
                *("--freeze-normalization", "--freeze-until", "res3", "--init-from", "INITIAL"),
                *("--model.dropout", 0.5, "--optimizer.head-factor", 10),
            ),
            {"3": ("--micro-batch-size", 1)},
        ),
    ],
    ids=["groups", "fine-tuning"],
)
def test_any_number_of_workers_and_any_micro_batch_give_the_same_losses_and_statistics(
    dataset_folder: Path, tmp_path: Path, options: tuple[object, ...], variants: dict[str, tuple[object, ...]]
):
    # With a higher rate, rounding errors of sums in a different order grow from step to step, even on one worker.
    if "INITIAL" in options:
        make_initial_run(tmp_path / "initial", dataset_folder)
        options = tuple(tmp_path / "initial" if word == "INITIAL" else word for word in options)
    words = ("--epochs", 3, "--validation.every", 0, "--optimizer.lr", 1e-5, *options)
    by_workers, grad_norms = {}, {}
    for workers, more in {"1": (), **variants}.items():
        run = tmp_path / workers
        done = run_lgd(*train_command(dataset_folder, run, *words, *more, "--num-workers", workers))
        assert done.returncode == 0, done.stderr
        state = torch.load(run / "checkpoints" / "step-00000009.pt", weights_only=True)["model"]
        statistics = {name: value.numpy() for name, value in state.items() if "running" in name}
        by_workers[workers] = losses(run), statistics
        grad_norms[workers] = losses(run, "grad_norms")  # of the global batch, not of a worker's share
    expected, expected_statistics = by_workers.pop("1")
    assert len(expected) == 9
    for workers, (found, statistics) in by_workers.items():
        assert found == pytest.approx(expected, abs=1e-4), workers
        assert grad_norms[workers][0] == pytest.approx(grad_norms["1"][0], rel=1e-4), workers
        assert grad_norms[workers] == pytest.approx(grad_norms["1"], rel=2e-2), workers  # rounding grows fastest here
        for name, value in expected_statistics.items():
            np.testing.assert_allclose(statistics[name], value, atol=1e-4, rtol=1e-4, err_msg=f"{workers}: {name}")


def make_initial_run(folder: Path, data: Path) -> None:
    """Create a run with random weights and running statistics, for other classes than those of the dataset."""
    dataset = replace(open_dataset(data), classes=("a", "b"))
    run = begin_run(str(folder), "nano-rgb", RECIPES["nano-rgb"], dataset=dataset)
    torch.manual_seed(5)
    network = build(run.config.model, 2, 3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]  # it has statistics
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    writer = checkpoint.CheckpointWriter(run)
    writer.save(3, network, torch.optim.SGD(network.parameters(), lr=0.1))
    writer.close()


@pytest.mark.usefixtures("joined")
def test_a_damaged_frame_stops_the_run_or_its_clips_are_skipped(dataset_folder: Path, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(dataset_folder, data)
    index = Index(open_dataset(data), "rgb")
    row = int(index.rows("train")[2])
    where = index.frames(row, np.array([20]))
    shard = data / where.shard
    content = bytearray(shard.read_bytes())
    content[int(where.start[0]) + 100] ^= 4
    shard.write_bytes(content)
    short = ("--epochs", 4, "--num-workers", 1, 1)
    done = run_lgd(*train_command(data, tmp_path / "run", *short))
    assert done.returncode == 1
    assert f"frame 20 of {index.key(row)} is damaged ({shard}, from byte {where.start[0]})" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_lgd(*train_command(data, tmp_path / "skipping", *short, "--skip-damaged"))
    assert done.returncode == 0, done.stderr
    last = [line for line in metrics(tmp_path / "skipping") if "loss" in line][-1]
    assert 0 < last["skipped"] <= 4


def test_nodes_that_join_and_leave_are_reported_in_a_run_with_a_fixed_number_of_workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    import ray

    node_lists = iter((["a"], ["a", "b"], ["a", "b"], ["b"]))
    finished = []

    def nodes() -> list[dict]:
        alive = next(node_lists, None)
        finished.extend([True] if alive is None else [])
        return [{"NodeID": node, "Alive": True, "Resources": {"CPU": 1.0}} for node in alive or ["b"]]

    def no_actor(name: str, namespace: str) -> None:
        raise ValueError(f"Failed to look up actor with name '{name}'")

    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(ray, "get_actor", no_actor)  # a run with a fixed number of workers has no coordinator
    monkeypatch.setattr(elastic, "NODES_EVERY_S", 0.001)
    with elastic.NodeWatcher(ShortageWatch("worker", {"CPU": 1.0})):
        deadline = time.monotonic() + 30
        while not finished and time.monotonic() < deadline:
            time.sleep(0.001)
    messages = capsys.readouterr().err
    assert "nodes of the cluster: 2 (1 joined, 0 left)" in messages
    assert "nodes of the cluster: 1 (0 joined, 1 left)" in messages


@pytest.mark.parametrize(
    ("numbers", "expected"), [(None, None), ((4,), (4, 4)), ((1, 4), (1, 4)), ((2, 2), (2, 2)), ((1,), (1, 1))]
)
def test_one_number_of_workers_is_minimum_and_maximum(
    numbers: tuple[int, ...] | None, expected: tuple[int, int] | None
):
    assert elastic.worker_range(numbers) == expected


@pytest.mark.parametrize("numbers", [(), (0,), (4, 1), (0, 2), (-1,), (1, 2, 3)])
def test_impossible_numbers_of_workers_are_refused(numbers: tuple[int, ...]):
    with pytest.raises(UsageError, match="--num-workers must be one number or a minimum and a maximum, 1 or more"):
        elastic.worker_range(numbers)


def test_the_json_document_has_the_accuracy_only_of_a_validated_run():
    assert elastic.TrainResult("run", 90).document() == {"run": "run", "steps": 90}
    validated = elastic.TrainResult("run", 90, val_top1=0.5, val_top5=1.0, val_videos=6)
    assert validated.document() == {"run": "run", "steps": 90, "val_top1": 0.5, "val_top5": 1.0, "val_videos": 6}
    assert validated.lines() == ["run: 90 steps; validation top-1 50.0%"]


def test_videos_without_a_label_are_left_out_of_the_training_with_a_line(
    unlabelled_dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def stop() -> None:
        raise UserError("the cluster would start now")

    run = begin_run(str(tmp_path / "run"), "nano-rgb", TrainConfig(), dataset=unlabelled_dataset)
    with pytest.raises(UserError, match="the cluster would start now"):
        elastic.run_training(run, unlabelled_dataset, None, start_cluster=stop)
    assert "1 of 3 videos of the split train have no label and are left out\n" in capsys.readouterr().err
    summary = {**unlabelled_dataset.summary, "unlabelled": {"train": 3}}
    with pytest.raises(UserError, match="none of the 3 videos of the split train has a label: preprocess videos with"):
        elastic.run_training(run, replace(unlabelled_dataset, summary=summary), None, start_cluster=stop)
