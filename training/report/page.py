"""The page of the report: one HTML file that loads nothing from anywhere and is readable without its script."""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.inspection.pictures import color_wheel
from lgd.pipeline.storage.storage import folder_and_name
from lgd.training.config_file import to_flat_dict
from lgd.training.models.zoo import count
from lgd.training.report import plots
from lgd.training.report.dataset_summary import DatasetSummary, dataset_summary
from lgd.training.report.examples import jpeg_uri
from lgd.training.report.inputs import NamedRun, ReportInputs, fingerprint_of, read_inputs, setting_text
from lgd.training.report.results import group_scores
from lgd.training.report.sections import scores_section
from lgd.training.run_dataset import dataset_of
from lgd.training.scoring.metrics import Metrics

WHEEL_SIZE = 112  # diameter of the color wheel that explains the flow pictures, pixels

# Curve -> its heading, and how its values are shown.
PANELS = {
    "loss": ("Total loss", "log"),
    "loss_local": ("Loss of the local path", "log"),
    "loss_global": ("Loss of the global path", "log"),
    "loss_combined": ("Loss of the combination classifier", "log"),
    "top1": ("Top-1 on training clips", "percent"),
    "val_top1": ("Top-1 on validation videos", "percent"),
    "rate": ("Learning rate", "log"),
    "grad_norm": ("Norm of the gradient", "log"),
    "data_wait": ("Time spent waiting for data", "percent"),
    "clips_per_s": ("Clips per second", "number"),
    "workers": ("Workers", "count"),
}


@dataclass(frozen=True)
class ScoresContent:
    """What the report shows of the score files of the same videos."""

    split: str
    """Split of the videos."""
    classes: int
    """Number of classes."""
    videos: int
    """Number of videos."""
    files: dict[str, Metrics | None]
    """Metrics by short name of the score file; of the videos that have a label; null (None) if none has one."""
    examples: dict[str, int]
    """Number of example videos by kind: fixed, broken, wrong, right, unknown."""


@dataclass(frozen=True)
class ReportResult(CommandResult):
    """Result of `lgd report`."""

    out: str
    """File of the report."""
    bytes: int
    """Size of the file, bytes."""
    runs: dict[str, dict[str, Any]]
    """By short name of the run, its folder (`run`) and its result, as `lgd train` prints it."""
    scores: list[ScoresContent]
    """One entry per group of score files of the same videos."""
    datasets: list[str]
    """Folders of the datasets."""
    notes: list[str]
    """Problems, one sentence each, which the page lists as well."""

    def lines(self) -> list[Line]:
        return [*self.notes, f"{self.out}: {self.bytes / 1e6:.1f} MB"]


def write_report(out: str, paths: Sequence[str], data: str | None = None) -> ReportResult:
    """Write the report on runs and score files to `out`, a local or remote file.

    data: address of the dataset, if the scores do not name it. Raises UsageError and UserError for files that cannot
    be used; a missing dataset is a note in the page instead."""
    if not out.endswith(".html"):
        raise UsageError(f"the first argument must be the report's file, such as report.html, not {out}")
    page, result = render(out, read_inputs(paths, data))
    folder, name = folder_and_name(out)
    folder.make_folder()
    folder.write(name, page)
    return result


def render(out: str, inputs: ReportInputs) -> tuple[bytes, ReportResult]:
    """Return the page in UTF-8, and the result of writing it to `out`."""
    notes = list(inputs.notes)
    groups = group_scores(inputs.scores, inputs.score_names, inputs.series())
    results = [scores_section(group, inputs, notes) for group in groups]
    datasets = []
    for named in inputs.datasets:
        try:
            datasets.append(_dataset_section(dataset_summary(named.dataset)))
        except UserError as error:
            notes.append(f"The report does not describe the dataset: {error}.")
    notes += _mismatches(inputs)
    notes = list(dict.fromkeys(notes))
    text = _fill_template(
        runs=[_run_section(series, named, inputs) for series, named in enumerate(inputs.runs)],
        panels=_panels(inputs.runs),
        differences=_differences(inputs.runs),
        results=results,
        datasets=datasets,
        notes=notes,
    )
    # A name may contain half of a surrogate pair, which UTF-8 cannot encode: it becomes a character reference.
    page = text.encode("utf-8", "xmlcharrefreplace")
    scores = [
        ScoresContent(
            group.split,
            len(group.classes),
            len(group.keys),
            {predictions.name: predictions.numbers for predictions in group.files},
            {kind: len(shown) for kind, shown in result["examples"].items()},
        )
        for group, result in zip(groups, results, strict=True)
    ]
    runs = {named.name: {"run": named.run.storage.display(), **(named.result or {})} for named in inputs.runs}
    folders = [section["summary"].description.dataset for section in datasets]
    return page, ReportResult(out, len(page), runs=runs, scores=scores, datasets=folders, notes=notes)


def _fill_template(**values: Any) -> str:
    folder = Path(__file__).parent
    script = (folder / "script.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "points": points, "number": number, "text": setting_text, "megabytes": megabytes,
    }  # fmt: skip
    return environment.get_template("template.html").render(
        style=Markup((folder / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        legend_icon=plots.legend_icon,
        wheel=jpeg_uri(color_wheel(WHEEL_SIZE)),
        **values,
    )


def _run_section(series: int, named: NamedRun, inputs: ReportInputs) -> dict[str, Any]:
    """Return the template's values for a run: its configuration, data and progress."""
    run, history = named.run, named.history
    size = count(run.config.model, len(run.classes), 3 if run.config.stream == "rgb" else 2)
    dataset = _dataset_with(run.fingerprint, inputs)
    spec = dataset.specs.get(run.config.stream) if dataset else None
    validations = history.curves.get("val_top1")
    videos = dataset_of(run, dataset).labeled(run.config.split) if dataset else 0
    return {
        "series": series,
        "name": named.name,
        "run": run,
        "size": size,
        "history": history,
        "finished": named.result is not None,
        "total_steps": run.config.steps(videos) if videos else None,
        "last_top1": float(validations.value[-1]) if validations else None,
        "best_top1": float(validations.value.max()) if validations else None,
        "dataset": dataset.storage.display() if dataset else None,
        "spec_settings": dict(spec.settings) if spec and spec.hash == run.spec_hash else None,
        "settings": to_flat_dict(run.config),
    }


def _dataset_with(fingerprint: str | None, inputs: ReportInputs) -> Dataset | None:
    return next((named.dataset for named in inputs.datasets if named.dataset.fingerprint == fingerprint), None)


def _mismatches(inputs: ReportInputs) -> list[str]:
    """Return a note for each score file whose videos differ from those of the dataset."""
    notes = []
    for name, scores in zip(inputs.score_names, inputs.scores, strict=True):
        dataset, fingerprint = inputs.dataset_of(scores), fingerprint_of(scores)
        if dataset and fingerprint and dataset.fingerprint != fingerprint:
            notes.append(
                f"{name} scores different videos than {dataset.storage.display()} now holds (fingerprints "
                f"{fingerprint[:12]} and {dataset.fingerprint[:12]}): its examples may be missing or wrong."
            )
    return notes


def _panels(runs: Sequence[NamedRun]) -> list[dict[str, Any]]:
    """Return a plot for each curve that at least one run has."""
    panels = []
    for curve, (title, kind) in PANELS.items():
        lines = [
            (series, *named.history.curves[curve]) for series, named in enumerate(runs) if curve in named.history.curves
        ]
        if lines:
            plot = plots.curves(lines, f"{title}, by epoch", kind, markers=curve == "val_top1")
            panels.append({"title": title, "plot": plot})
    return panels


def _differences(runs: Sequence[NamedRun]) -> list[dict[str, Any]]:
    """Return the settings that differ between the runs, with their values."""
    settings_of = [
        {
            "recipe": named.run.recipe,
            **to_flat_dict(named.run.config),
            "fingerprint": named.run.fingerprint[:12],
            "stream spec": named.run.spec_hash,
            "classes": len(named.run.classes),
        }
        for named in runs
    ]
    names = dict.fromkeys(name for settings in settings_of for name in settings)
    rows = [{"name": name, "values": [setting_text(settings.get(name)) for settings in settings_of]} for name in names]
    return [row for row in rows if len(set(row["values"])) > 1]


def _dataset_section(summary: DatasetSummary) -> dict[str, Any]:
    """Return the template's values for a dataset."""
    rejected = summary.description.rejected
    saturated = None
    if summary.saturated is not None:
        alt = "Histogram: fraction of the flow vectors of each video that exceed the bound"
        saturated = plots.histogram(summary.saturated, "vectors that exceed the bound", alt, percent=True)
    return {
        "summary": summary,
        "rejected": sum(rejected.values()),
        "reasons": sorted(rejected.items(), key=lambda item: (-item[1], item[0])),
        "class_sizes": plots.class_sizes(
            list(enumerate(summary.by_class.values())), "Videos per class and split, largest class first"
        ),
        "lengths": plots.histogram(summary.lengths, "seconds", "Histogram: length of the videos in seconds"),
        "median_s": float(np.median(summary.lengths)) if len(summary.lengths) else math.nan,
        "saturated": saturated,
    }


def percent(value: float, digits: int = 1) -> str:
    """Format a fraction of 1 as a percentage."""
    return "–" if math.isnan(value) else f"{value:.{digits}%}"


def points(value: float) -> str:
    """Format a difference of two fractions of 1 in percentage points, with its sign."""
    return "–" if math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−") if value else "0.0"


def number(value: float) -> str:
    """Format a count with thousands separators."""
    return f"{value:,.0f}"


def megabytes(value: float) -> str:
    """Format bytes as megabytes."""
    return f"{value / 1e6:,.1f}"
