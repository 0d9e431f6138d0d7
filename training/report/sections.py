"""What of scores the page shows: a part for the scores of the same videos."""

from typing import Any

import numpy as np

from lgd.pipeline.console.errors import UserError
from lgd.training.report import plots
from lgd.training.report.examples import examples, shares_picture
from lgd.training.report.inputs import Inputs
from lgd.training.report.results import Group, Predictions, most_confused

CELLS = 40  # classes up to which the confusion is a table with numbers; of more it is a picture
HEAT, SIDE = (46, 134, 193), 180  # of that picture: its color, and its cells a side at most
EXTREMES = 6  # classes that fusing changed most, either way
FEW = 30  # videos whose predictions are listed where there are no labels


def result_part(group: Group, inputs: Inputs, notes: list[str]) -> dict[str, Any]:
    """A part of the page: scores of the same videos. Adds what could not be had to the notes."""
    dataset = inputs.dataset_of(group.lead.scores) or next(
        (found for each in group.files if (found := inputs.dataset_of(each.scores))), None
    )
    try:
        shown = examples(group, dataset)
    except UserError as error:
        notes.append(f"The examples of {group.split} have no pictures: {error}.")
        shown = examples(group, None)
    labelled = bool(group.labelled)
    return {
        "group": group,
        "lead": group.lead,
        "best_input": group.best_input,
        "inputs": group.lead.scores.about.get("inputs", []) if group.lead.fused else [],
        "fusion_columns": _fusion_columns(group.lead) if group.lead.fused else [],
        "classes": _classes(group) if labelled else [],
        "gains": _gains(group) if labelled else None,
        "confusions": [_confusion(each) for each in _lead_first(group)] if labelled else [],
        "calibrations": [_calibration(each) for each in group.files] if labelled else [],
        "predicted": [] if labelled else _predicted(group),
        "examples": shown,
        "pictured": any(example.pictures for each in shown.values() for example in each),
    }


def _fusion_columns(fused: Predictions) -> list[dict[str, Any]]:
    """What the fusion says of each of its inputs in numbers: weights, and temperatures where it has them."""
    about = fused.scores.about
    columns = [
        {"name": name, "values": about.get(of)} for name, of in (("weight", "weights"), ("temperature", "temperatures"))
    ]
    return [each for each in columns if each["values"] and len(each["values"]) == len(about.get("inputs", []))]


def _lead_first(group: Group) -> list[Predictions]:
    return [group.lead, *(each for each in group.files if each is not group.lead)]


def _classes(group: Group) -> list[dict[str, Any]]:
    """A row a class that has videos."""
    lead, gain = group.lead.per_class, group.gain
    accuracies = [each.per_class.accuracy for each in group.files]
    return [
        {
            "name": name,
            "videos": int(lead.videos[number_]),
            "accuracies": [float(each[number_]) for each in accuracies],
            "gain": None if gain is None else float(gain[number_]),
            "confused_with": group.classes[lead.confused_with[number_]] if lead.confused_with[number_] >= 0 else None,
            "confused_videos": int(lead.confused_videos[number_]),
        }
        for number_, name in enumerate(group.classes)
        if lead.videos[number_]
    ]


def _gains(group: Group) -> dict[str, Any] | None:
    gain = group.gain
    if gain is None:
        return None
    known = np.flatnonzero(np.isfinite(gain))
    up, down = (int((sign * gain[known] > 0).sum()) for sign in (1, -1))
    same = len(known) - up - down
    order = known[np.argsort(-gain[known], kind="stable")].tolist()
    most = [[(group.classes[row], float(gain[row])) for row in rows[:EXTREMES]] for rows in (order, order[::-1])]
    return {
        "plot": plots.gains(gain, f"Gain of fusion by class: {up} better, {down} worse, {same} the same"),
        "better": up,
        "worse": down,
        "same": same,
        "most_gained": [row for row in most[0] if row[1] > 0],
        "most_lost": [row for row in most[1] if row[1] < 0],
    }


def _confusion(predictions: Predictions) -> dict[str, Any]:
    matrix = predictions.confusion
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    many = len(matrix) > CELLS
    block = -(-len(matrix) // SIDE)
    return {
        "predictions": predictions,
        "counts": [] if many else matrix.tolist(),
        "shares": [] if many else shares.round(3).tolist(),
        "picture": shares_picture(_largest(shares, block), HEAT) if many else None,
        "block": block,
        "pairs": most_confused(predictions),
    }


def _largest(shares: np.ndarray, block: int) -> np.ndarray:
    """The largest number in each `block` x `block` cells of a square matrix; single pixels would not be seen."""
    starts = np.arange(0, len(shares), block)
    return np.maximum.reduceat(np.maximum.reduceat(shares, starts, axis=0), starts, axis=1)


def _calibration(predictions: Predictions) -> dict[str, Any]:
    found = predictions.calibration
    about = f"Accuracy by confidence; expected calibration error {found.error:.3f}"
    return {
        "predictions": predictions,
        "error": found.error,
        "confidence": float(np.nansum(found.confidence * found.count) / found.count.sum()),
        "accuracy": float(np.nansum(found.accuracy * found.count) / found.count.sum()),
        "plot": plots.reliability(predictions.series, found, about),
    }


def _predicted(group: Group) -> list[dict[str, Any]]:
    """Predictions for some videos without labels, evenly chosen."""
    rows = np.linspace(0, len(group.keys) - 1, min(FEW, len(group.keys))).round().astype(int).tolist()
    return [
        {
            "key": group.keys[row],
            "files": [(group.classes[each.predicted[row]], float(each.confidence[row])) for each in group.files],
        }
        for row in rows
    ]
