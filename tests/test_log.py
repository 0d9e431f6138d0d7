"""What the workers agree on at the end of a window."""

from pathlib import Path

import pytest
import torch

from pipeline.dataset import Dataset
from training.log import Report, Window
from training.recipes import recipe_named
from training.run import Run, begin_run

CPU = torch.device("cpu")


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Run:
    return begin_run(str(tmp_path / "run"), "nano-rgb", recipe_named("nano-rgb"), dataset)


def report(run: Run, positions: list[list[int]], skipped: int = 0) -> Report:
    """Of a window that begins with step 5 of batches of 4."""
    window = Window(5, 4, CPU)
    for of_step in positions:
        window.add({"local": torch.tensor(1.0)}, torch.tensor(0.5), ["key"] * len(of_step), of_step)
    return window.reduce(run, 0.0, skipped, rank=0)


def test_the_clips_of_the_steps_each_once_are_right_in_any_order(run: Run):
    assert report(run, [[20, 21, 22, 23], [27, 26, 25, 24]]).steps == 2
    assert report(run, [[20, 22, 23], [24, 25, 26, 27]], skipped=1).numbers["skipped"] == 1
    assert report(run, [[20, 21, 22, 23]], skipped=1).steps == 1  # left out in a batch that is read ahead


@pytest.mark.parametrize(
    ("positions", "skipped", "counts"),
    [
        ([[20, 21, 22, 22]], 0, "1 not taken, 1 more than once, 0 of other steps"),
        ([[20, 21, 22]], 0, "1 not taken, 0 more than once, 0 of other steps"),
        ([[20, 21]], 1, "2 not taken, 0 more than once, 0 of other steps"),
        ([[20, 21, 22, 24]], 1, "1 not taken, 0 more than once, 1 of other steps"),
        ([[19, 22, 22, 23]], 0, "2 not taken, 1 more than once, 1 of other steps"),  # the sum is right
    ],
)
def test_a_clip_that_is_taken_twice_or_not_at_all_stops_the_run(
    run: Run, positions: list[list[int]], skipped: int, counts: str
):
    with pytest.raises(RuntimeError, match=r"not each of the clips 20 to 23 once") as error:
        report(run, positions, skipped)
    assert counts in str(error.value)
