"""Metrics of class probabilities. Accuracies are fractions of 1. Of classes with equal probabilities the one with the
lower number ranks first."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypedDict

import numpy as np
from rich.table import Column, Table

from lgd.pipeline.console.errors import UserError
from lgd.training.scoring.scores import Scores, labeled_scores

BINS = 15  # of confidence, as in Guo et al.
RESAMPLES = 1000  # of the bootstrap
COVERAGE = 0.95  # of the intervals
MIN_PROBABILITY = float(np.finfo(np.float32).tiny)  # the value of a probability of 0 where its logarithm is taken
ACCURACIES = ("top1", "top5", "mean_class")
INTERVALS_NOTE = "in brackets: 95 % intervals, Wilson score for top-1 and top-5, bootstrap for mean class"


class Metrics(TypedDict):
    """Metrics of labeled videos, as `summary` computes them."""

    top1: float
    """Fraction of the videos whose label is the most probable class."""
    top5: float
    """Fraction of the videos whose label is among the 5 most probable classes; 1 with 5 classes or fewer."""
    mean_class: float
    """Mean of the accuracies of the classes that have videos."""
    ece: float
    """Expected calibration error."""
    nll: float
    """Mean negative log likelihood, nats."""
    videos: int
    """Videos."""
    intervals: dict[str, list[float]]
    """95 % interval, [low, high], of top1 and top5 (Wilson score) and of mean_class (bootstrap)."""


def ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the number of classes that rank before the label: 0 for a correct prediction.

    probabilities: N x classes. labels: N. Returns int64, N."""
    label_probability = probabilities[np.arange(len(labels)), labels][:, None]
    tied = (probabilities == label_probability) & (np.arange(probabilities.shape[1]) < labels[:, None])
    rank: np.ndarray = np.count_nonzero(probabilities > label_probability, axis=1) + np.count_nonzero(tied, axis=1)
    return rank


def top_k(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the fraction of videos whose label is among the k most probable classes."""
    return float((ranks(probabilities, labels) < k).mean())


def mean_class_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of the accuracies of the classes that have videos."""
    return float(np.nanmean(per_class(probabilities, labels, probabilities.shape[1]).accuracy))


def confusion(probabilities: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix, numbers of videos: int64, classes x classes, [true class, predicted class]."""
    pairs = labels.astype(np.int64) * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class PerClass:
    """For each class: videos, correctly predicted videos, accuracy (NaN for a class without videos), the class that
    its wrong predictions name most often (-1 without wrong predictions; the lower number of equals) and how often."""

    videos: np.ndarray
    right: np.ndarray
    accuracy: np.ndarray
    confused_with: np.ndarray
    confused_videos: np.ndarray


def per_class(probabilities: np.ndarray, labels: np.ndarray, classes: int) -> PerClass:
    """Return the accuracy and the most frequent confusion of each class. probabilities: N x classes. labels: N."""
    matrix = confusion(probabilities, labels, classes)
    videos, right = matrix.sum(axis=1), matrix.diagonal().copy()
    accuracy = np.divide(right, videos, out=np.full(classes, np.nan), where=videos > 0)
    np.fill_diagonal(matrix, 0)
    maximum = matrix.max(axis=1)
    return PerClass(videos, right, accuracy, np.where(maximum > 0, matrix.argmax(axis=1), -1), maximum)


@dataclass(frozen=True)
class Calibration:
    """Bins of equal width of the predicted class's probability, open at the lower edge and closed at the upper.

    edges: bins + 1. confidence, accuracy: means over the videos of each bin, NaN for a bin without videos. count:
    videos of each bin."""

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over videos of |accuracy - confidence| of their bin (Guo et al., "On
        Calibration of Modern Neural Networks", ICML 2017, equation 3)."""
        return float(np.nansum(np.abs(self.accuracy - self.confidence) * self.count) / self.count.sum())


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Return the calibration of predictions. probabilities: N x classes. labels: N."""
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(bin_of, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(bin_of, weights=values, minlength=bins)
        means: np.ndarray = np.divide(sums, count, out=np.full(bins, np.nan), where=count > 0)
        return means

    return Calibration(edges, mean(confidence), mean(right), count)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over videos of -ln of the label's probability, in nats."""
    label_probability = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(label_probability, MIN_PROBABILITY)).mean())


def wilson_interval(right: int, videos: int, coverage: float = COVERAGE) -> list[float]:
    """Return the Wilson score interval, [low, high], of the accuracy `right / videos` (Wilson, Journal of the American
    Statistical Association 22, 1927). Its width is not 0 for an accuracy of 0 or 1."""
    z = NormalDist().inv_cdf((1 + coverage) / 2)
    center = (right + z**2 / 2) / (videos + z**2)
    half_width = z / (videos + z**2) * math.sqrt(right * (videos - right) / videos + z**2 / 4)
    low = 0.0 if right == 0 else center - half_width  # without the rounding error
    high = 1.0 if right == videos else center + half_width
    return [low, high]


def bootstrap_interval(rank: np.ndarray, labels: np.ndarray, resamples: int = RESAMPLES) -> list[float]:
    """Return the 95 % interval, [low, high], of the mean class accuracy: percentiles of the bootstrap over videos, with
    a fixed seed.

    rank: result of `ranks`. The accuracy depends only on the number of videos of each class whose label has rank 0, 1
    to 4, and 5 or more (version 0.1 needed all three; they stay so that the random numbers do). Drawing N of the N
    videos with replacement gives these numbers a multinomial distribution: they are drawn directly, at a cost that does
    not grow with N. A class that is not drawn does not count in that mean over classes. If each class has only correct
    or only wrong predictions, the interval has the width 0."""
    names, label = np.unique(labels, return_inverse=True)
    counts = np.bincount(label * 3 + (rank >= 1) + (rank >= 5), minlength=3 * len(names))
    draws = np.random.default_rng(0).multinomial(len(labels), counts / len(labels), size=resamples)
    by_class = draws.reshape(resamples, len(names), 3)
    right, videos = by_class[:, :, 0], by_class.sum(axis=2)
    accuracy = np.divide(right, videos, out=np.full(videos.shape, np.nan), where=videos > 0)
    low, high = np.quantile(np.nanmean(accuracy, axis=1), ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2)).tolist()
    return [low, high]


def summary(probabilities: np.ndarray, labels: np.ndarray) -> Metrics:
    """Return the metrics of labeled videos. probabilities: N x classes. labels: N.

    The intervals of top1 and top5 are Wilson score intervals, that of mean_class a bootstrap. There is none for ece: an
    error that cannot be negative grows when videos are resampled, and its interval would not contain its value.
    """
    rank = ranks(probabilities, labels)
    videos = len(labels)
    return {
        "top1": float((rank < 1).mean()),
        "top5": float((rank < 5).mean()),
        "mean_class": mean_class_accuracy(probabilities, labels),
        "ece": calibration(probabilities, labels).error,
        "nll": negative_log_likelihood(probabilities, labels),
        "videos": videos,
        "intervals": {
            "top1": wilson_interval(int((rank < 1).sum()), videos),
            "top5": wilson_interval(int((rank < 5).sum()), videos),
            "mean_class": bootstrap_interval(rank, labels),
        },
    }


def scores_summary(scores: Scores) -> Metrics:
    """Return the metrics of the labeled videos of a score file. Raises UserError if no video has a label."""
    labeled = labeled_scores(scores)
    if not labeled.keys:
        raise UserError(f"no video of {scores.name} has a label: accuracy needs labeled videos")
    return summary(labeled.probabilities, labeled.labels)


def accuracy_table(rows: Mapping[str, Metrics]) -> Table:
    """Return a table of metrics by name, with the 95 % intervals of the accuracies, in percent."""
    headers = ("top-1", "top-5", "mean class", "ECE", "videos")
    table = Table(Column("", overflow="fold"), *headers, caption=INTERVALS_NOTE, caption_justify="left")
    for name, metrics in rows.items():
        accuracies = (metrics["top1"], metrics["top5"], metrics["mean_class"])
        cells = [
            _accuracy_cell(accuracy, metrics["intervals"][key])
            for key, accuracy in zip(ACCURACIES, accuracies, strict=True)
        ]
        table.add_row(name, *cells, f"{metrics['ece']:.3f}", str(metrics["videos"]))
    return table


def _accuracy_cell(accuracy: float, interval: list[float]) -> str:
    """Return an accuracy and its interval on two lines, in percent: 100.0% above (82.4–100.0)."""
    low, high = interval
    return f"{accuracy:.1%}\n({100 * low:.1f}–{100 * high:.1f})"
