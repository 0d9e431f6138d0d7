"""`lgd average`: mean and standard deviation of the accuracies of score files of different splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from rich.table import Table

from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.training.fusion.join import check_classes
from lgd.training.scoring.metrics import scores_summary
from lgd.training.scoring.scores import Scores, read_scores
from lgd.training.transfer.accuracy import Accuracy, mean, std


class FileAccuracy(TypedDict):
    """Accuracies of one score file, fractions of 1."""

    top1: float
    """Fraction of the videos whose label is the most probable class."""
    top5: float
    """Fraction of the videos whose label is among the 5 most probable classes."""
    mean_class: float
    """Mean of the accuracies of the classes."""
    split: str
    """Split of its videos."""
    videos: int
    """Scored videos that have a label."""


@dataclass(frozen=True)
class AverageResult(CommandResult):
    """Result of `lgd average`."""

    splits: dict[str, FileAccuracy]
    """Accuracies by score file."""
    mean: Accuracy
    """Mean of the accuracies of the files: every split counts the same."""
    std: Accuracy
    """Standard deviation of the accuracies of the files, with the divisor n - 1."""

    def lines(self) -> list[Line]:
        table = Table("scores", "split", "top-1", "top-5", "mean class", "videos")
        for name, each in self.splits.items():
            table.add_row(name, each["split"], *_cells(each), str(each["videos"]))
        table.add_section()
        table.add_row("mean", "", *_cells(self.mean), "")
        table.add_row("standard deviation", "", *_cells(self.std), "")
        return [table]


def _cells(accuracy: Accuracy | FileAccuracy) -> list[str]:
    return [f"{value:.1%}" for value in (accuracy["top1"], accuracy["top5"], accuracy["mean_class"])]


def average(files: Sequence[str]) -> AverageResult:
    """Return the mean of the accuracies of score files: of the same classes, stream and recipe, of different splits.

    Raises UsageError for less than two files, and UserError, which names what differs, for files that cannot be
    averaged, and for two files with the same videos."""
    if len(files) < 2:
        raise UsageError("the mean over splits needs two or more score files, one of each split")
    tables = [read_scores(file) for file in files]
    for other in tables[1:]:
        _check_same(tables[0], other)
    for number, table in enumerate(tables):
        for other in tables[number + 1 :]:
            _check_different_splits(table, other)
    accuracies: dict[str, FileAccuracy] = {}
    for table in tables:
        metrics = scores_summary(table)
        accuracies[table.name] = {
            "top1": metrics["top1"],
            "top5": metrics["top5"],
            "mean_class": metrics["mean_class"],
            "split": table.split,
            "videos": metrics["videos"],
        }
    values = list(accuracies.values())
    columns = [
        [each["top1"] for each in values],
        [each["top5"] for each in values],
        [each["mean_class"] for each in values],
    ]
    means, stds = ([function(column) for column in columns] for function in (mean, std))
    return AverageResult(
        accuracies,
        {"top1": means[0], "top5": means[1], "mean_class": means[2]},
        {"top1": stds[0], "top5": stds[1], "mean_class": stds[2]},
    )


def _check_same(first: Scores, other: Scores) -> None:
    """Raise UserError for different classes, streams and recipes."""
    check_classes(first, other, purpose="averaged")
    for name, field in (("streams", "stream"), ("recipes", "recipe"), ("models", "model"), ("tests", "protocol")):
        ours, theirs = _described(first.metadata, field), _described(other.metadata, field)
        if ours != theirs:
            raise _different(first, other, f"{name} ({ours} and {theirs})")
    ours, theirs = _weights(first.metadata), _weights(other.metadata)
    if ours != theirs:
        raise _different(first, other, f"weights ({ours} and {theirs})")


def _different(first: Scores, other: Scores, what: str) -> UserError:
    return UserError(
        f"{first.name} and {other.name} have different {what}: average the scores of one kind of model, tested in one "
        "way, on several splits"
    )


def _check_different_splits(first: Scores, other: Scores) -> None:
    if sorted(first.keys) == sorted(other.keys):
        splits = first.split if first.split == other.split else f"{first.split} and {other.split}"
        raise UserError(
            f"{first.name} and {other.name} have the same videos (split {splits}): give the scores of different splits"
        )


def _described(about: dict[str, Any], field: str) -> str:
    """Return a field of the metadata; for fused scores those of the inputs."""
    inputs = about.get("inputs")
    if inputs:
        return " + ".join(_described(each, field) for each in inputs)
    return str(about.get(field, "unknown"))


def _weights(about: dict[str, Any]) -> str:
    """Return the fixed weights of a fusion; fitted ones differ from split to split."""
    if about.get("fitted_on") is not None:
        return "fitted"
    return " ".join(f"{weight:.3g}" for weight in about.get("weights") or []) or "none"
