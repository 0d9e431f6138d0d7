"""`lgd reproduce ucf101-r101` and the like: fine-tune Kinetics runs on the official splits of UCF101 and HMDB51."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lgd.pipeline.console.command_line import CommandSequence, Line
from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.training.chains import TRANSFERS
from lgd.training.recipes import recipe_named
from lgd.training.start import check_initial_run, with_absolute_paths
from lgd.training.transfer.accuracy import AllAccuracy, SplitAccuracy, top1_rows, top1_table
from lgd.training.transfer.folds import check_folds, official_folds
from lgd.training.transfer.options import FusionPlan, check_weights
from lgd.training.transfer.result import TrainingsResult
from lgd.training.transfer.run_folds import REPORT, StreamPlan, means_of, run_folds, stds_of


@dataclass(frozen=True, kw_only=True)
class TransferResult(TrainingsResult):
    """Result of `lgd reproduce` of UCF101 and HMDB51. The streams are "rgb", "flow", "fused" (both, with equal weights
    or those of --weights) and, with --fit-fusion, "fitted"."""

    splits: dict[str, dict[str, SplitAccuracy]]
    """Accuracies by number of the split and stream."""
    mean: dict[str, AllAccuracy]
    """Mean over the splits by stream."""
    std: dict[str, AllAccuracy] | None
    """Standard deviation over the splits by stream, with the divisor n - 1; null (None) for one split."""
    paper: dict[str, float] | None
    """Top-1 by stream that the paper reports, the mean over three splits; null if it reports none."""
    fitted_weights: dict[str, list[float]] | None
    """With --fit-fusion, by split: the weights of rgb and flow; otherwise null."""
    failed_splits: dict[str, str]
    """By number of the split, why it failed. Mean and standard deviation are without it."""

    def lines(self) -> list[Line]:
        rows = {
            f"split {name}" if name.isdigit() else name: row
            for name, row in top1_rows(self.splits, self.mean, self.std).items()
        }
        if self.paper:
            rows["paper (ResNet-101)"] = self.paper
        lines: list[Line] = [""]
        if self.splits:
            lines.append(top1_table(rows, "split"))
        return [*lines, *self.last_lines("split", self.splits, self.fitted_weights)]


def reproduce_splits(
    sequence: CommandSequence,
    name: str,
    data: str,
    *,
    out: Path,
    rgb: str | None,
    flow: str | None,
    splits: Sequence[int] = (1, 2, 3),
    epochs: float | None = None,
    fusion: FusionPlan = FusionPlan(),
) -> TransferResult:
    """Train both streams on each official split, score its test videos, fuse, and average over the splits.

    name: of TRANSFERS. rgb, flow: runs on another dataset that the streams start from. epochs: instead of the recipes'.
    Raises UsageError and UserError, before anything is trained, for runs and splits that do not fit."""
    transfer = TRANSFERS[name]
    if rgb is None or flow is None:
        raise UsageError(f"{name} starts from runs on another dataset: give them with --rgb RUN and --flow RUN")
    check_weights(fusion, streams=2)
    folds = official_folds(splits)
    dataset = open_dataset(data)
    options = () if epochs is None else ("--epochs", f"{epochs:g}")
    plans = []
    for stream, source in (("rgb", rgb), ("flow", flow)):
        dataset.spec(stream)
        recipes = tuple(recipe.format(stream=stream) for recipe in transfer.chain)
        config = with_absolute_paths(replace(recipe_named(recipes[0]), init_from=source))
        for fold in folds:
            check_initial_run(recipes[0], config, str(out / fold.name / recipes[0]))
        plans.append(StreamPlan(stream, recipes, source, options))
    check_folds(dataset, folds, fit_fusion=fusion.fit_fusion)
    results = run_folds(sequence, folds, plans, data=data, out=out, fusion=fusion)
    accuracies = results.accuracies()
    return TransferResult(
        splits=accuracies,
        mean=means_of(accuracies),
        std=stds_of(accuracies),
        paper=None if transfer.paper is None else dict(transfer.paper),
        fitted_weights=results.fitted_weights(),
        failed_splits=results.failed,
        seconds=sequence.seconds,
        out=str(out),
        report=str(out / REPORT),
        _failure=results.failure,
    )
