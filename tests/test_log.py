"""What stops a run: losses that are not sound, named by step, clips and the checkpoint to go on from."""

import dataclasses
from pathlib import Path

import pytest
import torch

from pipeline.dataset import Dataset
from pipeline.errors import UserError
from training.log import EXPLODED, Window
from training.recipes import recipe_named
from training.run import Run, begin_run

CPU = torch.device("cpu")


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Run:
    config = dataclasses.replace(recipe_named("nano-rgb"), batch=2)
    return begin_run(str(tmp_path / "run"), "nano-rgb", config, dataset)


def window(*losses: float) -> Window:
    """From step 7 on, a step for each loss of the local path; the global path's is 1."""
    filled = Window(step=7, batch=2, device=CPU)
    for step, loss in enumerate(losses, 7):
        paths = {"local": torch.tensor(loss), "global": torch.tensor(1.0)}
        filled.add(paths, torch.tensor(0.5), [f"a-{step}", f"b-{step}"], [2 * step, 2 * step + 1])
    return filled


@pytest.mark.parametrize("loss", [EXPLODED, 2e30, float("inf"), float("nan"), float("-inf")])
def test_an_exploded_or_infinite_loss_stops_the_run_with_step_clips_and_checkpoint(loss: float, run: Run):
    with pytest.raises(UserError) as caught:
        window(1.0, loss, loss).reduce(run, 0.0, 0, rank=0)
    assert "after step 8 (this worker's clips: a-8, b-8): " in str(caught.value)
    assert "last good checkpoint: none yet" in str(caught.value)
    for name in ("step-00000004.pt", "step-00000006.pt"):
        run.storage.write(f"checkpoints/{name}", b"")
    with pytest.raises(UserError, match=r"last good checkpoint: checkpoints/step-00000006\.pt"):
        window(1.0, loss).reduce(run, 0.0, 0, rank=0)


def test_large_but_sound_losses_are_reported(run: Run):
    report = window(EXPLODED / 2, 3.0).reduce(run, 0.0, 0, rank=0)
    assert report.losses == [EXPLODED / 2 + 1, 4.0]
    assert report.numbers["loss_global"] == 1
    assert report.numbers["top1"] == 0.5
