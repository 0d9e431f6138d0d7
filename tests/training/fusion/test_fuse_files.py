import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.training.fusion.comparison import comparison, report
from lgd.training.fusion.fuse import given_rule
from lgd.training.fusion.fuse_files import fuse_files
from lgd.training.scoring.scores import UNLABELLED, Scores, read_scores, write_scores
from tests.training.fusion.test_fit import streams
from tests.training.fusion.test_fuse import by_hand
from tests.training.fusion.test_join import shuffled, without
from tests.training.scoring.test_scores import change, doubled


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Scores of both streams on two splits, under names such as rgb-test."""
    joined = {split: streams(90, split, seed) for seed, split in enumerate(("val", "test"))}
    tables = [table for each in joined.values() for table in each.inputs]
    for table in tables:
        write_scores(str(tmp_path / f"{table.name}.parquet"), table)
    return {table.name: str(tmp_path / f"{table.name}.parquet") for table in tables}


def respoiled(path: str, how) -> None:
    write_scores(path, how(read_scores(path)))


def not_a_number(these: Scores) -> Scores:
    probabilities = these.probabilities.copy()
    probabilities[4, 1] = np.nan
    return replace(these, probabilities=probabilities)


def test_rows_and_row_groups_of_the_files_do_not_matter(files: dict[str, str]):
    pair = [files["rgb-test"], files["flow-test"]]
    before = fuse_files(pair).fused
    respoiled(pair[1], shuffled)
    pq.write_table(pq.read_table(pair[1]), pair[1], row_group_size=7)
    after = fuse_files(pair).fused
    assert after.keys == before.keys
    assert (after.probabilities == before.probabilities).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: respoiled(path, lambda s: without(s, 3)), r"1 only in .*rgb-test.parquet: test3"),
        (lambda path: change(path, doubled), r"flow-test.parquet has keys more than once: test1"),
        (lambda path: respoiled(path, lambda s: replace(s, classes=("b", "a", "c", "d"))), r"another order \(class 0"),
        (lambda path: respoiled(path, not_a_number), r"flow-test.parquet has rows that are not .*: test4"),
        (lambda path: respoiled(path, lambda s: replace(s, split="val")), r"other splits \(test, val\)"),
    ],
)
def test_files_that_do_not_match_are_refused_by_name(files: dict[str, str], spoil, message: str):
    spoil(files["flow-test"])
    with pytest.raises(UserError, match=message):
        fuse_files([files["rgb-test"], files["flow-test"]])


def test_intersect_says_what_was_dropped(files: dict[str, str]):
    pair = [files["rgb-test"], files["flow-test"]]
    respoiled(pair[1], lambda s: without(without(s, 3), 8))
    fusion = fuse_files(pair, intersect=True)
    document = comparison(fusion)
    assert document["dropped"] == {pair[0]: 2, pair[1]: 0} == fusion.fused.about["dropped"]
    assert document["videos"] == document["fused"]["videos"] == 88
    assert report(document, fusion)[0] == f"88 videos are common to all; dropped: {pair[0]} 2, {pair[1]} 0"


def test_a_fit_is_reported_beside_equal_weights(files: dict[str, str]):
    pair, fit = [files["rgb-test"], files["flow-test"]], [files["rgb-val"], files["flow-val"]]
    fusion = fuse_files(pair, fit=fit, space="logits")
    document = comparison(fusion)
    assert document["fit"]["fitted"]["nll"] < document["fit"]["equal"]["nll"]
    assert document["equal"] == comparison(fuse_files(pair, space="logits"))["fused"]
    assert [each["name"] for each in fusion.fused.about["fitted_on"]] == fit
    given = fuse_files(pair, tuple(document["weights"]), tuple(document["temperatures"]), space="logits")
    assert given.fused.probabilities == pytest.approx(fusion.fused.probabilities, abs=1e-6)


def test_a_fit_on_what_is_reported_is_refused(files: dict[str, str]):
    pair = [files["rgb-test"], files["flow-test"]]
    with pytest.raises(UserError, match=r"share 90 videos \(test0, test1, test10 and 87 more\)"):
        fuse_files(pair, fit=pair)
    with pytest.raises(UserError, match="are of other models"):
        fuse_files(pair, fit=[files["flow-val"], files["rgb-val"]])
    with pytest.raises(UsageError, match="each of the 2 reported"):
        fuse_files(pair, fit=[files["rgb-val"]])
    with pytest.raises(UsageError, match="not both"):
        fuse_files(pair, (1.0, 2.0), fit=[files["rgb-val"], files["flow-val"]])


def test_fusions_are_fused_and_fitted_again_and_say_what_they_are_made_of(files: dict[str, str], tmp_path: Path):
    for split in ("val", "test"):
        both = fuse_files([files[f"rgb-{split}"], files[f"flow-{split}"]], (3.0, 1.0)).fused
        write_scores(str(tmp_path / f"both-{split}.parquet"), both)
    ours, theirs = ([str(tmp_path / f"both-{split}.parquet"), files[f"rgb-{split}"]] for split in ("test", "val"))
    again = fuse_files(ours, fit=theirs).fused.about
    assert [each["name"] for each in again["inputs"]] == ours
    assert [each["run"] for each in again["inputs"][0]["inputs"]] == ["runs/rgb", "runs/flow"]
    assert again["inputs"][0]["weights"] == [0.75, 0.25]
    other = fuse_files([files["rgb-val"], files["flow-val"]]).fused
    write_scores(theirs[0], other)
    with pytest.raises(UserError, match=r"other models \(weights \[0.75, 0.25\] and \[0.5, 0.5\]\)"):
        fuse_files(ours, fit=theirs)


def test_the_verb_writes_fused_scores_and_classes_and_its_json_says_what_changed(files: dict[str, str], tmp_path: Path):
    pair = [files["rgb-test"], files["flow-test"]]
    out, classes = tmp_path / "fused.parquet", tmp_path / "classes.parquet"
    done = run_lgd("fuse", *pair, "--weights", 3, 1, "--out", out, "--per-class", classes, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rgb, flow, fused = (read_scores(str(path)) for path in (*pair, out))
    of_flow = dict(zip(flow.keys, flow.probabilities.tolist(), strict=True))
    fixed = broken = right = 0
    for row, (key, label) in enumerate(zip(rgb.keys, rgb.labels.tolist(), strict=True)):
        alone = rgb.probabilities[row].tolist()
        expected = by_hand([alone, of_flow[key]], given_rule(2, (3.0, 1.0)))
        assert fused.probabilities[row] == pytest.approx(expected, abs=1e-6)
        before, after = alone.index(max(alone)) == label, expected.index(max(expected)) == label
        fixed, broken, right = fixed + (after and not before), broken + (before and not after), right + after
    assert document["inputs"].keys() == set(pair)
    assert document["fused"]["top1"] == pytest.approx(right / 90)
    assert (document["compared_to"], document["fixed"], document["broken"]) == (pair[0], fixed, broken)
    assert document["weights"] == [0.75, 0.25]
    assert 0 < document["oracle_top1"] <= 1
    assert sum(row["right"] for row in pq.read_table(classes).to_pylist()) == right


def test_what_the_verb_refuses_is_one_line_and_leaves_nothing(files: dict[str, str], tmp_path: Path):
    pair = [files["rgb-test"], files["flow-test"]]
    respoiled(pair[1], lambda s: without(s, 3))
    out = tmp_path / "fused.parquet"
    for words, code, message in [
        ((*pair, "--out", out), 1, "1 only in"),
        ((*pair, "--out", pair[0], "--intersect"), 2, "would replace one of the score files"),
    ]:
        before = Path(pair[0]).read_bytes()
        done = run_lgd("fuse", *words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
        assert message in done.stderr
        assert not out.exists()
        assert Path(pair[0]).read_bytes() == before


def test_unlabelled_videos_are_fused_by_a_fit_on_labelled_ones_without_metrics(files: dict[str, str], tmp_path: Path):
    pair = [files["rgb-test"], files["flow-test"]]
    for path in pair:
        respoiled(path, lambda s: replace(s, labels=np.full_like(s.labels, UNLABELLED)))
    fusion = fuse_files(pair, fit=[files["rgb-val"], files["flow-val"]])
    document = comparison(fusion)
    assert document["fused"] is None
    assert document["fit"]["fitted"]["videos"] == 90
    write_scores(str(tmp_path / "out.parquet"), fusion.fused)
    assert (read_scores(str(tmp_path / "out.parquet")).labels == UNLABELLED).all()
