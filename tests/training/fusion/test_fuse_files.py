import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.training.fusion.comparison import compare, fuse_and_compare
from lgd.training.fusion.fuse import make_rule
from lgd.training.fusion.fuse_files import fuse_files
from lgd.training.fusion.options import FusionOptions
from lgd.training.scoring.scores import Scores, read_scores, write_scores
from tests.training.fusion.test_fit import streams
from tests.training.fusion.test_fuse import fused_by_hand
from tests.training.fusion.test_join import shuffled, without_row
from tests.training.scoring.test_scores import rewrite, with_duplicate


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Scores of both streams on two splits, under names such as rgb-test."""
    joined = {split: streams(90, split, seed) for seed, split in enumerate(("val", "test"))}
    tables = [table for each in joined.values() for table in each.inputs]
    for table in tables:
        write_scores(str(tmp_path / f"{table.name}.parquet"), table)
    return {table.name: str(tmp_path / f"{table.name}.parquet") for table in tables}


def rewrite_scores(path: str, change: Callable[[Scores], Scores]) -> None:
    write_scores(path, change(read_scores(path)))


def with_nan(scores: Scores) -> Scores:
    probabilities = scores.probabilities.copy()
    probabilities[4, 1] = np.nan
    return replace(scores, probabilities=probabilities)


def test_rows_and_row_groups_of_the_files_do_not_matter(files: dict[str, str]):
    pair = [files["rgb-test"], files["flow-test"]]
    before = fuse_files(pair).fused
    rewrite_scores(pair[1], shuffled)
    pq.write_table(pq.read_table(pair[1]), pair[1], row_group_size=7)
    after = fuse_files(pair).fused
    assert after.keys == before.keys
    assert (after.probabilities == before.probabilities).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: rewrite_scores(path, lambda s: without_row(s, 3)), r"1 only in .*rgb-test.parquet: test3"),
        (lambda path: rewrite(path, with_duplicate), r"flow-test.parquet has duplicate keys: test1"),
        (
            lambda path: rewrite_scores(path, lambda s: replace(s, classes=("b", "a", "c", "d"))),
            r"a different order \(class 0",
        ),
        (lambda path: rewrite_scores(path, with_nan), r"flow-test.parquet has rows that are not .*: test4"),
        (lambda path: rewrite_scores(path, lambda s: replace(s, split="val")), r"different splits \(test, val\)"),
    ],
)
def test_files_that_do_not_match_are_refused_by_name(files: dict[str, str], change, message: str):
    change(files["flow-test"])
    with pytest.raises(UserError, match=message):
        fuse_files([files["rgb-test"], files["flow-test"]])


def test_intersect_reports_the_dropped_videos(files: dict[str, str]):
    pair = [files["rgb-test"], files["flow-test"]]
    rewrite_scores(pair[1], lambda s: without_row(without_row(s, 3), 8))
    fusion = fuse_files(pair, FusionOptions(intersect=True))
    result = compare(fusion)
    assert result.dropped == {pair[0]: 2, pair[1]: 0} == fusion.fused.metadata["dropped"]
    assert result.fused is not None
    assert result.videos == result.fused["videos"] == 88
    assert result.lines()[0] == f"the score files have 88 videos in common; dropped: {pair[0]} 2, {pair[1]} 0"


def test_a_fit_is_compared_with_equal_weights(files: dict[str, str]):
    pair, fit = [files["rgb-test"], files["flow-test"]], [files["rgb-val"], files["flow-val"]]
    fusion = fuse_files(pair, FusionOptions(fit=tuple(fit), space="logits"))
    result = compare(fusion)
    assert result.fit is not None
    assert result.fit["fitted"]["nll"] < result.fit["equal"]["nll"]
    assert result.equal == compare(fuse_files(pair, FusionOptions(space="logits"))).fused
    assert "weights and temperatures were fitted on 90 videos of the split val" in str(result.lines()[0])
    assert [each["name"] for each in fusion.fused.metadata["fitted_on"]] == fit
    given = fuse_files(pair, FusionOptions(tuple(result.weights), tuple(result.temperatures), space="logits"))
    assert given.fused.probabilities == pytest.approx(fusion.fused.probabilities, abs=1e-6)


def test_a_fit_on_the_reported_videos_is_refused(files: dict[str, str]):
    pair = [files["rgb-test"], files["flow-test"]]
    with pytest.raises(UserError, match=r"share 90 videos \(test0, test1, test10 and 87 more\)"):
        fuse_files(pair, FusionOptions(fit=tuple(pair)))
    with pytest.raises(UserError, match="are from different models"):
        fuse_files(pair, FusionOptions(fit=(files["flow-val"], files["rgb-val"])))
    with pytest.raises(UsageError, match="each of the 2 reported"):
        fuse_files(pair, FusionOptions(fit=(files["rgb-val"],)))
    with pytest.raises(UsageError, match="give either them or --fit, not both"):
        fuse_files(pair, FusionOptions((1.0, 2.0), fit=(files["rgb-val"], files["flow-val"])))


def test_fusions_can_be_fused_and_fitted_again_and_name_their_inputs(files: dict[str, str], tmp_path: Path):
    for split in ("val", "test"):
        both = fuse_files([files[f"rgb-{split}"], files[f"flow-{split}"]], FusionOptions((3.0, 1.0))).fused
        write_scores(str(tmp_path / f"both-{split}.parquet"), both)
    ours, theirs = ([str(tmp_path / f"both-{split}.parquet"), files[f"rgb-{split}"]] for split in ("test", "val"))
    again = fuse_files(ours, FusionOptions(fit=tuple(theirs))).fused.metadata
    assert [each["name"] for each in again["inputs"]] == ours
    assert [each["run"] for each in again["inputs"][0]["inputs"]] == ["runs/rgb", "runs/flow"]
    assert again["inputs"][0]["weights"] == [0.75, 0.25]
    other = fuse_files([files["rgb-val"], files["flow-val"]]).fused
    write_scores(theirs[0], other)
    with pytest.raises(UserError, match=r"different models \(weights \[0.75, 0.25\] and \[0.5, 0.5\]\)"):
        fuse_files(ours, FusionOptions(fit=tuple(theirs)))


def test_the_command_writes_fused_scores_and_classes_and_its_json_has_the_changes(
    files: dict[str, str], tmp_path: Path
):
    pair = [files["rgb-test"], files["flow-test"]]
    out, classes = tmp_path / "fused.parquet", tmp_path / "classes.parquet"
    done = run_lgd("fuse", *pair, "--weights", 3, 1, "--out", out, "--per-class", classes, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rgb, flow, fused = (read_scores(str(path)) for path in (*pair, out))
    flow_of = dict(zip(flow.keys, flow.probabilities.tolist(), strict=True))
    fixed = broken = right = 0
    for row, (key, label) in enumerate(zip(rgb.keys, rgb.labels.tolist(), strict=True)):
        alone = rgb.probabilities[row].tolist()
        expected = fused_by_hand([alone, flow_of[key]], make_rule(2, (3.0, 1.0)))
        assert fused.probabilities[row] == pytest.approx(expected, abs=1e-6)
        before, after = alone.index(max(alone)) == label, expected.index(max(expected)) == label
        fixed, broken, right = fixed + (after and not before), broken + (before and not after), right + after
    assert document["inputs"].keys() == set(pair)
    assert document["fused"]["top1"] == pytest.approx(right / 90)
    assert (document["compared_to"], document["fixed"], document["broken"]) == (pair[0], fixed, broken)
    assert document["weights"] == [0.75, 0.25]
    assert 0 < document["oracle_top1"] <= 1
    assert sum(row["right"] for row in pq.read_table(classes).to_pylist()) == right


def test_a_mistake_is_one_line_and_writes_nothing(files: dict[str, str], tmp_path: Path):
    pair = [files["rgb-test"], files["flow-test"]]
    rewrite_scores(pair[1], lambda s: without_row(s, 3))
    out = tmp_path / "fused.parquet"
    for words, code, message in [
        ((*pair, "--out", out), 1, "1 only in"),
        ((*pair, "--out", pair[0], "--intersect"), 2, "would overwrite one of the score files"),
    ]:
        before = Path(pair[0]).read_bytes()
        done = run_lgd("fuse", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
        assert message in done.stderr
        assert not out.exists()
        assert Path(pair[0]).read_bytes() == before


def test_videos_without_a_label_are_fused_with_a_fit_on_labeled_videos_and_have_no_metrics(
    files: dict[str, str], tmp_path: Path
):
    pair = [files["rgb-test"], files["flow-test"]]
    for path in pair:
        rewrite_scores(path, lambda s: replace(s, labels=np.full_like(s.labels, UNLABELLED)))
    fusion = fuse_files(pair, FusionOptions(fit=(files["rgb-val"], files["flow-val"])))
    result = compare(fusion)
    assert result.fused is None
    assert result.fit is not None
    assert result.fit["fitted"]["videos"] == 90
    write_scores(str(tmp_path / "out.parquet"), fusion.fused)
    assert (read_scores(str(tmp_path / "out.parquet")).labels == UNLABELLED).all()


def test_a_fit_on_the_training_split_is_reported_with_a_note(files: dict[str, str]):
    fit = [files["rgb-val"], files["flow-val"]]
    for path in fit:
        rewrite_scores(path, lambda scores: replace(scores, split="train"))
    lines = fuse_and_compare([files["rgb-test"], files["flow-test"]], FusionOptions(fit=tuple(fit))).lines()
    assert "note: networks are too confident on the videos that they were trained on" in str(lines[1])


def test_no_table_of_classes_is_written_for_videos_without_a_label(files: dict[str, str], tmp_path: Path):
    pair = [files["rgb-test"], files["flow-test"]]
    for path in pair:
        rewrite_scores(path, lambda s: replace(s, labels=np.full_like(s.labels, UNLABELLED)))
    with pytest.raises(UserError, match="no video of fused has a label"):
        fuse_and_compare(pair, per_class=str(tmp_path / "classes.parquet"))
    assert not (tmp_path / "classes.parquet").exists()
