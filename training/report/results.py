"""Scores of the same videos beside each other: accuracies, confusion, calibration, what fusing changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lgd.training.scoring import metrics
from lgd.training.scoring.metrics import Calibration, PerClass
from lgd.training.scoring.scores import UNLABELLED, Scores

PAIRS = 12  # of classes that are taken for each other


@dataclass(frozen=True)
class Predictions:
    """One score file, its rows in the order of its group's keys.

    name: short. series: its number in the whole report, which decides its color and line. predicted: class of each
    video. numbers: as `metrics.summary` gives them, of the labelled videos; None without any."""

    name: str
    series: int
    scores: Scores
    labels: np.ndarray

    @property
    def fused(self) -> bool:
        return self.scores.about.get("stream") == "fused"

    @cached_property
    def predicted(self) -> np.ndarray:
        return self.scores.probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        return self.scores.probabilities.max(axis=1)

    @cached_property
    def right(self) -> np.ndarray:
        return self.predicted == self.labels

    @cached_property
    def _labelled(self) -> tuple[np.ndarray, np.ndarray]:
        rows = self.labels != UNLABELLED
        return self.scores.probabilities[rows], self.labels[rows]

    @cached_property
    def numbers(self) -> dict[str, Any] | None:
        return metrics.summary(*self._labelled) if len(self._labelled[1]) else None

    @cached_property
    def confusion(self) -> np.ndarray:
        return metrics.confusion(*self._labelled, len(self.scores.classes))

    @cached_property
    def per_class(self) -> PerClass:
        return metrics.per_class(*self._labelled, len(self.scores.classes))

    @cached_property
    def calibration(self) -> Calibration:
        return metrics.calibration(*self._labelled)


@dataclass(frozen=True)
class Group:
    """Scores of the same videos with the same labels and classes.

    labels: int64, N, UNLABELLED where there is none. files: in the order given, the fused ones last."""

    split: str
    classes: tuple[str, ...]
    keys: list[str]
    labels: np.ndarray
    files: list[Predictions]

    @property
    def labelled(self) -> int:
        """Videos with a label."""
        return int((self.labels != UNLABELLED).sum())

    @property
    def lead(self) -> Predictions:
        """The fused predictions, or else the most accurate ones."""
        fused = [each for each in self.files if each.fused]
        return fused[0] if fused else max(self.files, key=_top1)

    @property
    def best_input(self) -> Predictions | None:
        """The most accurate of what the lead was fused from, as far as it is here; None without a fusion."""
        if not self.lead.fused:
            return None
        alone = [each for each in self.files if not each.fused]
        names = {entry.get("name") for entry in self.lead.scores.about.get("inputs", [])}
        named = [each for each in alone if each.scores.name in names or each.scores.about.get("run") in names]
        return max(named or alone, key=_top1, default=None)

    @cached_property
    def gain(self) -> np.ndarray | None:
        """Of each class, the fusion's accuracy less that of its best input; NaN for a class without videos."""
        if self.best_input is None or not self.labelled:
            return None
        return self.lead.per_class.accuracy - self.best_input.per_class.accuracy


def _top1(predictions: Predictions) -> float:
    return predictions.numbers["top1"] if predictions.numbers else 0.0


def grouped(scores: Sequence[Scores], names: Sequence[str], series: Sequence[int]) -> list[Group]:
    """The scores by what they are of; within a group joined by key. names, series: of each, see `Predictions`."""
    groups: dict[Any, list[tuple[str, int, Scores]]] = {}
    for name, number, each in zip(names, series, scores, strict=True):
        videos = frozenset(zip(each.keys, each.labels.tolist(), strict=True))
        groups.setdefault((each.split, each.classes, videos), []).append((name, number, each))
    made = []
    for (split, classes, _), members in groups.items():
        first = members[0][2]
        row_of = {key: row for row, key in enumerate(first.keys)}
        files = []
        for name, number, each in members:
            order = np.empty(len(row_of), np.int64)
            order[[row_of[key] for key in each.keys]] = np.arange(len(row_of))
            joined = Scores(each.name, first.keys, first.labels, each.probabilities[order], classes, split, each.about)
            files.append(Predictions(name, number, joined, first.labels))
        files.sort(key=lambda each: each.fused)
        made.append(Group(split, classes, first.keys, first.labels, files))
    return made


def most_confused(predictions: Predictions) -> list[dict[str, Any]]:
    """The pairs of classes that are mistaken most often: true, taken_for (class names), videos, share of the class."""
    mistakes = predictions.confusion.copy()
    videos = mistakes.sum(axis=1)
    np.fill_diagonal(mistakes, 0)
    flat = mistakes.ravel()
    order = np.argsort(-flat, kind="stable")[:PAIRS]
    classes = predictions.scores.classes
    return [
        {
            "true": classes[pair // len(classes)],
            "taken_for": classes[pair % len(classes)],
            "videos": int(flat[pair]),
            "share": float(flat[pair] / videos[pair // len(classes)]),
        }
        for pair in order.tolist()
        if flat[pair]
    ]
