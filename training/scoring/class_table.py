"""Per-class accuracies and the confusion matrix of a table of scores, as rows and as a Parquet file."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.storage.storage import folder_and_name
from lgd.training.fusion.fuse import metrics
from lgd.training.scoring.metrics import confusion, per_class
from lgd.training.scoring.scores import METADATA, Scores

FORMAT = "lgd-classes"
VERSION = 1


def class_rows(scores: Scores) -> list[dict[str, Any]]:
    """A row a class, for JSON: class, videos, right, accuracy (None where there are no videos), and predicted, how many
    of them as which class (only those that occur: the confusion matrix without its zeros)."""
    count = len(scores.classes)
    table = per_class(scores.probabilities, scores.labels, count)
    matrix = confusion(scores.probabilities, scores.labels, count)
    return [
        {
            "class": name,
            "videos": int(table.videos[i]),
            "right": int(table.right[i]),
            "accuracy": float(table.accuracy[i]) if table.videos[i] else None,
            "predicted": {scores.classes[j]: int(matrix[i, j]) for j in matrix[i].nonzero()[0]},
        }
        for i, name in enumerate(scores.classes)
    ]


def write_class_table(path: str, scores: Scores) -> None:
    """Writes a Parquet file, a row a class in the order of the labels: class, videos, right, accuracy (null where there
    are no videos), confused_with (the class that the others are most often taken for, null where all are right),
    confused_videos, and confusion, the row of the matrix: how many are predicted as each class.

    The schema's metadata has the classes, the split and the metrics. Raises UserError for unlabelled videos."""
    metadata = {"format": FORMAT, "version": VERSION, "classes": scores.classes, "split": scores.split}
    numbers = metrics(scores)
    count = len(scores.classes)
    table = per_class(scores.probabilities, scores.labels, count)
    matrix = confusion(scores.probabilities, scores.labels, count)
    columns = pa.table(
        {
            "class": pa.array(scores.classes, pa.string()),
            "videos": table.videos,
            "right": table.right,
            "accuracy": pa.array(table.accuracy, pa.float64(), from_pandas=True),
            "confused_with": pa.array(
                [scores.classes[other] if other >= 0 else None for other in table.confused_with], pa.string()
            ),
            "confused_videos": table.confused_videos,
            "confusion": pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), count),
        }
    )
    columns = columns.replace_schema_metadata({METADATA: json.dumps({**metadata, "metrics": numbers})})
    folder, name = folder_and_name(path)
    folder.make_folder()
    with folder.writer(name) as file:
        pq.write_table(columns, file)


def check_tables(written: Mapping[str, str | None], read: Sequence[str]) -> None:
    """Raises UsageError for a file that is to be written, by its option, if it is no Parquet file by its name, one of
    those that are read, or given twice."""
    taken = {os.path.abspath(path): "one of the score files" for path in read}
    for option, path in written.items():
        if path is None:
            continue
        if not path.partition("?")[0].endswith(".parquet"):
            raise UsageError(f"{option} is a Parquet file, such as {Path(path).stem or 'scores'}.parquet, not {path}")
        if (what := taken.get(os.path.abspath(path))) is not None:
            raise UsageError(f"{option} {path} would replace {what}: choose another name")
        taken[os.path.abspath(path)] = f"what {option} writes"
