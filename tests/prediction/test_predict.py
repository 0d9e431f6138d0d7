from pathlib import Path

import numpy as np
import pytest
import torch

from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.index import Index
from lgd.prediction.predict import ClipScores
from lgd.training.fusion.fuse import fuse, make_rule
from lgd.training.fusion.join import join
from lgd.training.run import Run, open_run
from lgd.training.scoring.inference import load_checkpoint, load_network, score_rows
from lgd.training.scoring.protocol import TestProtocol
from lgd.training.scoring.scores import Scores
from tests.prediction.random_runs import CLIPS, predict

CPU = torch.device("cpu")


def evaluate_in_process(run: Run, dataset: Dataset) -> Scores:
    """Return the scores of the split val, as `lgd evaluate` computes them."""
    network = load_network(run, load_checkpoint(run)["model"], CPU)
    scored = list(score_rows(network, run.config, dataset, split="val", protocol=TestProtocol(CLIPS), device=CPU))
    index = Index(dataset, run.config.stream)
    rows = [video.row for video in scored]
    probabilities = np.stack([video.probabilities for video in scored])
    return Scores(run.storage.root, index.keys(rows), index.labels[rows].astype(int), probabilities, run.classes, "val")


def test_predictions_equal_those_of_evaluate_and_fuse_for_videos_of_a_dataset(
    videos: Path, dataset: Dataset, runs: dict[str, str], temporary_folder: Path
):
    scores = [evaluate_in_process(open_run(run), dataset) for run in runs.values()]
    fused = fuse(join(scores), make_rule(2, (1.0, 3.0)))
    path_of = dict(zip(*dataset.videos(["key", "path"]).to_pydict().values(), strict=True))
    rows = predict([videos / path_of[key] for key in fused.keys], **runs, weights=(1.0, 3.0), top=99).document()[
        "videos"
    ]
    assert len(rows) == len(fused.keys) == 6
    for row, *expected in zip(rows, fused.probabilities, *(each.probabilities for each in scores), strict=True):
        assert (row["frames"], row["seconds"]) == (40, 1.6)
        for classes, probabilities in zip((row["predictions"], *row["streams"].values()), expected, strict=True):
            ranked = [each["probability"] for each in classes]
            assert ranked == sorted(ranked, reverse=True)
            by_class = {each["class"]: each["probability"] for each in classes}
            assert [by_class[name] for name in dataset.classes] == pytest.approx(probabilities.tolist(), abs=1e-5)
    assert np.ptp(fused.probabilities, axis=0).max() > 1e-3  # or else the numbers of any video would pass for all
    assert list(temporary_folder.iterdir()) == []


def test_a_moment_has_the_mean_of_the_clips_that_contain_it_or_of_the_nearest_ones():
    clips = ClipScores(
        np.zeros(2), np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.array([[0, 2], [2, 3], [6, 7]]), frames=9
    )
    over_time = clips.over_time()
    assert over_time[:, 0].tolist() == [1, 1, 0.5, 0, 0, 0.5, 0.5, 0.5, 0.5]
    assert over_time.sum(1).tolist() == [1] * 9
