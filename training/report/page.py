"""The report: everything put into one HTML file that fetches nothing, readable without its script."""

import base64
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.inspection.pictures import color_wheel
from lgd.pipeline.storage.storage import folder_and_name
from lgd.training.models.zoo import count
from lgd.training.recipes import flatten
from lgd.training.report import plots
from lgd.training.report.dataset_summary import DatasetSummary, dataset_summary
from lgd.training.report.examples import picture_uri
from lgd.training.report.inputs import Inputs, NamedRun, as_text, fingerprint_of, read_inputs
from lgd.training.report.results import grouped
from lgd.training.report.sections import result_part

WHEEL = 112  # diameter of the wheel that explains the colors of flow, pixels

# Curve -> its heading, and how its values are shown.
PANELS = {
    "loss": ("Loss, all paths together", "log"),
    "loss_local": ("Loss of the local path", "log"),
    "loss_global": ("Loss of the global path", "log"),
    "loss_combined": ("Loss of the combination classifier", "log"),
    "top1": ("Top-1, clips trained on", "percent"),
    "val_top1": ("Top-1, validation videos", "percent"),
    "rate": ("Learning rate", "log"),
    "data_wait": ("Time spent waiting for data", "percent"),
    "clips_per_s": ("Clips a second", "number"),
    "workers": ("Workers", "count"),
}


def write_report(out: str, things: Sequence[str], data: str | None = None) -> dict[str, Any]:
    """Writes the report on runs and score files to `out`, local or remote; returns what it holds.

    data: address of the dataset, where the scores do not say it. Raises UsageError and UserError, in one line, for what
    the user can mend; what is not there is said in the page instead."""
    if not out.endswith(".html"):
        raise UsageError(f"the first word is the report's file, such as report.html, not {out}")
    inputs = read_inputs(things, data)
    page, held = render(inputs)
    # A name may hold half of a surrogate pair, which no file can: it becomes a character that says so.
    content = page.encode("utf-8", "xmlcharrefreplace")
    folder, name = folder_and_name(out)
    folder.make_folder()
    folder.write(name, content)
    return {"out": out, "bytes": len(content), **held}


def render(inputs: Inputs) -> tuple[str, dict[str, Any]]:
    """The page, and what it holds for a program."""
    notes = list(inputs.notes)
    groups = grouped(inputs.scores, inputs.score_names, inputs.series())
    results = [result_part(group, inputs, notes) for group in groups]
    datasets = []
    for named in inputs.datasets:
        try:
            datasets.append(_dataset(dataset_summary(named.dataset)))
        except UserError as error:
            notes.append(f"The dataset is not described: {error}.")
    notes += _mismatches(inputs)
    here = Path(__file__).parent
    script = (here / "script.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent, "points": points, "number": number, "text": as_text, "megabytes": megabytes,
    }  # fmt: skip
    page = environment.get_template("template.html").render(
        style=Markup((here / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        look=plots.look,
        wheel=picture_uri(color_wheel(WHEEL)),
        runs=[_run(number_, named, inputs) for number_, named in enumerate(inputs.runs)],
        panels=_panels(inputs.runs),
        differences=_differences(inputs.runs),
        results=results,
        datasets=datasets,
        notes=list(dict.fromkeys(notes)),
    )
    held = {
        "runs": {named.name: {"run": named.run.storage.display(), **(named.result or {})} for named in inputs.runs},
        "scores": [
            {"split": group.split, "classes": len(group.classes), "videos": len(group.keys),
             "files": {each.name: each.numbers for each in group.files},
             "examples": {kind: len(shown) for kind, shown in result["examples"].items()}}
            for group, result in zip(groups, results, strict=True)
        ],
        "datasets": [dataset["holdings"].about["dataset"] for dataset in datasets],
        "notes": list(dict.fromkeys(notes)),
    }  # fmt: skip
    return page, held


def _run(number_: int, named: NamedRun, inputs: Inputs) -> dict[str, Any]:
    """What a run was trained on and how far it came."""
    run, history = named.run, named.history
    size = count(run.config.model, len(run.classes), 3 if run.config.stream == "rgb" else 2)
    dataset = _dataset_with(run.fingerprint, inputs)
    recipe = dataset.specs.get(run.config.stream) if dataset else None
    validations = history.curves.get("val_top1")
    videos = dataset.summary["splits"].get("train", 0) if dataset else 0
    return {
        "number": number_,
        "name": named.name,
        "run": run,
        "size": size,
        "history": history,
        "finished": named.result is not None,
        "total": run.config.steps(videos) if videos else None,
        "last": float(validations.value[-1]) if validations else None,
        "best": float(validations.value.max()) if validations else None,
        "dataset": dataset.storage.display() if dataset else None,
        "data_settings": dict(recipe.settings) if recipe and recipe.hash == run.spec_hash else None,
        "settings": flatten(run.config),
    }


def _dataset_with(fingerprint: str | None, inputs: Inputs) -> Dataset | None:
    return next((each.dataset for each in inputs.datasets if each.dataset.fingerprint == fingerprint), None)


def _mismatches(inputs: Inputs) -> list[str]:
    """Scores whose videos are not those of the dataset that the examples are taken from."""
    notes = []
    for name, scores in zip(inputs.score_names, inputs.scores, strict=True):
        dataset, fingerprint = inputs.dataset_of(scores), fingerprint_of(scores)
        if dataset and fingerprint and dataset.fingerprint != fingerprint:
            notes.append(
                f"{name} was scored on other videos than {dataset.storage.display()} holds now (fingerprints "
                f"{fingerprint[:12]} and {dataset.fingerprint[:12]}): its examples may be missing or others."
            )
    return notes


def _panels(runs: Sequence[NamedRun]) -> list[dict[str, Any]]:
    panels = []
    for curve, (title, kind) in PANELS.items():
        lines = [
            (number_, *named.history.curves[curve])
            for number_, named in enumerate(runs)
            if curve in named.history.curves
        ]
        if lines:
            plot = plots.curves(lines, f"{title}, by epoch", kind, marked=curve == "val_top1")
            panels.append({"title": title, "plot": plot})
    return panels


def _differences(runs: Sequence[NamedRun]) -> list[dict[str, Any]]:
    """What the runs were told, where it is not the same for all."""
    told = [
        {
            "recipe": named.run.recipe,
            **flatten(named.run.config),
            "dataset's fingerprint": named.run.fingerprint[:12],
            "data recipe": named.run.spec_hash,
            "classes": len(named.run.classes),
        }
        for named in runs
    ]
    names = dict.fromkeys(name for each in told for name in each)
    rows = [{"name": name, "values": [as_text(each.get(name)) for each in told]} for name in names]
    return [row for row in rows if len(set(row["values"])) > 1]


def _dataset(held: DatasetSummary) -> dict[str, Any]:
    about = held.about
    rejected = sum(about["rejected"].values())
    ranked = plots.ranked(list(enumerate(held.by_class.values())), "Videos of each class by split, the largest first")
    lengths = plots.histogram(held.lengths, "seconds", "Lengths of the videos in seconds")
    saturated = None
    if held.saturated is not None:
        share = "Share of the flow vectors of a video that are beyond the bound"
        saturated = plots.histogram(held.saturated, "vectors beyond the bound", share, percent=True)
    return {
        "holdings": held,
        "rejected": rejected,
        "reasons": sorted(about["rejected"].items(), key=lambda item: (-item[1], item[0])),
        "ranked": ranked,
        "lengths": lengths,
        "median_s": float(np.median(held.lengths)) if len(held.lengths) else math.nan,
        "saturated": saturated,
    }


def percent(value: float, digits: int = 1) -> str:
    """A fraction of 1."""
    return "–" if math.isnan(value) else f"{value:.{digits}%}"


def points(value: float) -> str:
    """A difference of fractions, in points, with its sign."""
    return "–" if math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−") if value else "0.0"


def number(value: float) -> str:
    return f"{value:,.0f}"


def megabytes(value: float) -> str:
    return f"{value / 1e6:,.1f}"
