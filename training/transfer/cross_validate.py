"""`lgd cross-validate`: train and score a recipe on every fold of a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lgd.pipeline.console.command_line import CommandSequence, Line
from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.dataset.dataset import STREAMS, open_dataset
from lgd.training.config_file import option_name, to_flat_dict
from lgd.training.models.zoo import check_model_config
from lgd.training.recipes import TrainConfig, recipe_named
from lgd.training.scoring.metrics import Metrics, accuracy_table
from lgd.training.start import check_initial_run, with_absolute_paths
from lgd.training.transfer.accuracy import TITLES, AllAccuracy, SplitAccuracy, top1_rows, top1_table
from lgd.training.transfer.folds import check_folds, named_folds
from lgd.training.transfer.options import FusionPlan, check_weights
from lgd.training.transfer.result import TrainingsResult
from lgd.training.transfer.run_folds import REPORT, StreamPlan, means_of, run_folds, stds_of

OWN_FIELDS = ("stream", "split", "validation.split", "init_from")  # which the command itself sets


@dataclass(frozen=True, kw_only=True)
class CrossValidation(TrainingsResult):
    """Result of `lgd cross-validate`. The streams are "rgb", "flow", and with both "fused" (with equal weights or those
    of --weights) and, with --fit-fusion, "fitted"."""

    folds: dict[str, dict[str, SplitAccuracy]]
    """Accuracies by fold and stream."""
    mean: dict[str, AllAccuracy]
    """Mean over the folds by stream."""
    std: dict[str, AllAccuracy] | None
    """Standard deviation over the folds by stream, with the divisor n - 1; null (None) for less than two folds."""
    pooled: dict[str, Metrics] | None
    """Metrics of the test videos of all folds together by stream; null if a video is in the test splits of several
    folds."""
    fitted_weights: dict[str, list[float]] | None
    """With --fit-fusion, by fold: the weights of rgb and flow; otherwise null."""
    failed_folds: dict[str, str]
    """By name of the fold, why it failed. Mean, standard deviation and pooled metrics are without it."""

    def lines(self) -> list[Line]:
        lines: list[Line] = [""]
        if self.folds:
            lines.append(top1_table(top1_rows(self.folds, self.mean, self.std), "fold"))
        if self.pooled is not None:
            lines.append("all test videos together:")
            lines.append(accuracy_table({TITLES[stream]: each for stream, each in self.pooled.items()}))
        elif self.folds:
            lines.append("no pooled accuracy: some videos are in the test splits of several folds")
        return [*lines, *self.last_lines("fold", self.folds, self.fitted_weights)]


def cross_validate(
    sequence: CommandSequence,
    recipe: str,
    config: TrainConfig,
    *,
    data: str,
    folds: Sequence[str],
    out: Path,
    streams: Sequence[str] | None = None,
    init_from: dict[str, str | None],
    fusion: FusionPlan = FusionPlan(),
) -> CrossValidation:
    """Train a recipe on the training split of every fold and score the test split, one stream or both.

    config: the recipe with changed fields, which every stream gets. folds: names, see `named_folds`. streams: default
    that of the recipe. init_from: initial runs by stream.
    Raises UsageError and UserError, before anything is trained, for options, runs and splits that do not fit."""
    standard = to_flat_dict(recipe_named(recipe))
    changed = {name: value for name, value in to_flat_dict(config).items() if value != standard[name]}
    for name in OWN_FIELDS:
        if name in changed:
            advice = {"stream": "--streams", "init_from": "--rgb or --flow"}.get(name, "--folds")
            raise UsageError(f"{option_name(name)} does not belong to `lgd cross-validate`: use {advice}")
    chosen = tuple(streams or (config.stream,))
    if len(set(chosen)) < len(chosen) or not set(chosen) <= set(STREAMS):
        raise UsageError(f"--streams takes {' and '.join(STREAMS)}, each once, not {' '.join(chosen)}")
    unused = [stream for stream, run in init_from.items() if run is not None and stream not in chosen]
    if unused:
        raise UsageError(f"--{unused[0]} is a run of a stream that is not trained: add it to --streams")
    check_weights(fusion, len(chosen))
    dataset = open_dataset(data)
    found = named_folds(dataset, folds)
    options = tuple(word for name, value in changed.items() for word in _words(name, value))
    plans = []
    for stream in chosen:
        dataset.spec(stream)
        own_recipe = recipe if stream == config.stream else _of_stream(recipe, config.stream, stream)
        values = replace(config, stream=recipe_named(own_recipe).stream, init_from=init_from.get(stream))
        check_model_config(values.model, len(dataset.classes), STREAMS[stream].channels)
        values = with_absolute_paths(values)
        for fold in found:
            check_initial_run(own_recipe, values, str(out / fold.name / own_recipe))
        plans.append(StreamPlan(stream, (own_recipe,), init_from.get(stream), options))
    check_folds(dataset, found, fit_fusion=fusion.fit_fusion)
    results = run_folds(sequence, found, plans, data=data, out=out, fusion=fusion)
    accuracies = results.accuracies()
    return CrossValidation(
        folds=accuracies,
        mean=means_of(accuracies),
        std=stds_of(accuracies),
        pooled=results.pooled(),
        fitted_weights=results.fitted_weights(),
        failed_folds=results.failed,
        seconds=sequence.seconds,
        out=str(out),
        report=str(out / REPORT),
        _failure=results.failure,
    )


def _of_stream(recipe: str, stream: str, other: str) -> str:
    """Return the recipe for another stream: nano-rgb -> nano-flow. Raises UsageError if there is none."""
    name = "-".join(other if word == stream else word for word in recipe.split("-"))
    if name == recipe:
        raise UsageError(f"{recipe} has no counterpart for the stream {other}: cross-validate one stream")
    recipe_named(name)
    return name


def _words(field: str, value: object) -> list[str]:
    """Return the words of the option that gives a field of the recipe this value."""
    name = option_name(field)
    if isinstance(value, bool):
        *groups, last = name.removeprefix("--").split(".")
        return [name if value else "--" + ".".join([*groups, f"no-{last}"])]
    return [name, *([str(each) for each in value] if isinstance(value, tuple | list) else [str(value)])]
