import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lgd.pipeline.console.errors import UserError
from lgd.training.scoring.scores import METADATA, UNLABELLED, Scores, read_scores, write_scores


def scores(name: str = "s", videos: int = 6, classes: tuple[str, ...] = ("bend", "jack", "wave")) -> Scores:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(len(classes)), videos).astype(np.float32)
    labels = random.integers(0, len(classes), videos)
    return Scores(name, [f"v{i}" for i in range(videos)], labels, probabilities, classes, "val", {"stream": "rgb"})


def test_scores_come_back_as_they_were_written(tmp_path: Path):
    path = str(tmp_path / "new" / "s.parquet")
    written = scores(path)
    written.labels[2] = UNLABELLED
    write_scores(path, written)
    back = read_scores(path)
    assert (back.keys, back.classes, back.split, back.about) == (written.keys, written.classes, "val", written.about)
    assert (back.labels == written.labels).all()
    assert (back.probabilities == written.probabilities).all()
    assert pq.read_table(path).column("label").null_count == 1


def test_row_groups_do_not_matter(tmp_path: Path):
    path = str(tmp_path / "s.parquet")
    write_scores(path, scores())
    pq.write_table(pq.read_table(path), path, row_group_size=2)
    assert pq.ParquetFile(path).num_row_groups == 3
    assert (read_scores(path).probabilities == scores().probabilities).all()


def change(path: str, how) -> None:
    table = pq.read_table(path)
    changed = how(table)
    pq.write_table(changed.replace_schema_metadata(changed.schema.metadata or table.schema.metadata), path)


def doubled(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(1, 1)])


def with_probabilities(row: int, values: list[float]):
    def how(table: pa.Table) -> pa.Table:
        all_values = table.column("probabilities").to_pylist()
        all_values[row] = values
        column = pa.array(all_values, pa.list_(pa.float32(), 3))
        return table.set_column(2, "probabilities", column)

    return how


def with_label(label: int):
    return lambda table: table.set_column(1, "label", pa.array([label] * table.num_rows, pa.int32()))


def with_about(about: object) -> Callable[[pa.Table], pa.Table]:
    def how(table: pa.Table) -> pa.Table:
        metadata = json.loads(table.schema.metadata[METADATA])
        return table.replace_schema_metadata({METADATA: json.dumps({**metadata, "about": about})})

    return how


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (doubled, r"more than once: v1"),
        (with_probabilities(3, [float("nan"), 0.5, 0.5]), r"not probabilities .*: v3"),
        (with_probabilities(4, [0.5, 0.5, 0.5]), r"not probabilities .*: v4"),
        (with_probabilities(5, [1.5, -0.5, 0.0]), r"not probabilities .*: v5"),
        (with_label(3), r"label 3, but only 3 classes"),
        (lambda table: table.slice(0, 0), r"is empty"),
        (lambda table: table.drop_columns(["label"]), r"does not hold scores"),
        (with_about(["not", "ours"]), r"does not hold scores"),
    ],
)
def test_unsound_rows_are_refused_by_name(tmp_path: Path, how, message: str):
    path = str(tmp_path / "s.parquet")
    write_scores(path, scores())
    change(path, how)
    with pytest.raises(UserError, match=message):
        read_scores(path)


def test_files_that_are_not_scores_are_refused(tmp_path: Path):
    text = tmp_path / "text.parquet"
    text.write_text("no parquet")
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"key": ["a"]}), table)
    for path in (text, table):
        with pytest.raises(UserError, match="does not hold scores"):
            read_scores(str(path))
    with pytest.raises(UserError, match="there is no file"):
        read_scores(str(tmp_path / "nowhere.parquet"))


def test_another_version_is_refused(tmp_path: Path):
    path = str(tmp_path / "s.parquet")
    write_scores(path, scores())
    table = pq.read_table(path)
    metadata = table.schema.metadata[METADATA].replace(b'"version": 1', b'"version": 2')
    pq.write_table(table.replace_schema_metadata({METADATA: metadata}), path)
    with pytest.raises(UserError, match="version 2"):
        read_scores(path)
