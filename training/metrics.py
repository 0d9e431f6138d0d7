"""Numbers that say how good predictions are. Accuracies are fractions of 1."""

from typing import Any

import numpy as np
from rich.table import Table


def top_k(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Fraction of videos whose label is among the k most probable classes.

    probabilities: N x classes. labels: N. Of equally probable classes the one with the lower number comes first."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def mean_class_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the fraction of their videos that are predicted right."""
    right = probabilities.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def summary(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float | int]:
    """top1, top5, mean_class and the number of videos. With fewer than 5 classes top5 is 1."""
    return {
        "top1": top_k(probabilities, labels, 1),
        "top5": top_k(probabilities, labels, 5),
        "mean_class": mean_class_accuracy(probabilities, labels),
        "videos": len(labels),
    }


def accuracy_table(rows: dict[str, Any]) -> Table:
    """Metrics by name, as `summary` gives them, for a person."""
    table = Table("", "top-1", "top-5", "mean class", "videos")
    for name, numbers in rows.items():
        table.add_row(name, *(f"{numbers[c]:.1%}" for c in ("top1", "top5", "mean_class")), str(numbers["videos"]))
    return table
