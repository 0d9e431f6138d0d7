"""`lgd average`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.training.fusion.fuse import fuse, make_rule
from lgd.training.fusion.join import join
from lgd.training.scoring.metrics import scores_summary
from lgd.training.scoring.scores import Scores, read_scores, write_scores
from lgd.training.transfer.average import average
from tests.training.transfer.conftest import some_scores


def written(folder: Path, name: str, scores: Scores) -> str:
    path = str(folder / f"{name}.parquet")
    write_scores(path, scores)
    return path


def with_top1(split: str, right: int) -> Scores:
    """1000 videos of a split, of which `right` are correct."""
    labels = np.arange(1000) % 2
    predicted = np.where(np.arange(1000) < right, labels, 1 - labels)
    probabilities = np.eye(2, dtype=np.float32)[predicted]
    about = {"stream": "rgb", "recipe": "ucf101-rgb-r101"}
    return Scores("", [f"{split}-{i}" for i in range(1000)], labels, probabilities, ("a", "b"), split, about)


def test_the_example_of_the_specification(tmp_path: Path):
    """Mean of 97.1, 96.9, 97.0 is 97.0, standard deviation (n - 1) 0.1."""
    files = [written(tmp_path, f"{n}", with_top1(f"test{n}", right)) for n, right in ((1, 971), (2, 969), (3, 970))]
    result = average(files)
    assert result.mean["top1"] == pytest.approx(0.970, abs=1e-12)
    assert result.std["top1"] == pytest.approx(0.001, abs=1e-12)
    assert {each["split"]: each["top1"] for each in result.splits.values()} == {
        "test1": 0.971,
        "test2": 0.969,
        "test3": 0.97,
    }
    (table,) = result.lines()
    assert [list(column.cells)[3:] for column in table.columns][2] == ["97.0%", "0.1%"]  # type: ignore[union-attr]


def test_every_accuracy_is_the_mean_of_those_of_evaluate(folded: Dataset, tmp_path: Path):
    files = [written(tmp_path, f"{n}", some_scores(folded, f"test{n}")) for n in (1, 2, 3)]
    result = average(files)
    metrics = [scores_summary(read_scores(file)) for file in files]
    for name in ("top1", "top5", "mean_class"):
        values = [each[name] for each in metrics]
        assert result.mean[name] == pytest.approx(np.mean(values), abs=1e-12)
        assert result.std[name] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert [each["videos"] for each in result.splits.values()] == [6, 6, 6]


def test_fused_scores_are_averaged(folded: Dataset, tmp_path: Path):
    def fused(split: str, weights: tuple[float, ...] | None = None) -> Scores:
        streams = [replace(some_scores(folded, split, stream=stream), name=stream) for stream in ("rgb", "flow")]
        return fuse(join(streams), make_rule(2, weights))

    files = [written(tmp_path, f"{n}", fused(f"test{n}")) for n in (1, 2)]
    assert len(average(files).splits) == 2
    other = written(tmp_path, "other", fused("test3", (1, 1.5)))
    with pytest.raises(UserError, match=r"have different weights \(0.5 0.5 and 0.4 0.6\)"):
        average([*files, other])
    with pytest.raises(UserError, match=r"have different streams \(rgb \+ flow and rgb\)"):
        average([files[0], written(tmp_path, "rgb", some_scores(folded, "test2"))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a", "b", "c", "d", "e", "f")}, "have different classes .*can be averaged"),
        ({"metadata": {"stream": "flow"}}, r"have different streams \(rgb and flow\)"),
        ({"metadata": {"stream": "rgb", "recipe": "nano-rgb-com"}}, r"recipes \(nano-rgb and nano-rgb-com\)"),
        ({"metadata": {"stream": "rgb", "recipe": "nano-rgb", "model": "x"}}, r"models \(lgd3d_nano and x\)"),
    ],
)
def test_files_that_differ_are_refused_with_what_differs(folded: Dataset, tmp_path: Path, change: dict, message: str):
    files = [
        written(tmp_path, "1", some_scores(folded, "test1")),
        written(tmp_path, "2", replace(some_scores(folded, "test2"), **change)),
    ]
    with pytest.raises(UserError, match=message):
        average(files)


def test_the_same_videos_twice_are_refused(folded: Dataset, tmp_path: Path):
    """Also under two names of the split, as in two datasets."""
    scores = some_scores(folded, "test1")
    files = [written(tmp_path, "1", scores), written(tmp_path, "2", replace(scores, split="test2"))]
    with pytest.raises(
        UserError, match=r"have the same videos \(split test1 and test2\): give the scores of different"
    ):
        average(files)
    with pytest.raises(UsageError, match="needs two or more score files"):
        average(files[:1])
