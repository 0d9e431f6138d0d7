"""Train, score and fuse on every fold, with the commands that a user would enter. Rerun to resume: what is complete is
not repeated.

OUT/FOLD/RECIPE              a run on the training split of the fold
OUT/FOLD/rgb.parquet         its scores on the test split; flow.parquet, fused.parquet
OUT/FOLD/fit/                with --fit-fusion: runs on FOLD-fit, scores on FOLD-held; ../fitted.parquet
OUT/report.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lgd.pipeline.console.command_line import CommandSequence
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.dataset.splits import rejected_keys
from lgd.training.fusion.fit import check_fitting_videos, fit_rule, fitted_on
from lgd.training.fusion.fuse import fuse, make_rule
from lgd.training.fusion.join import join
from lgd.training.run import open_run
from lgd.training.run_dataset import dataset_of
from lgd.training.scoring.metrics import Metrics, scores_summary, summary
from lgd.training.scoring.scores import Scores, labeled_scores, read_scores, write_scores
from lgd.training.transfer.accuracy import (
    AllAccuracy,
    SplitAccuracy,
    mean_accuracy,
    split_accuracy,
    std_accuracy,
)
from lgd.training.transfer.folds import Fold
from lgd.training.transfer.options import FusionPlan

REPORT = "report.html"


@dataclass(frozen=True)
class StreamPlan:
    """How one stream is trained on every fold.

    recipes: in order; each starts from the run of the one before it. init_from: what the first one starts from.
    options: of every `lgd train`."""

    stream: str
    recipes: tuple[str, ...]
    init_from: str | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoldResult:
    """The scores of one fold by stream ("rgb", "flow", "fused", "fitted"), and the videos that were not scored."""

    fold: Fold
    runs: tuple[Path, ...]
    scores: Mapping[str, Scores]
    not_scored: int
    fitted_weights: tuple[float, ...] | None = None

    def accuracies(self) -> dict[str, SplitAccuracy]:
        """Return the accuracies by stream."""
        return {name: split_accuracy(scores_summary(each), self.not_scored) for name, each in self.scores.items()}


@dataclass
class FoldResults:
    """complete: by name of the fold. failed: messages by name of the fold."""

    complete: dict[str, FoldResult] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def accuracies(self) -> dict[str, dict[str, SplitAccuracy]]:
        """Return the accuracies by fold and stream."""
        return {name: result.accuracies() for name, result in self.complete.items()}

    def pooled(self) -> dict[str, Metrics] | None:
        """Return the metrics of the videos of all folds together by stream; None if a video is in several folds, or
        without a complete fold."""
        results = list(self.complete.values())
        keys = [key for result in results for key in next(iter(result.scores.values())).keys]
        if not keys or len(set(keys)) < len(keys):
            return None
        tables = {name: [labeled_scores(result.scores[name]) for result in results] for name in results[0].scores}
        return {
            name: summary(np.concatenate([t.probabilities for t in each]), np.concatenate([t.labels for t in each]))
            for name, each in tables.items()
        }

    def fitted_weights(self) -> dict[str, list[float]] | None:
        """Return the fitted weights of the streams by fold; None if none were fitted."""
        weights = {name: list(result.fitted_weights) for name, result in self.complete.items() if result.fitted_weights}
        return weights or None

    @property
    def failure(self) -> str:
        """One line that names the failed folds; "" if none failed."""
        if not self.failed:
            return ""
        lines = "; ".join(f"{name} ({message})" for name, message in self.failed.items())
        return f"failed: {lines}: the others are complete; rerun to resume"


def means_of(accuracies: Mapping[str, Mapping[str, AllAccuracy]]) -> dict[str, AllAccuracy]:
    """Return the mean over folds by stream. accuracies: by fold and stream."""
    return {stream: mean_accuracy(values) for stream, values in _by_stream(accuracies).items()}


def stds_of(accuracies: Mapping[str, Mapping[str, AllAccuracy]]) -> dict[str, AllAccuracy] | None:
    """Return the standard deviation over folds by stream; None for less than two folds."""
    if len(accuracies) < 2:
        return None
    return {stream: std_accuracy(values) for stream, values in _by_stream(accuracies).items()}


def _by_stream(accuracies: Mapping[str, Mapping[str, AllAccuracy]]) -> dict[str, list[AllAccuracy]]:
    streams = dict.fromkeys(stream for row in accuracies.values() for stream in row)
    return {stream: [row[stream] for row in accuracies.values()] for stream in streams}


def run_folds(
    sequence: CommandSequence,
    folds: Sequence[Fold],
    plans: Sequence[StreamPlan],
    *,
    data: str,
    out: Path,
    fusion: FusionPlan = FusionPlan(),
) -> FoldResults:
    """Train and score every stream on every fold, fuse the streams, and write a report of everything.

    A fold that fails does not stop the others."""
    results = FoldResults()
    for fold in folds:
        try:
            results.complete[fold.name] = _run_fold(
                sequence, fold, plans, data=data, out=out / fold.name, fusion=fusion
            )
        except UserError as error:
            say(f"{fold.name} failed: {error}")
            results.failed[fold.name] = str(error)
    if results.complete:
        shown = [path for result in results.complete.values() for path in result.runs]
        shown += [Path(each.name) for result in results.complete.values() for each in result.scores.values()]
        try:
            sequence.do("report", "report", out / REPORT, *shown, "--data", data)
        except UserError as error:
            say(f"the report failed: {error}")
            results.failed["report"] = str(error)
    return results


def _run_fold(
    sequence: CommandSequence,
    fold: Fold,
    plans: Sequence[StreamPlan],
    *,
    data: str,
    out: Path,
    fusion: FusionPlan,
) -> FoldResult:
    """Train, score and fuse the streams of one fold."""
    runs: list[Path] = []
    scores: dict[str, Scores] = {}
    for plan in plans:
        runs += _train(sequence, plan, fold.train, data=data, out=out, name=fold.name)
        file = out / f"{plan.stream}.parquet"
        scores[plan.stream] = _score(sequence, runs[-1], fold.test, data=data, out=file, name=fold.name)
    weights = None
    if len(plans) > 1:
        joined = join(list(scores.values()))
        scores["fused"] = _write_once(out / "fused.parquet", fuse(joined, make_rule(len(plans), fusion.weights)))
        if fusion.fit_fusion:
            held = []
            for plan in plans:
                name, folder = f"{fold.name} fit", out / "fit"
                run = _train(sequence, plan, fold.fit, data=data, out=folder, name=name)[-1]
                file = folder / f"{plan.stream}.parquet"
                held.append(_score(sequence, run, fold.held, data=data, out=file, name=name))
            fitting = join(held)
            check_fitting_videos(joined, fitting)
            rule = fit_rule(fitting, "probabilities")
            weights = rule.weights
            scores["fitted"] = _write_once(out / "fitted.parquet", fuse(joined, rule, fitted_on(fitting)))
    dataset = dataset_of(open_run(str(runs[-1])), open_dataset(data))
    return FoldResult(fold, tuple(runs), scores, len(rejected_keys(dataset, fold.test)), weights)


def _train(sequence: CommandSequence, plan: StreamPlan, split: str, *, data: str, out: Path, name: str) -> list[Path]:
    """Train the recipes of a stream on a split and return their run folders. name: of the fold, for the durations."""
    folders = []
    init_from = [] if plan.init_from is None else ["--init-from", plan.init_from]
    for recipe in plan.recipes:
        folder = out / recipe
        words = ["--data", data, "--run", folder, "--split", split, "--validation.split", "", *plan.options, *init_from]
        sequence.do(f"{name}: train {recipe}", "train", recipe, *words)
        folders.append(folder)
        init_from = ["--init-from", str(folder)]
    return folders


def _score(sequence: CommandSequence, run: Path, split: str, *, data: str, out: Path, name: str) -> Scores:
    """Score a split with the last checkpoint of a run."""
    words = [run, "--data", data, "--split", split, "--checkpoint", "last", "--out", out]
    sequence.do(f"{name}: evaluate {out.stem}", "evaluate", *words)
    return read_scores(str(out))


def _write_once(path: Path, scores: Scores) -> Scores:
    """Write a file of fused scores unless it is there with this content, and return the scores with its name."""
    try:
        existing = read_scores(str(path))
        if (existing.keys, existing.classes, existing.split, existing.metadata) == (
            scores.keys,
            scores.classes,
            scores.split,
            scores.metadata,
        ) and np.array_equal(existing.probabilities, scores.probabilities):
            return existing
    except UserError:  # missing or damaged
        pass
    write_scores(str(path), scores)
    return read_scores(str(path))
