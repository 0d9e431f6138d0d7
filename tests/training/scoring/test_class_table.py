import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.training.scoring.class_table import check_output_files, class_rows, write_class_table
from lgd.training.scoring.metrics import scores_summary
from lgd.training.scoring.scores import METADATA
from tests.training.scoring.test_scores import random_scores

CLASSES = ("bend", "jack", "wave", "never")


def test_the_row_of_each_class_equals_a_count_video_by_video(tmp_path: Path):
    table = random_scores(videos=40, classes=CLASSES)
    table.labels[table.labels == 3] = 2
    predicted = [row.index(max(row)) for row in table.probabilities.tolist()]
    pairs = list(zip(table.labels.tolist(), predicted, strict=True))
    write_class_table(str(tmp_path / "new" / "classes.parquet"), table)
    file = pq.read_table(tmp_path / "new" / "classes.parquet")
    for label, (row, short) in enumerate(zip(file.to_pylist(), class_rows(table), strict=True)):
        counts = [pairs.count((label, other)) for other in range(4)]
        assert row["class"] == short["class"] == CLASSES[label]
        assert row["confusion"] == counts
        assert short["predicted"] == {CLASSES[other]: count for other, count in enumerate(counts) if count}
        assert row["videos"] == short["videos"] == sum(counts)
        assert row["right"] == short["right"] == counts[label]
        wrong = [count if other != label else 0 for other, count in enumerate(counts)]
        assert row["confused_videos"] == max(wrong)
        assert row["confused_with"] == (CLASSES[wrong.index(max(wrong))] if max(wrong) else None)
        accuracy = counts[label] / sum(counts) if sum(counts) else None
        assert row["accuracy"] == short["accuracy"] == pytest.approx(accuracy)
    assert file.column("accuracy").null_count == 1
    metadata = json.loads(file.schema.metadata[METADATA])
    assert (metadata["split"], metadata["metrics"]) == ("val", scores_summary(table))


def test_the_table_leaves_out_videos_without_a_label_and_is_not_written_if_no_video_has_one(tmp_path: Path):
    path, table = tmp_path / "classes.parquet", random_scores()
    videos = len(table.keys)
    table.labels[2] = UNLABELLED
    write_class_table(str(path), table)
    assert sum(pq.read_table(path).column("videos").to_pylist()) == videos - 1
    assert sum(row["videos"] for row in class_rows(table)) == videos - 1
    path.unlink()
    table.labels[:] = UNLABELLED
    with pytest.raises(UserError, match="no video of s has a label"):
        write_class_table(str(path), table)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"--out": "new.csv"}, r"--out takes the name of a Parquet file, such as new.parquet, not new.csv"),
        ({"--out": "a/../in.parquet"}, r"--out a/../in.parquet would overwrite one of the score files"),
        (
            {"--out": "new.parquet", "--per-class": "./new.parquet"},
            r"--per-class ./new.parquet would overwrite the file of --out",
        ),
    ],
)
def test_output_files_that_would_overwrite_other_files_are_refused(outputs: dict[str, str], message: str):
    with pytest.raises(UsageError, match=message):
        check_output_files(outputs, ["in.parquet"])


def test_output_files_with_different_names_are_accepted():
    check_output_files({"--out": "s3://bucket/new.parquet?region=x", "--per-class": None}, ["in.parquet"])
