"""Accuracy of each class and the confusion matrix of a score file, as rows for JSON and as a Parquet file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.storage.storage import absolute_path, folder_and_name
from lgd.training.scoring.metrics import confusion, per_class, scores_summary
from lgd.training.scoring.scores import METADATA, Scores, labeled_scores

FORMAT = "lgd-classes"
VERSION = 1

ClassName = TypedDict("ClassName", {"class": str})  # in this form, since `class` is a keyword of Python


class ClassRow(ClassName):
    """Accuracy and confusions of one class.

    class: Class name."""

    videos: int
    """Videos of the class."""
    right: int
    """Correctly predicted videos."""
    accuracy: float | None
    """Accuracy; null (None) for a class without videos."""
    predicted: dict[str, int]
    """Videos by predicted class, without zeros: the row of the confusion matrix."""


def class_rows(scores: Scores) -> list[ClassRow]:
    """Return one row per class, in the order of the labels; videos without a label are left out."""
    scores = labeled_scores(scores)
    classes = scores.classes
    table = per_class(scores.probabilities, scores.labels, len(classes))
    matrix = confusion(scores.probabilities, scores.labels, len(classes))
    return [
        {
            "class": name,
            "videos": int(table.videos[i]),
            "right": int(table.right[i]),
            "accuracy": float(table.accuracy[i]) if table.videos[i] else None,
            "predicted": {classes[j]: int(matrix[i, j]) for j in matrix[i].nonzero()[0]},
        }
        for i, name in enumerate(classes)
    ]


def write_class_table(path: str, scores: Scores) -> None:
    """Write a Parquet file with one row per class, in the order of the labels.

    Columns: class, videos, right (correctly predicted videos), accuracy (null for a class without videos),
    confused_with (the class that the wrong predictions name most often, null without wrong predictions),
    confused_videos (how often), and confusion, the row of the confusion matrix: videos by predicted class. The schema's
    metadata has the classes, the split and the metrics. Videos without a label are left out. Raises UserError if no
    video has a label."""
    metrics, scores = scores_summary(scores), labeled_scores(scores)
    metadata = {"format": FORMAT, "version": VERSION, "classes": scores.classes, "split": scores.split}
    count = len(scores.classes)
    table = per_class(scores.probabilities, scores.labels, count)
    matrix = confusion(scores.probabilities, scores.labels, count)
    confused_with = [scores.classes[other] if other >= 0 else None for other in table.confused_with]
    columns = pa.table(
        {
            "class": pa.array(scores.classes, pa.string()),
            "videos": table.videos,
            "right": table.right,
            "accuracy": pa.array(table.accuracy, pa.float64(), from_pandas=True),
            "confused_with": pa.array(confused_with, pa.string()),
            "confused_videos": table.confused_videos,
            "confusion": pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), count),
        }
    )
    columns = columns.replace_schema_metadata({METADATA: json.dumps({**metadata, "metrics": metrics})})
    folder, name = folder_and_name(path)
    folder.make_folder()
    with folder.writer(name) as file:
        pq.write_table(columns, file)


def check_output_files(outputs: Mapping[str, str | None], inputs: Sequence[str]) -> None:
    """Raise UsageError for an output file, by its option, whose name does not end in .parquet, that is one of the
    inputs, or that is the file of another option."""
    taken = {absolute_path(path): "one of the score files" for path in inputs}
    for option, path in outputs.items():
        if path is None:
            continue
        if not path.partition("?")[0].endswith(".parquet"):
            raise UsageError(
                f"{option} takes the name of a Parquet file, such as {Path(path).stem or 'scores'}.parquet, not {path}"
            )
        if (existing := taken.get(absolute_path(path))) is not None:
            raise UsageError(f"{option} {path} would overwrite {existing}: choose a different name")
        taken[absolute_path(path)] = f"the file of {option}"
