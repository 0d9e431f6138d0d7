"""Predictions for the same videos, compared: accuracy, confusion, calibration, and what fusion changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.training.scoring import metrics
from lgd.training.scoring.metrics import Calibration, Metrics, PerClass
from lgd.training.scoring.scores import Scores

CONFUSED_PAIRS = 12  # maximum number of confused pairs of classes that are listed


@dataclass(frozen=True)
class Predictions:
    """One score file, its rows in the order of its group's keys.

    name: a short name. series: number in the complete report, which decides color and line style."""

    name: str
    series: int
    scores: Scores
    labels: np.ndarray

    @property
    def fused(self) -> bool:
        return self.scores.metadata.get("stream") == "fused"

    @cached_property
    def predicted(self) -> np.ndarray:
        """Class number predicted for each video."""
        classes: np.ndarray = self.scores.probabilities.argmax(axis=1)
        return classes

    @cached_property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted class, for each video."""
        probabilities: np.ndarray = self.scores.probabilities.max(axis=1)
        return probabilities

    @cached_property
    def correct(self) -> np.ndarray:
        correct: np.ndarray = self.predicted == self.labels
        return correct

    @cached_property
    def _labeled(self) -> tuple[np.ndarray, np.ndarray]:
        rows = self.labels != UNLABELLED
        return self.scores.probabilities[rows], self.labels[rows]

    @cached_property
    def numbers(self) -> Metrics | None:
        """`metrics.summary` of the videos that have a label; None if no video has one."""
        return metrics.summary(*self._labeled) if len(self._labeled[1]) else None

    @cached_property
    def confusion(self) -> np.ndarray:
        return metrics.confusion(*self._labeled, len(self.scores.classes))

    @cached_property
    def per_class(self) -> PerClass:
        return metrics.per_class(*self._labeled, len(self.scores.classes))

    @cached_property
    def calibration(self) -> Calibration:
        return metrics.calibration(*self._labeled)


@dataclass(frozen=True)
class Group:
    """Score files of the same videos with the same labels and classes.

    labels: int64, N; UNLABELLED for videos without a label. files: in the order given, fused scores last."""

    split: str
    classes: tuple[str, ...]
    keys: list[str]
    labels: np.ndarray
    files: list[Predictions]

    @property
    def labeled(self) -> int:
        """Number of videos that have a label."""
        return int((self.labels != UNLABELLED).sum())

    @property
    def main(self) -> Predictions:
        """The fused predictions if there are any, else the most accurate ones."""
        fused = [predictions for predictions in self.files if predictions.fused]
        return fused[0] if fused else max(self.files, key=_top1)

    @property
    def best_input(self) -> Predictions | None:
        """The most accurate input of the fusion among the files of the group; None without a fusion."""
        if not self.main.fused:
            return None
        single = [predictions for predictions in self.files if not predictions.fused]
        names = {entry.get("name") for entry in self.main.scores.metadata.get("inputs", [])}
        inputs = [each for each in single if each.scores.name in names or each.scores.metadata.get("run") in names]
        return max(inputs or single, key=_top1, default=None)

    @cached_property
    def gain(self) -> np.ndarray | None:
        """For each class the accuracy of the fusion minus that of its best input; NaN for a class without videos."""
        if self.best_input is None or not self.labeled:
            return None
        gain: np.ndarray = self.main.per_class.accuracy - self.best_input.per_class.accuracy
        return gain


def _top1(predictions: Predictions) -> float:
    return predictions.numbers["top1"] if predictions.numbers else 0.0


def group_scores(scores: Sequence[Scores], names: Sequence[str], series: Sequence[int]) -> list[Group]:
    """Group scores by videos, labels, classes and split; join the files of a group by key.

    names, series: for each of the scores, see `Predictions`."""
    members_of: dict[Any, list[tuple[str, int, Scores]]] = {}
    for name, number, each in zip(names, series, scores, strict=True):
        videos = frozenset(zip(each.keys, each.labels.tolist(), strict=True))
        members_of.setdefault((each.split, each.classes, videos), []).append((name, number, each))
    groups = []
    for (split, classes, _), members in members_of.items():
        first = members[0][2]
        row_of = {key: row for row, key in enumerate(first.keys)}
        files = []
        for name, number, each in members:
            order = np.empty(len(row_of), np.int64)
            order[[row_of[key] for key in each.keys]] = np.arange(len(row_of))
            joined = Scores(
                each.name, first.keys, first.labels, each.probabilities[order], classes, split, each.metadata
            )
            files.append(Predictions(name, number, joined, first.labels))
        files.sort(key=lambda predictions: predictions.fused)
        groups.append(Group(split, classes, first.keys, first.labels, files))
    return groups


@dataclass(frozen=True)
class ConfusedPair:
    """A pair of classes that were confused.

    true, predicted: class names. videos: how many. share: fraction of the videos of the true class."""

    true: str
    predicted: str
    videos: int
    share: float


def most_confused(predictions: Predictions) -> list[ConfusedPair]:
    """Return the pairs of classes that are confused most often, at most CONFUSED_PAIRS, most frequent first."""
    mistakes = predictions.confusion.copy()
    videos = mistakes.sum(axis=1)
    np.fill_diagonal(mistakes, 0)
    flat = mistakes.ravel()
    order = np.argsort(-flat, kind="stable")[:CONFUSED_PAIRS]
    classes = predictions.scores.classes
    return [
        ConfusedPair(
            classes[pair // len(classes)],
            classes[pair % len(classes)],
            int(flat[pair]),
            float(flat[pair] / videos[pair // len(classes)]),
        )
        for pair in order.tolist()
        if flat[pair]
    ]
