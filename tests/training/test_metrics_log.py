"""The metrics of a window, and the errors that stop a run at its end."""

import dataclasses
from pathlib import Path

import pytest
import torch

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.storage.lock import LockLost, locked
from lgd.training.metrics_log import MAX_LOSS, LogWindow, MetricsLog, WindowReport
from lgd.training.recipes import recipe_named
from lgd.training.run import METRICS, Run, begin_run

CPU = torch.device("cpu")


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Run:
    config = dataclasses.replace(recipe_named("nano-rgb"), batch_size=2)
    return begin_run(str(tmp_path / "run"), "nano-rgb", config, dataset=dataset)


def window(*losses: float) -> LogWindow:
    """Return a window that starts at step 7. losses: of the local path in each step; that of the global path is 1."""
    filled = LogWindow(step=7, batch_size=2, device=CPU)
    for step, loss in enumerate(losses, 7):
        paths = {"local": torch.tensor(loss), "global": torch.tensor(1.0)}
        filled.add(
            paths,
            torch.tensor(0.5),
            [f"a-{step}", f"b-{step}"],
            positions=[2 * step, 2 * step + 1],
            grad_norm=torch.tensor(float(step)),
        )
    return filled


@pytest.mark.parametrize("loss", [MAX_LOSS, 2e30, float("inf"), float("nan"), float("-inf")])
def test_a_loss_that_is_too_high_or_not_finite_stops_the_run_with_step_clips_and_checkpoint(loss: float, run: Run):
    with pytest.raises(UserError) as caught:
        window(1.0, loss, loss).reduce(run, 0.0, 0, rank=0)
    assert "after step 8 (clips of this worker: a-8, b-8): " in str(caught.value)
    assert "train in a new --run folder with a lower --optimizer.lr" in str(caught.value)
    assert str(caught.value).endswith("there is no checkpoint yet")
    for name in ("step-00000004.pt", "step-00000006.pt"):
        run.storage.write(f"checkpoints/{name}", b"")
    with pytest.raises(UserError, match=r"--resume-from STEP; steps with a checkpoint: 6, 4$"):
        window(1.0, loss).reduce(run, 0.0, 0, rank=0)


def test_high_but_valid_losses_are_reported(run: Run):
    report = window(MAX_LOSS / 2, 3.0).reduce(run, 0.0, 0, rank=0)
    assert report.losses == [MAX_LOSS / 2 + 1, 4.0]
    assert (report.grad_norms, report.metrics["grad_norm"]) == ([7.0, 8.0], 7.5)
    assert report.metrics["loss_global"] == 1
    assert report.metrics["top1"] == 0.5


def report_of(run: Run, positions: list[list[int]], skipped: int = 0) -> WindowReport:
    """Return the report of a window that starts at step 5, with a batch size of 4. positions: of each step."""
    window = LogWindow(5, 4, CPU)
    for used in positions:
        window.add(
            {"local": torch.tensor(1.0)},
            torch.tensor(0.5),
            ["key"] * len(used),
            positions=used,
            grad_norm=torch.tensor(1.0),
        )
    return window.reduce(run, 0.0, skipped, rank=0)


def test_each_clip_of_the_steps_once_is_correct_in_any_order(run: Run):
    assert report_of(run, [[20, 21, 22, 23], [27, 26, 25, 24]]).steps == 2
    assert report_of(run, [[20, 22, 23], [24, 25, 26, 27]], skipped=1).metrics["skipped"] == 1
    assert report_of(run, [[20, 21, 22, 23]], skipped=1).steps == 1  # left out in a batch that was read ahead


@pytest.mark.parametrize(
    ("positions", "skipped", "counts"),
    [
        ([[20, 21, 22, 22]], 0, "1 not used, 1 used more than once, 0 of different steps"),
        ([[20, 21, 22]], 0, "1 not used, 0 used more than once, 0 of different steps"),
        ([[20, 21]], 1, "2 not used, 0 used more than once, 0 of different steps"),
        ([[20, 21, 22, 24]], 1, "1 not used, 0 used more than once, 1 of different steps"),
        ([[19, 22, 22, 23]], 0, "2 not used, 1 used more than once, 1 of different steps"),  # the sum is right
    ],
)
def test_a_clip_that_is_used_twice_or_not_at_all_stops_the_run(
    run: Run, positions: list[list[int]], skipped: int, counts: str
):
    with pytest.raises(RuntimeError, match=r"clips 20 to 23 were not each used exactly once") as error:
        report_of(run, positions, skipped)
    assert counts in str(error.value)


def test_metrics_are_not_written_after_another_command_has_taken_over_the_run(run: Run):
    with locked(run.storage, "lgd train") as storage:
        log = MetricsLog(dataclasses.replace(run, storage=storage), 0)
        log.write({"step": 1, "loss": 2.0})
    written = run.storage.read(METRICS)
    assert len(written.splitlines()) == 1
    for write in (lambda: log.write({"step": 2, "loss": 2.0}), lambda: log.say("text")):
        with pytest.raises(LockLost):
            write()
    with pytest.raises(LockLost):
        MetricsLog(dataclasses.replace(run, storage=storage), 1)
    log.close()
    assert run.storage.read(METRICS) == written
