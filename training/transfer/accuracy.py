"""Accuracies on several splits: of each, their mean and their standard deviation."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TypedDict

from rich.table import Column, Table

from lgd.training.scoring.metrics import Metrics

TITLES = {"rgb": "RGB", "flow": "flow", "fused": "two-stream", "fitted": "two-stream, fitted"}


class Accuracy(TypedDict):
    """Accuracies, fractions of 1; of several splits, their mean or their standard deviation."""

    top1: float
    """Fraction of the videos whose label is the most probable class."""
    top5: float
    """Fraction of the videos whose label is among the 5 most probable classes."""
    mean_class: float
    """Mean of the accuracies of the classes."""


class AllAccuracy(TypedDict):
    """Accuracies of one stream, fractions of 1; of several splits, their mean or their standard deviation."""

    top1: float
    """Fraction of the videos whose label is the most probable class."""
    top5: float
    """Fraction of the videos whose label is among the 5 most probable classes."""
    mean_class: float
    """Mean of the accuracies of the classes."""
    top1_all: float
    """Top-1 with the videos that were not scored counted as wrong."""


class SplitAccuracy(TypedDict):
    """Accuracies of one stream on one split, fractions of 1."""

    top1: float
    """Fraction of the videos whose label is the most probable class."""
    top5: float
    """Fraction of the videos whose label is among the 5 most probable classes."""
    mean_class: float
    """Mean of the accuracies of the classes."""
    top1_all: float
    """Top-1 with the videos that were not scored counted as wrong."""
    videos: int
    """Scored videos."""
    not_scored: int
    """Videos of the split that are not in the shards, such as missing or rejected ones."""


def split_accuracy(metrics: Metrics, not_scored: int) -> SplitAccuracy:
    """Return the accuracies of a split. metrics: of its scored videos."""
    videos = metrics["videos"]
    return {
        "top1": metrics["top1"],
        "top5": metrics["top5"],
        "mean_class": metrics["mean_class"],
        "top1_all": metrics["top1"] * videos / (videos + not_scored),
        "videos": videos,
        "not_scored": not_scored,
    }


def mean(values: Sequence[float]) -> float:
    """Return the mean, correctly rounded."""
    return math.fsum(values) / len(values)


def std(values: Sequence[float]) -> float:
    """Return the standard deviation with the divisor n - 1."""
    return statistics.stdev(values)


def mean_accuracy(accuracies: Sequence[AllAccuracy]) -> AllAccuracy:
    """Return the mean over splits."""
    return {
        "top1": mean([each["top1"] for each in accuracies]),
        "top5": mean([each["top5"] for each in accuracies]),
        "mean_class": mean([each["mean_class"] for each in accuracies]),
        "top1_all": mean([each["top1_all"] for each in accuracies]),
    }


def std_accuracy(accuracies: Sequence[AllAccuracy]) -> AllAccuracy:
    """Return the standard deviation over two splits or more."""
    return {
        "top1": std([each["top1"] for each in accuracies]),
        "top5": std([each["top5"] for each in accuracies]),
        "mean_class": std([each["mean_class"] for each in accuracies]),
        "top1_all": std([each["top1_all"] for each in accuracies]),
    }


def top1_table(rows: Mapping[str, Mapping[str, float]], first: str) -> Table:
    """Return a table of top-1, in percent, with a row for each name and a column for each stream.

    rows: by name, the top-1 of the streams. first: title of the names' column."""
    streams = [stream for stream in TITLES if any(stream in row for row in rows.values())]
    table = Table(first, *(Column(TITLES[stream], justify="right") for stream in streams), caption="top-1, percent")
    for name, row in rows.items():
        table.add_row(name, *(f"{100 * row[stream]:.1f}" if stream in row else "" for stream in streams))
    return table


def top1_rows(
    splits: Mapping[str, Mapping[str, AllAccuracy]],
    means: Mapping[str, AllAccuracy],
    stds: Mapping[str, AllAccuracy] | None,
) -> dict[str, dict[str, float]]:
    """Return the rows of `top1_table`: a row per split, then their mean and standard deviation."""
    rows = {name: {stream: each["top1"] for stream, each in row.items()} for name, row in splits.items()}
    if len(splits) > 1:
        rows["mean"] = {stream: each["top1"] for stream, each in means.items()}
        rows["standard deviation"] = {stream: each["top1"] for stream, each in (stds or {}).items()}
    return rows
