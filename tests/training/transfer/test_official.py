"""`lgd reproduce` over the official splits, with commands that train nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.training.scoring.metrics import scores_summary
from lgd.training.scoring.scores import read_scores
from lgd.training.transfer.official import TransferResult, reproduce_splits
from lgd.training.transfer.options import FusionPlan
from tests.training.transfer.conftest import Commands, storage_bytes


def reproduce(
    commands: Commands, sources: dict[str, str], out: Path, name: str = "ucf101-r50", **options
) -> TransferResult:
    options = {"rgb": sources["rgb"], "flow": sources["flow"], **options}
    data = commands.dataset.storage.base
    return reproduce_splits(commands.sequence(), name, str(data), out=out, **options)


def test_every_split_is_trained_scored_and_fused_and_the_mean_is_that_of_the_three(
    commands: Commands, sources: dict[str, str], tmp_path: Path
):
    out = tmp_path / "out"
    result = reproduce(commands, sources, out)
    assert commands.calls[:4] == [
        ("train", "ucf101-rgb-r50", "1/ucf101-rgb-r50", "train1", "", "rgb"),
        ("evaluate", "1/ucf101-rgb-r50", "test1", "last", "1/rgb.parquet"),
        ("train", "ucf101-flow-r50", "1/ucf101-flow-r50", "train1", "", "flow"),
        ("evaluate", "1/ucf101-flow-r50", "test1", "last", "1/flow.parquet"),
    ]
    assert [call[2] for call in commands.calls if call[0] == "evaluate"] == [f"test{n}" for n in (1, 1, 2, 2, 3, 3)]
    assert commands.calls[-1][0] == "report"
    assert len(commands.calls[-1]) == 1 + 3 * (2 + 3)  # runs and scores
    document = json.loads(json.dumps(result.document()))
    for stream in ("rgb", "flow", "fused"):
        metrics = [scores_summary(read_scores(str(out / f"{n}/{stream}.parquet"))) for n in (1, 2, 3)]
        for name in ("top1", "top5", "mean_class"):
            values = [each[name] for each in metrics]
            assert document["mean"][stream][name] == pytest.approx(np.mean(values), abs=1e-12)
            assert document["std"][stream][name] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
            assert [document["splits"][str(n)][stream][name] for n in (1, 2, 3)] == values
        assert [document["splits"][str(n)][stream]["videos"] for n in (1, 2, 3)] == [6, 6, 6]
    assert document["paper"] == {"rgb": 0.970, "flow": 0.968, "fused": 0.982}
    assert (document["failed_splits"], document["fitted_weights"], result.failed) == ({}, None, "")


def test_the_table_has_the_splits_mean_deviation_and_the_paper(
    commands: Commands, sources: dict[str, str], tmp_path: Path
):
    table = reproduce(commands, sources, tmp_path / "out", "hmdb51-r50").lines()[1]
    first, rgb, flow, fused = (list(column.cells) for column in table.columns)  # type: ignore[union-attr]
    assert first == ["split 1", "split 2", "split 3", "mean", "standard deviation", "paper (ResNet-101)"]
    assert (rgb[-1], flow[-1], fused[-1]) == ("75.7", "78.9", "80.5")


def test_stage_2_starts_from_the_fine_tuned_stage_1(commands: Commands, sources: dict[str, str], tmp_path: Path):
    reproduce(commands, sources, tmp_path / "out", "ucf101-r50-com", splits=[2])
    assert commands.calls[:3] == [
        ("train", "ucf101-rgb-r50", "2/ucf101-rgb-r50", "train2", "", "rgb"),
        ("train", "ucf101-rgb-r50-com", "2/ucf101-rgb-r50-com", "train2", "", "ucf101-rgb-r50"),
        ("evaluate", "2/ucf101-rgb-r50-com", "test2", "last", "2/rgb.parquet"),
    ]


def test_a_rerun_writes_nothing(commands: Commands, sources: dict[str, str], tmp_path: Path):
    out = tmp_path / "out"
    first = reproduce(commands, sources, out)
    before = storage_bytes(str(out))
    again = reproduce(commands, sources, out)
    assert storage_bytes(str(out)) == before
    assert (again.splits, again.mean) == (first.splits, first.mean)


def test_a_run_that_is_killed_in_the_second_split_goes_on_there(
    commands: Commands, folded: Dataset, sources: dict[str, str], tmp_path: Path
):
    out = tmp_path / "out"
    commands.kill = "2/ucf101-flow-r50"
    with pytest.raises(KeyboardInterrupt):
        reproduce(commands, sources, out)
    before = storage_bytes(str(out / "1"))
    again = Commands(folded)
    resumed = reproduce(again, sources, out)
    assert storage_bytes(str(out / "1")) == before
    assert again.wrote[0] == "2/ucf101-flow-r50"
    undisturbed = reproduce(Commands(folded), sources, tmp_path / "undisturbed")
    assert (resumed.splits, resumed.mean, resumed.std) == (undisturbed.splits, undisturbed.mean, undisturbed.std)


def test_a_split_that_fails_leaves_the_others_and_is_named_at_the_end(
    commands: Commands, sources: dict[str, str], tmp_path: Path
):
    commands.fail = "2/ucf101-rgb-r50"
    result = reproduce(commands, sources, tmp_path / "out")
    assert list(result.splits) == ["1", "3"]
    assert result.failed_splits == {"2": "the disk is full: free some space"}
    assert result.failed == ("failed: 2 (the disk is full: free some space): the others are complete; rerun to resume")
    assert result.mean["rgb"]["top1"] == pytest.approx(np.mean([result.splits[n]["rgb"]["top1"] for n in ("1", "3")]))
    assert "_failure" not in result.document()
    commands.fail = ""
    assert list(reproduce(commands, sources, tmp_path / "out").splits) == ["1", "2", "3"]


def test_if_every_split_fails_there_is_no_table_and_no_report(
    commands: Commands, sources: dict[str, str], tmp_path: Path
):
    commands.fail = "1/ucf101-rgb-r50"
    result = reproduce(commands, sources, tmp_path / "out", splits=[1])
    assert (result.splits, result.mean, result.std) == ({}, {}, None)
    assert "report" not in [call[0] for call in commands.calls]
    assert all(isinstance(line, str) for line in result.lines())


def test_fusion_weights_are_fitted_on_a_held_out_part_of_the_training_split(
    commands: Commands, sources: dict[str, str], tmp_path: Path
):
    out = tmp_path / "out"
    result = reproduce(commands, sources, out, splits=[1], fusion=FusionPlan(fit_fusion=True))
    assert ("train", "ucf101-rgb-r50", "fit/ucf101-rgb-r50", "train1-fit", "", "rgb") in commands.calls
    assert ("evaluate", "fit/ucf101-rgb-r50", "train1-held", "last", "fit/rgb.parquet") in commands.calls
    assert ("evaluate", "1/ucf101-rgb-r50", "test1", "last", "1/rgb.parquet") in commands.calls
    fitted = read_scores(str(out / "1/fitted.parquet"))
    assert [each["split"] for each in fitted.metadata["fitted_on"]] == ["train1-held", "train1-held"]
    held = set(read_scores(str(out / "1/fit/rgb.parquet")).keys)
    assert not held & set(fitted.keys)
    assert result.fitted_weights == {"1": fitted.metadata["weights"]}
    assert read_scores(str(out / "1/fused.parquet")).metadata["weights"] == [0.5, 0.5]  # stays equal
    assert list(result.splits["1"]) == ["rgb", "flow", "fused", "fitted"]


def test_given_weights_replace_the_equal_ones(commands: Commands, sources: dict[str, str], tmp_path: Path):
    reproduce(commands, sources, tmp_path / "out", splits=[1], fusion=FusionPlan(weights=(1, 1.5)))
    assert read_scores(str(tmp_path / "out/1/fused.parquet")).metadata["weights"] == [0.4, 0.6]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"rgb": None},
            UsageError,
            "^ucf101-r50 starts from runs on another dataset: give them with --rgb RUN ",
        ),
        ({"flow": None}, UsageError, "--rgb RUN and --flow RUN$"),
        ({"splits": [1, 1]}, UsageError, "^--splits 1 1: give each split once$"),
        ({"splits": [1, 4]}, UserError, "has no split 'train4': choose from "),
        ({"rgb": "flow"}, UserError, "is a flow run, but the stream rgb is trained: give an rgb run$"),
        ({"rgb": "rgb101"}, UserError, "is a run of lgd3d_r101, but lgd3d_r50 is trained: give a run of lgd3d_r50$"),
        ({"rgb": "nowhere"}, UserError, "--init-from: nowhere does not exist"),
        ({"fusion": FusionPlan(weights=(1,))}, UsageError, "--weights takes one number per stream: 2, not 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_trained(
    commands: Commands, sources: dict[str, str], tmp_path: Path, options: dict, error: type, message: str
):
    options = {name: sources.get(value, value) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(error, match=message):
        reproduce(commands, sources, tmp_path / "out", **options)
    assert commands.calls == []


def test_a_flow_network_may_start_from_an_rgb_run_with_a_warning(
    commands: Commands, sources: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    reproduce(commands, sources, tmp_path / "out", flow=sources["rgb"], splits=[1])
    assert "is an RGB run: conv1 of the flow network becomes the mean" in " ".join(capsys.readouterr().err.split())
