"""The inputs of a report: runs and score files are matched to each other."""

import dataclasses
import shutil
from pathlib import Path

from lgd.training.report.inputs import read_inputs, short_names
from lgd.training.scoring.scores import read_scores, write_scores


def test_scores_have_the_style_of_their_run_even_if_the_run_was_moved(report_inputs: list[str], tmp_path: Path):
    rgb, flow, *files = report_inputs
    assert read_inputs([flow, rgb, *files], None).series() == [1, 0, 2]
    assert read_inputs([flow, *files], None).series() == [1, 0, 2]
    moved = tmp_path / "moved"
    shutil.copytree(flow, moved)
    scores = read_scores(files[1])
    metadata = {**scores.metadata, "recipe": "nano-flow"}
    write_scores(str(tmp_path / "s.parquet"), dataclasses.replace(scores, metadata=metadata))
    assert read_inputs([rgb, str(moved), str(tmp_path / "s.parquet")], None).series() == [1]


def test_short_names_are_as_short_as_uniqueness_allows():
    assert short_names(["a/b/rgb.parquet", "a/b/flow.parquet"]) == ["rgb.parquet", "flow.parquet"]
    assert short_names(["a/val/x", "a/test/x/"]) == ["val/x", "test/x"]
    assert short_names(["x", "x"]) == ["x", "x"]
