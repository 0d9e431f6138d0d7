"""Predictions and score files for the tests of the report."""

import dataclasses
from pathlib import Path

import numpy as np

from lgd.training.scoring.scores import Scores, write_scores


def random_scores(
    name: str, keys: list[str], labels: np.ndarray, classes: tuple[str, ...], skill: float, seed: int
) -> Scores:
    """Return random predictions; a larger skill makes more of them correct."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(len(keys), len(classes)))
    logits[np.arange(len(keys)), np.maximum(labels, 0)] += skill
    probabilities = np.exp(logits)
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    return Scores(name, keys, labels, probabilities, classes, "val", {"stream": "rgb"})


def write_plain_scores(
    folder: Path, classes: tuple[str, ...] = ("bend", "jack", "wave"), videos: int = 12, **changes
) -> str:
    """Write a score file that names no dataset; return its path."""
    path = str(folder / "plain.parquet")
    labels = np.arange(videos) % len(classes)
    scores = random_scores(path, [f"v{i}" for i in range(videos)], labels, classes, 1.0, 0)
    write_scores(path, dataclasses.replace(scores, **changes))
    return path
