import numpy as np
import pytest

from lgd.pipeline.dataset.dataset import Dataset
from lgd.training.run import Run
from lgd.training.scoring.protocol import TestProtocol
from tests.training.scoring.random_run import make_random_run, score_in_process


@pytest.fixture(scope="package")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with two checkpoints: the best one of step 1, and the last one of step 2. Tests must not change it."""
    return make_random_run(str(tmp_path_factory.mktemp("scoring") / "run"), dataset)


@pytest.fixture(scope="package")
def expected(run: Run, dataset: Dataset) -> np.ndarray:
    """Probabilities of the 12 videos of the training split, computed by one process."""
    videos = score_in_process(run, dataset, "train", protocol=TestProtocol(3))
    probabilities = np.stack([video.probabilities for video in videos])
    assert np.abs(probabilities - probabilities[0]).max() > 0.05  # a wrong order of the videos would be noticed
    return probabilities
