"""Training that is stopped by a signal: a last checkpoint in the time that is left, and how the run resumes."""

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from lgd.clusters.testbed.processes import ProcessTree, run_lgd
from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.storage.lock import LockedStorage, locked
from lgd.pipeline.storage.storage import Storage
from lgd.training.stop import StopOptions, StopRequest, last_checkpoint
from tests.training.runs import STEPS, metrics, positions, train_command, without_repeats


@pytest.fixture
def storage(tmp_path: Path):
    """A run folder whose lock is held."""
    with locked(Storage(str(tmp_path)), "lgd train") as storage:
        storage.make_folder("checkpoints")
        yield storage


@pytest.mark.parametrize("grace_s", [-1.0, float("nan"), float("inf")])
def test_the_time_for_a_last_checkpoint_is_checked(grace_s: float):
    with pytest.raises(UsageError, match=r"^--grace-s must be 0 or more seconds, not (-1|nan|inf)$"):
        StopOptions(grace_s)


def test_before_the_workers_train_nothing_is_waited_for(storage: LockedStorage):
    assert last_checkpoint(storage, 60.0) == "rerun the same command to resume"


def test_the_workers_are_asked_for_a_checkpoint(storage: LockedStorage):
    request = StopRequest(storage)
    answers: list[str] = []
    driver = threading.Thread(target=lambda: answers.append(last_checkpoint(storage, 60.0)))
    assert not request.received
    driver.start()
    while not request.received:
        time.sleep(0.01)
    request.answer(7)
    driver.join()
    request.close()
    assert answers == ["checkpoint of step 7 written: rerun the same command to resume from there"]
    storage.clean()
    assert [name for name in storage.names() if not name.startswith(".lock-")] == []


@pytest.mark.parametrize(
    ("grace_s", "steps", "expected"),
    [
        (0.05, (5, 30), "no checkpoint within 0.05 s (--grace-s): {resume} from the last checkpoint, of step 30"),
        (0.05, (), "no checkpoint within 0.05 s (--grace-s): {resume} from the start"),
        (0.0, (5,), "{resume} from the last checkpoint, of step 5"),
    ],
)
def test_without_an_answer_the_last_checkpoint_counts(
    grace_s: float, steps: tuple[int, ...], expected: str, storage: LockedStorage
):
    request = StopRequest(storage)
    for step in steps:
        storage.write(f"checkpoints/step-{step:08d}.pt", b"")
    assert last_checkpoint(storage, grace_s) == expected.format(resume="rerun the same command to resume")
    request.close()


@pytest.mark.chaos
def test_sigterm_writes_a_checkpoint_leaves_nothing_and_the_run_resumes_at_its_step(
    dataset_folder: Path, tmp_path: Path
):
    run, log = tmp_path / "run", tmp_path / "log"
    words = train_command(dataset_folder, run, "--num-workers", 2, 2, "--checkpoint.every-s", 3600)
    with tempfile.TemporaryDirectory(prefix="t") as temporary:
        command = ProcessTree(sys.executable, "-m", "lgd", *words, env={**os.environ, "TMPDIR": temporary}, log=log)
        while not any("loss" in line for line in metrics(run)):
            assert command.process.poll() is None, log.read_text()
            time.sleep(0.05)
        command.process.send_signal(signal.SIGTERM)
        assert command.process.wait(timeout=60) == 143, log.read_text()
        assert command.pids() == []
        left = [str(path.relative_to(temporary)) for path in Path(temporary).rglob("*")]
        assert [name for name in left if not name.startswith("torchinductor")] == ["ray"]
    (file,) = (run / "checkpoints").iterdir()
    step = int(file.stem.removeprefix("step-"))
    resume = f"checkpoint of step {step} written: rerun the same command to resume from there"
    lines = log.read_text().splitlines()
    assert lines[-1] == f"lgd: stopped by SIGTERM; {resume}"
    assert not [line for line in lines if "SIGTERM received" in line or "Traceback" in line]
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []

    done = run_lgd(*words)
    assert done.returncode == 0, done.stderr
    history = metrics(run)
    assert [line["step"] for line in history if "resumed" in line] == [step]
    assert without_repeats(history) == [line for line in history if "resumed" not in line]  # no step was lost
    assert positions(history) == list(range(4 * STEPS))
