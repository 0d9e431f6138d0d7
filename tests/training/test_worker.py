"""Workers that start again and again."""

import json
from dataclasses import replace

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.storage.lock import LockLost, locked
from lgd.training.run import FAILURE, STARTS, begin_run
from lgd.training.worker import MAX_STARTS, TrainJob, check_progress, train_worker
from tests.training.test_run import NANO


def test_workers_that_restart_without_progress_end_the_run_with_their_last_error(empty_dataset: Dataset, tmp_path):
    run = begin_run(str(tmp_path / "run"), "nano-rgb", NANO, dataset=empty_dataset)
    for start in range(MAX_STARTS):
        check_progress(run, "this launch")
        assert json.loads(run.storage.read(STARTS))["starts"] == start + 1
    with pytest.raises(UserError, match=r"\(workers died without an error message, see Ray's logs\): fix the cause"):
        check_progress(run, "this launch")
    run.storage.write(FAILURE, json.dumps({"launch": "this launch", "message": "CUDA error: 7"}).encode())
    with pytest.raises(UserError, match=r"no progress past the start in 8 restarts \(CUDA error: 7\): fix the cause"):
        check_progress(run, "this launch")


def test_a_new_launch_and_a_new_checkpoint_start_to_count_again(empty_dataset: Dataset, tmp_path):
    run = begin_run(str(tmp_path / "run"), "nano-rgb", NANO, dataset=empty_dataset)
    for _ in range(MAX_STARTS):
        check_progress(run, "this launch")
    check_progress(run, "another launch")
    assert json.loads(run.storage.read(STARTS))["starts"] == 1
    check_progress(run, "another launch")
    run.storage.write("checkpoints/step-00000003.pt", b"")
    check_progress(run, "another launch")
    assert json.loads(run.storage.read(STARTS))["starts"] == 1


def test_a_worker_writes_nothing_after_the_lock_of_its_run_was_lost(empty_dataset: Dataset, tmp_path):
    run = begin_run(str(tmp_path / "run"), "nano-rgb", NANO, dataset=empty_dataset)
    with locked(run.storage, "lgd train") as lost:
        pass
    before = run.storage.list_all()
    train_worker(vars(TrainJob(run.storage.address, "missing data", lost.token)))  # returns: it does not restart
    with pytest.raises(LockLost):
        check_progress(replace(run, storage=lost), "this launch")
    assert run.storage.list_all() == before
