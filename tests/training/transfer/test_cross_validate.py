"""`lgd cross-validate`, with commands that train nothing, and once on a cluster."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.training.recipes import RECIPES
from lgd.training.run import open_run
from lgd.training.scoring.metrics import scores_summary, summary
from lgd.training.scoring.scores import read_scores
from lgd.training.transfer.cross_validate import CrossValidation, cross_validate
from lgd.training.transfer.options import FusionPlan
from tests.training.transfer.conftest import Commands, storage_bytes

NANO = RECIPES["nano-rgb"]
FOLDS = ("f1", "f2", "f3")


def validate(commands: Commands, out: Path, config=NANO, **options) -> CrossValidation:
    options = {"folds": FOLDS, "init_from": {}, **options}
    data = str(commands.dataset.storage.base)
    return cross_validate(commands.sequence(), "nano-rgb", config, data=data, out=out, **options)


def test_one_stream_is_trained_on_every_fold_and_pooled(commands: Commands, tmp_path: Path):
    out = tmp_path / "out"
    result = validate(commands, out)
    assert commands.calls[:3] == [
        ("train", "nano-rgb", "f1/nano-rgb", "f1-train", "", ""),
        ("evaluate", "f1/nano-rgb", "f1-test", "last", "f1/rgb.parquet"),
        ("train", "nano-rgb", "f2/nano-rgb", "f2-train", "", ""),
    ]
    tables = [read_scores(str(out / f"{fold}/rgb.parquet")) for fold in FOLDS]
    top1 = [scores_summary(table)["top1"] for table in tables]
    assert result.mean["rgb"]["top1"] == pytest.approx(np.mean(top1), abs=1e-12)
    assert result.std is not None
    assert result.std["rgb"]["top1"] == pytest.approx(np.std(top1, ddof=1), abs=1e-12)
    probabilities = np.concatenate([table.probabilities for table in tables])
    labels = np.concatenate([table.labels for table in tables])
    assert result.pooled == {"rgb": summary(probabilities, labels)}
    assert result.pooled["rgb"]["videos"] == 18
    assert json.loads(json.dumps(result.document()))["folds"]["f2"]["rgb"]["top1"] == top1[1]


def test_two_streams_are_fused(commands: Commands, tmp_path: Path):
    result = validate(commands, tmp_path / "out", streams=("rgb", "flow"))
    assert [call[1] for call in commands.calls if call[0] == "train"] == ["nano-rgb", "nano-flow"] * 3
    assert list(result.mean) == ["rgb", "flow", "fused"]
    assert result.pooled is not None
    assert list(result.pooled) == ["rgb", "flow", "fused"]
    table = result.lines()[1]
    assert [column.header for column in table.columns] == ["fold", "RGB", "flow", "two-stream"]  # type: ignore[union-attr]


def test_folds_with_common_test_videos_have_no_pooled_accuracy(commands: Commands, tmp_path: Path):
    result = validate(commands, tmp_path / "out", folds=("f1", "overlap"))
    assert result.pooled is None
    assert any("no pooled accuracy" in line for line in result.lines() if isinstance(line, str))


def test_changed_fields_of_the_recipe_reach_every_training(commands: Commands, tmp_path: Path):
    config = replace(
        NANO,
        epochs=1.5,
        freeze_normalization=True,
        transform=replace(NANO.transform, mean=(1.0, 2.0, 3.0)),
        optimizer=replace(NANO.optimizer, max_grad_norm=40.0),
    )
    validate(commands, tmp_path / "out", config, streams=("flow", "rgb"))
    for fold in FOLDS:
        for stream in ("rgb", "flow"):
            trained = open_run(str(tmp_path / "out" / fold / f"nano-{stream}")).config
            assert (trained.epochs, trained.freeze_normalization, trained.optimizer.max_grad_norm) == (1.5, True, 40.0)
            assert trained.transform.mean == (1.0, 2.0, 3.0)
            assert (trained.stream, trained.split, trained.validation.split) == (stream, f"{fold}-train", "")
    assert trained.transform.color_jitter == 0.0  # the flow recipe's own


def test_initial_runs_by_stream(commands: Commands, folded: Dataset, tmp_path: Path):
    validate(commands, tmp_path / "first", folds=("f1", "f2"), streams=("rgb", "flow"))
    first = tmp_path / "first" / "f1"
    init = {"rgb": str(first / "nano-rgb"), "flow": str(first / "nano-flow")}
    again = Commands(folded)
    validate(again, tmp_path / "out", streams=("rgb", "flow"), init_from=init)
    assert [call[5] for call in again.calls if call[0] == "train"] == ["nano-rgb", "nano-flow"] * 3


def test_a_killed_command_goes_on_and_a_complete_one_writes_nothing(
    commands: Commands, folded: Dataset, tmp_path: Path
):
    out = tmp_path / "out"
    commands.kill = "f2/nano-rgb"
    with pytest.raises(KeyboardInterrupt):
        validate(commands, out)
    before = storage_bytes(str(out / "f1"))
    resumed = validate(Commands(folded), out)
    assert storage_bytes(str(out / "f1")) == before
    undisturbed = validate(Commands(folded), tmp_path / "undisturbed")
    assert (resumed.folds, resumed.mean, resumed.pooled) == (undisturbed.folds, undisturbed.mean, undisturbed.pooled)
    everything = storage_bytes(str(out))
    validate(Commands(folded), out)
    assert storage_bytes(str(out)) == everything


def test_a_fold_that_fails_leaves_the_others(commands: Commands, tmp_path: Path):
    commands.fail = "f1/nano-rgb"
    result = validate(commands, tmp_path / "out")
    assert list(result.folds) == ["f2", "f3"]
    assert result.failed.startswith("failed: f1 (the disk is full: free some space): the others are complete")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"config": replace(NANO, split="f1-train")}, UsageError, "--split does not belong .*: use --folds"),
        ({"config": replace(NANO, stream="flow")}, UsageError, "--stream does not belong .*: use --streams"),
        ({"config": replace(NANO, init_from="x")}, UsageError, "--init-from does not belong .*: use --rgb or --flow"),
        ({"streams": ("rgb", "rgb")}, UsageError, "--streams takes rgb and flow, each once, not rgb rgb"),
        ({"streams": ("rgb", "sound")}, UsageError, "--streams takes rgb and flow, each once, not rgb sound"),
        ({"init_from": {"flow": "x"}}, UsageError, "--flow is a run of a stream that is not trained"),
        ({"init_from": {"rgb": "nowhere"}}, UserError, "nowhere does not exist"),
        ({"fusion": FusionPlan(fit_fusion=True)}, UsageError, "need two streams: --streams rgb flow"),
        (
            {"fusion": FusionPlan(fit_fusion=True), "streams": ("rgb", "flow")},
            UserError,
            "make f1-train-fit and f1-train-held with `lgd splits .* --hold-out f1-train --group REGEX --fraction 0.2`",
        ),
        ({"folds": ("f1",)}, UsageError, "needs two or more folds"),
        ({"folds": ("f1", "f9")}, UserError, "has no fold 'f9'"),
        ({"folds": ("f1", "train1:test2")}, UserError, "6 videos are both in train1"),
        ({"config": replace(NANO, freeze_until="heads")}, UsageError, "--freeze-until heads keeps the initial weights"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_trained(
    commands: Commands, tmp_path: Path, options: dict, error: type, message: str
):
    with pytest.raises(error, match=message):
        validate(commands, tmp_path / "out", **options)
    assert commands.calls == []


@pytest.mark.usefixtures("joined")
def test_on_a_cluster_the_mean_is_that_of_evaluate_and_the_shards_do_not_change(folded: Dataset, tmp_path: Path):
    data = tmp_path / "data"
    shutil.copytree(folded.storage.base, data)
    before = storage_bytes(str(data))
    small = ("--epochs", 1, "--batch-size", 4, "--transform.crop", 32, "--test-clips", 1, "--model.dropout", 0.5)
    words = ("cross-validate", "nano-rgb", "--data", data, "--folds", "f1", "f2", "--out", tmp_path / "out", *small)
    done = run_lgd(*words, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    files = [str(tmp_path / "out" / fold / "rgb.parquet") for fold in ("f1", "f2")]
    top1 = [scores_summary(read_scores(file))["top1"] for file in files]  # which `lgd evaluate` prints
    assert document["mean"]["rgb"]["top1"] == pytest.approx(np.mean(top1), abs=1e-12)
    assert document["pooled"]["rgb"]["videos"] == 12
    assert Path(document["report"]).exists()
    assert storage_bytes(str(data)) == before
