"""Insufficient memory in training: what counts as such, and the message to the user."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import ray.train
import torch

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.storage.lock import locked
from lgd.training import loop, worker
from lgd.training.recipes import TrainConfig
from lgd.training.run import ERROR, begin_run, open_run, save_changes
from lgd.training.steps.memory import is_memory_error, memory_advice, smaller_sizes
from lgd.training.worker import TrainJob, train_worker
from tests.training.test_run import NANO

BATCH = TrainConfig(batch_size=64, normalization_group=16)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("Critical error in pipeline:\nError in GPU operator: Can't allocate 4096 bytes on device 0."),
        RuntimeError("CUDA allocation failed\nCurrent pipeline object is no longer valid."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_every_library_that_lacks_memory_is_understood(error: Exception):
    assert is_memory_error(error)


def test_pytorch_itself_raises_such_an_error():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_memory_error(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Expected all tensors to be on the same device"),
        RuntimeError("NCCL communicator was aborted"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory"),
        KeyError("memory"),
    ],
)
def test_other_errors_are_not(error: Exception):
    assert not is_memory_error(error)


@pytest.mark.parametrize(
    ("group", "clips", "sizes"),
    [
        (0, 64, [32, 16, 8]),
        (0, 3, [1]),
        (0, 1, []),
        (16, 64, [32, 16]),
        (16, 48, [16]),
        (16, 24, [16]),
        (16, 16, []),
        (16, 8, []),  # a group that is spread over workers
        (8, 100, [48, 24, 8]),
    ],
)
def test_the_sizes_hold_complete_normalization_groups(group: int, clips: int, sizes: list[int]):
    config = replace(BATCH, normalization_group=group)
    assert smaller_sizes(config, clips) == sizes
    for size in sizes:
        replace(config, micro_batch_size=size).check_micro_batches()


def test_the_advice_names_sizes_or_what_else_helps():
    line = memory_advice(BATCH, 1, on_gpu=True)
    assert "too small for the 64 clips that a worker computes at a time: rerun with --micro-batch-size 32 or 16" in line
    assert line.startswith("the GPU memory of ")
    assert "16 clips" in memory_advice(replace(BATCH, micro_batch_size=16), 1, on_gpu=True)
    without_groups = memory_advice(replace(BATCH, normalization_group=0), 1, on_gpu=False)
    assert "in a new --run folder with --micro-batch-size 32, 16 or 8; batch normalization" in without_groups
    frozen = replace(BATCH, normalization_group=0, freeze_normalization=True)
    assert "rerun with --micro-batch-size 32, 16 or 8 to resume" in memory_advice(frozen, 1, on_gpu=False)
    for choice in ("auto", False):  # auto: the estimate was too low
        stored = replace(BATCH, model=replace(BATCH.model, checkpoint_activations=choice))
        assert "rerun with --model.checkpoint-activations true to resume" in memory_advice(stored, 4, on_gpu=True)
    recomputed = replace(BATCH, model=replace(BATCH.model, checkpoint_activations=True))
    one_group = memory_advice(recomputed, 4, on_gpu=True)
    assert "is not possible: use more workers, or train in a new --run folder with a smaller" in one_group
    assert "--normalization-group" in one_group
    assert "more workers" not in memory_advice(replace(recomputed, batch_size=4), 4, on_gpu=True)


def test_a_worker_without_memory_ends_the_training_at_once(
    empty_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def train(*_: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(worker, "open_dataset", lambda *_: empty_dataset)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    run = begin_run(str(tmp_path / "run"), "nano-rgb", replace(NANO, batch_size=16), dataset=empty_dataset)
    with locked(run.storage, "lgd train") as held:
        job = vars(TrainJob(run.storage.address, "data", held.token))
        with pytest.raises(UserError, match="--micro-batch-size 8 to resume"):
            train_worker(job)
        error = json.loads(run.storage.read(ERROR))
        assert error["launch"] == held.token
        assert "--micro-batch-size 8 to resume" in error["message"]
        train_worker(job)  # the restart returns: the driver reports the error


def test_a_run_may_continue_with_smaller_micro_batches_if_the_result_does_not_depend_on_them(
    empty_dataset: Dataset, tmp_path: Path
):
    first = replace(NANO, batch_size=16)
    folder = str(tmp_path / "run")
    begin_run(folder, "nano-rgb", first, dataset=empty_dataset)
    smaller = begin_run(folder, "nano-rgb", replace(first, micro_batch_size=8), dataset=empty_dataset)
    assert smaller.config.micro_batch_size == 8
    with pytest.raises(UserError, match="does not hold complete groups"):
        begin_run(folder, "nano-rgb", replace(first, micro_batch_size=3), dataset=empty_dataset)
    alone = replace(first, normalization_group=0)
    begin_run(str(tmp_path / "alone"), "nano-rgb", alone, dataset=empty_dataset)
    with pytest.raises(UserError, match="--micro-batch-size: None -> 8"):
        begin_run(str(tmp_path / "alone"), "nano-rgb", replace(alone, micro_batch_size=8), dataset=empty_dataset)


def test_a_run_may_resume_with_other_settings_that_do_not_change_the_result(empty_dataset: Dataset, tmp_path: Path):
    """Runs of earlier versions have `"compile": false` and `"model.checkpoint_activations": false`."""
    folder = str(tmp_path / "run")
    old = replace(NANO, compile=False, model=replace(NANO.model, checkpoint_activations=False))
    begin_run(folder, "nano-rgb", old, dataset=empty_dataset)
    path = tmp_path / "run" / "config.json"
    document = json.loads(path.read_text())
    del document["config"]["cuda_graph"], document["config"]["model.convolutions"]  # newer than the run
    path.write_text(json.dumps(document))
    new = replace(NANO, cuda_graph=False, model=replace(NANO.model, checkpoint_activations=True, convolutions="2d"))
    run = begin_run(folder, "nano-rgb", new, dataset=empty_dataset)
    assert (run.config.compile, run.config.cuda_graph) == ("auto", False)
    assert run.config.model == new.model
    save_changes(run)
    assert open_run(folder).config == new
    with pytest.raises(UserError, match="--epochs"):
        begin_run(folder, "nano-rgb", replace(new, epochs=3), dataset=empty_dataset)
