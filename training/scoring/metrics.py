"""Numbers that say how good predictions are. Accuracies are fractions of 1. Of equally probable classes the one with
the lower number comes first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Column, Table

BINS = 15  # of confidence, as in Guo et al.
RESAMPLES = 1000
COVERAGE = 0.95  # of the intervals
MIN_PROBABILITY = float(np.finfo(np.float32).tiny)  # a probability of 0 counts as this much


def ranks(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the label: 0 where the prediction is right.

    probabilities: N x classes. labels: N. Returns int64, N."""
    of_label = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.count_nonzero(probabilities > of_label, axis=1)
    level = (probabilities == of_label) & (np.arange(probabilities.shape[1]) < labels[:, None])
    return before + np.count_nonzero(level, axis=1)


def top_k(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Fraction of videos whose label is among the k most probable classes."""
    return float((ranks(probabilities, labels) < k).mean())


def mean_class_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the fraction of their videos that are predicted right."""
    return float(np.nanmean(per_class(probabilities, labels, probabilities.shape[1]).accuracy))


def confusion(probabilities: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """How many videos of a class are predicted as another: int64, classes x classes, [true, predicted]."""
    pairs = labels.astype(np.int64) * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class PerClass:
    """Of each class: videos, those predicted right, accuracy (NaN where there are no videos), the class that the others
    are most often taken for (-1 where all are right; the lower number of equals) and how many are."""

    videos: np.ndarray
    right: np.ndarray
    accuracy: np.ndarray
    confused_with: np.ndarray
    confused_videos: np.ndarray


def per_class(probabilities: np.ndarray, labels: np.ndarray, classes: int) -> PerClass:
    matrix = confusion(probabilities, labels, classes)
    videos, right = matrix.sum(axis=1), matrix.diagonal().copy()
    accuracy = np.divide(right, videos, out=np.full(classes, np.nan), where=videos > 0)
    np.fill_diagonal(matrix, 0)
    most = matrix.max(axis=1)
    return PerClass(videos, right, accuracy, np.where(most > 0, matrix.argmax(axis=1), -1), most)


@dataclass(frozen=True)
class Calibration:
    """Bins of equal width of the predicted class's probability, open at the lower edge and closed at the upper.

    edges: bins + 1. confidence, accuracy: means over the videos of a bin, NaN where there are none. count: videos."""

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
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(bin_of, minlength=bins)

    def mean(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(bin_of, weights=values, minlength=bins)
        return np.divide(sums, count, out=np.full(bins, np.nan), where=count > 0)

    return Calibration(edges, mean(confidence), mean(right), count)


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over videos of -ln of the label's probability, in nats."""
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(of_label, MIN_PROBABILITY)).mean())


def intervals(rank: np.ndarray, labels: np.ndarray, resamples: int = RESAMPLES) -> dict[str, list[float]]:
    """95 % intervals of top1, top5 and mean_class: percentiles of the bootstrap over videos, by a fixed seed.

    rank: what `ranks` gives. The accuracies depend only on how many videos of each class have their label first, among
    the first 5, and beyond; so those counts are drawn, from the multinomial distribution that drawing N of the N videos
    with replacement gives them, and the cost does not grow with N. A class that is not drawn does not count in that
    mean over classes. Where all videos, or all of each class, are right or wrong, a bootstrap knows no doubt: a point.
    """
    names, outcome = np.unique(labels, return_inverse=True)
    cells = np.bincount(outcome * 3 + (rank >= 1) + (rank >= 5), minlength=3 * len(names))
    draws = np.random.default_rng(0).multinomial(len(labels), cells / len(labels), size=resamples)
    first, among_5, beyond = np.moveaxis(draws.reshape(resamples, len(names), 3), 2, 0)
    videos = first + among_5 + beyond
    of_class = np.divide(first, videos, out=np.full(videos.shape, np.nan), where=videos > 0)
    drawn = {
        "top1": first.sum(axis=1) / len(labels),
        "top5": (first + among_5).sum(axis=1) / len(labels),
        "mean_class": np.nanmean(of_class, axis=1),
    }
    ends = ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2)
    return {name: np.quantile(values, ends).tolist() for name, values in drawn.items()}


def summary(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """top1, top5, mean_class with their `intervals` ([low, high]), ece (expected calibration error), nll (negative log
    likelihood, nats) and the number of videos. With fewer than 5 classes top5 is 1.

    No interval for ece: an error that cannot be negative grows when videos are drawn again, and misses its own value.
    """
    rank = ranks(probabilities, labels)
    return {
        "top1": float((rank < 1).mean()),
        "top5": float((rank < 5).mean()),
        "mean_class": mean_class_accuracy(probabilities, labels),
        "ece": calibration(probabilities, labels).error,
        "nll": negative_log_likelihood(probabilities, labels),
        "videos": len(labels),
        "intervals": intervals(rank, labels),
    }


def accuracy_table(rows: Mapping[str, Any]) -> Table:
    """Metrics by name, as `summary` gives them, for a person. ± is the farther end of the 95 % interval."""
    table = Table(Column("", overflow="fold"), "top-1", "top-5", "mean class", "ECE", "videos")
    for name, numbers in rows.items():
        cells = []
        for column in ("top1", "top5", "mean_class"):
            low, high = numbers["intervals"][column]
            value = numbers[column]
            cells.append(f"{value:.1%} ±{100 * max(high - value, value - low):.1f}")
        table.add_row(name, *cells, f"{numbers['ece']:.3f}", str(numbers["videos"]))
    return table
