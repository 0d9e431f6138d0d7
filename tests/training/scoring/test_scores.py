import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.training.scoring.scores import (
    METADATA,
    Scores,
    identity_of,
    read_scores,
    scores_writer,
    shown_keys,
    unlabelled_keys,
    write_scores,
)

Change = Callable[[pa.Table], pa.Table]


def random_scores(name: str = "s", videos: int = 6, classes: tuple[str, ...] = ("bend", "jack", "wave")) -> Scores:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(len(classes)), videos).astype(np.float32)
    labels = random.integers(0, len(classes), videos)
    return Scores(name, [f"v{i}" for i in range(videos)], labels, probabilities, classes, "val", {"stream": "rgb"})


def test_scores_are_read_as_they_were_written(tmp_path: Path):
    path = str(tmp_path / "new" / "s.parquet")
    written = random_scores(path)
    written.labels[2] = UNLABELLED
    write_scores(path, written)
    read = read_scores(path)
    assert (read.keys, read.classes, read.split, read.metadata) == (
        written.keys,
        written.classes,
        "val",
        written.metadata,
    )
    assert (read.labels == written.labels).all()
    assert (read.probabilities == written.probabilities).all()
    assert pq.read_table(path).column("label").null_count == 1
    assert unlabelled_keys(read) == ["v2"]


def test_a_file_of_version_0_1_is_read(tmp_path: Path):
    """The layout of the file, written here without the project's writer."""
    path = str(tmp_path / "s.parquet")
    metadata = {"stream": "rgb", "recipe": "nano-rgb", "data_recipe": "a1bc30a350b61473", "clips": 3}
    header = {"format": "lgd-scores", "version": 1, "classes": ["a", "b"], "split": "train", "about": metadata}
    probabilities = pa.array([[0.25, 0.75], [1.0, 0.0]], pa.list_(pa.float32(), 2))
    columns = {"key": ["x", "y"], "label": pa.array([1, None], pa.int32()), "probabilities": probabilities}
    table = pa.table(columns).replace_schema_metadata({"lgd": json.dumps({**header, "identity": "0123456789abcdef"})})
    pq.write_table(table, path)
    read = read_scores(path)
    assert (read.keys, read.labels.tolist(), read.classes, read.split) == (["x", "y"], [1, -1], ("a", "b"), "train")
    assert read.probabilities.tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert read.metadata == metadata
    assert identity_of(path) == "0123456789abcdef"


def test_the_file_has_the_layout_of_version_0_1(tmp_path: Path):
    path = str(tmp_path / "s.parquet")
    with scores_writer(path, ("a", "b", "c"), "val", metadata={"stream": "rgb"}, identity="f" * 16) as write:
        table = pa.table({"key": ["x"], "label": pa.array([2], pa.int32())})
        write(table.append_column("probabilities", pa.array([[0.0, 0.0, 1.0]], pa.list_(pa.float32(), 3))))
    assert json.loads(pq.read_schema(path).metadata[b"lgd"]) == {
        "format": "lgd-scores",
        "version": 1,
        "classes": ["a", "b", "c"],
        "split": "val",
        "about": {"stream": "rgb"},
        "identity": "f" * 16,
    }


def test_only_score_files_have_an_identity(tmp_path: Path):
    (tmp_path / "text.parquet").write_text("not a Parquet file")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "table.parquet")
    write_scores(str(tmp_path / "fused.parquet"), random_scores())
    for name in ("text", "table", "fused", "missing"):
        assert identity_of(str(tmp_path / f"{name}.parquet")) is None


def test_row_groups_do_not_matter(tmp_path: Path):
    path = str(tmp_path / "s.parquet")
    write_scores(path, random_scores())
    pq.write_table(pq.read_table(path), path, row_group_size=2)
    assert pq.ParquetFile(path).num_row_groups == 3
    assert (read_scores(path).probabilities == random_scores().probabilities).all()


def test_scores_are_read_without_the_optional_columns(tmp_path: Path):
    path = str(tmp_path / "s.parquet")
    table = pa.table({"key": ["a"], "label": pa.array([0], pa.int32())})
    probabilities = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0.0], pa.float32()), 2)
    with scores_writer(path, ("x", "y"), "val", metadata={"stream": "rgb"}) as write:
        write(table.append_column("probabilities", probabilities).append_column("other", pa.array(["anything"])))
    scores = read_scores(path)
    assert scores.probabilities.tolist() == [[1.0, 0.0]]
    write_scores(path, scores)
    assert pq.read_table(path).column_names == ["key", "label", "probabilities"]


def rewrite(path: str, change: Change) -> None:
    table = pq.read_table(path)
    changed = change(table)
    pq.write_table(changed.replace_schema_metadata(changed.schema.metadata or table.schema.metadata), path)


def with_duplicate(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(1, 1)])


def with_probabilities(row: int, values: list[float]) -> Change:
    def change(table: pa.Table) -> pa.Table:
        rows = table.column("probabilities").to_pylist()
        rows[row] = values
        return table.set_column(2, "probabilities", pa.array(rows, pa.list_(pa.float32(), 3)))

    return change


def with_two_classes(table: pa.Table) -> pa.Table:
    rows = [row[:2] for row in table.column("probabilities").to_pylist()]
    return table.set_column(2, "probabilities", pa.array(rows, pa.list_(pa.float32(), 2)))


def with_label(label: int) -> Change:
    return lambda table: table.set_column(1, "label", pa.array([label] * table.num_rows, pa.int32()))


def with_metadata(metadata: object) -> Change:
    def change(table: pa.Table) -> pa.Table:
        header = json.loads(table.schema.metadata[METADATA])
        return table.replace_schema_metadata({METADATA: json.dumps({**header, "about": metadata})})

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_duplicate, r"has duplicate keys: v1"),
        (with_probabilities(3, [float("nan"), 0.5, 0.5]), r"not probabilities .*: v3"),
        (with_probabilities(4, [0.5, 0.5, 0.5]), r"not probabilities .*: v4"),
        (with_probabilities(5, [1.5, -0.5, 0.0]), r"not probabilities .*: v5"),
        (with_two_classes, r"has rows without 3 probabilities, one per class"),
        (with_label(3), r"label 3, but only 3 classes"),
        (lambda table: table.slice(0, 0), r"has no rows"),
        (lambda table: table.drop_columns(["label"]), r"is not a score file"),
        (with_metadata(["not", "ours"]), r"is not a score file"),
    ],
)
def test_invalid_rows_are_refused_by_name(tmp_path: Path, change: Change, message: str):
    path = str(tmp_path / "s.parquet")
    write_scores(path, random_scores())
    rewrite(path, change)
    with pytest.raises(UserError, match=message):
        read_scores(path)


def test_other_files_are_refused(tmp_path: Path):
    text = tmp_path / "text.parquet"
    text.write_text("not a Parquet file")
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"key": ["a"]}), table)
    for path in (text, table):
        with pytest.raises(UserError, match="is not a score file"):
            read_scores(str(path))
    missing = tmp_path / "missing.parquet"
    with pytest.raises(UserError, match=r"missing.parquet is missing: create it with `lgd evaluate RUN .* --out"):
        read_scores(str(missing))


def test_a_different_version_is_refused(tmp_path: Path):
    path = str(tmp_path / "s.parquet")
    write_scores(path, random_scores())
    table = pq.read_table(path)
    metadata = table.schema.metadata[METADATA].replace(b'"version": 1', b'"version": 2')
    pq.write_table(table.replace_schema_metadata({METADATA: metadata}), path)
    with pytest.raises(
        UserError,
        match=r"is a score file of version 2, written by a newer version of lgd; .* reads version 1: use that version",
    ):
        read_scores(path)


def test_messages_name_the_first_keys_and_the_number_of_the_others():
    assert shown_keys(["a", "b", "c"]) == "a, b, c"
    assert shown_keys(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
