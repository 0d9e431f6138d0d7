import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lgd.pipeline.console.errors import UserError
from lgd.training.fusion.fuse import metrics
from lgd.training.scoring.class_table import class_rows, write_class_table
from lgd.training.scoring.scores import METADATA, UNLABELLED
from tests.training.scoring.test_scores import scores

CLASSES = ("bend", "jack", "wave", "never")


def test_a_row_a_class_equals_a_count_video_by_video(tmp_path: Path):
    table = scores(videos=40, classes=CLASSES)
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
    assert (metadata["split"], metadata["metrics"]) == ("val", metrics(table))


def test_unlabelled_videos_have_no_such_table(tmp_path: Path):
    table = scores()
    table.labels[2] = UNLABELLED
    with pytest.raises(UserError, match="no label for v2"):
        write_class_table(str(tmp_path / "classes.parquet"), table)
    assert not list(tmp_path.iterdir())
