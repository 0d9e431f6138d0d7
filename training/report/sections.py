"""The section of the page about one group of scores: classes, fusion, confusion, calibration, examples."""

from typing import Any

import numpy as np

from lgd.pipeline.console.errors import UserError
from lgd.training.report import plots
from lgd.training.report.examples import examples, heat_map_uri
from lgd.training.report.inputs import ReportInputs
from lgd.training.report.results import Group, Predictions, most_confused

MAX_TABLE_CLASSES = 40  # with more classes the confusion is a picture instead of a table
PICTURE_COLOR, MAX_PICTURE_CELLS = (46, 134, 193), 180  # RGB; cells per side of that picture
MAX_CHANGED_CLASSES = 6  # listed under "most gained" and under "most lost"
MAX_PREDICTIONS = 30  # videos whose predictions are listed if no video has a label


def scores_section(group: Group, inputs: ReportInputs, notes: list[str]) -> dict[str, Any]:
    """Return the template's values for a group of scores. Problems are added to the notes."""
    dataset = inputs.dataset_of(group.main.scores) or next(
        (found for each in group.files if (found := inputs.dataset_of(each.scores))), None
    )
    try:
        shown = examples(group, dataset)
    except UserError as error:
        notes.append(f"The examples of {group.split} have no pictures: {error}.")
        shown = examples(group, None)
    labeled = bool(group.labeled)
    return {
        "group": group,
        "main": group.main,
        "best_input": group.best_input,
        "inputs": group.main.scores.metadata.get("inputs", []) if group.main.fused else [],
        "fusion_columns": _fusion_columns(group.main) if group.main.fused else [],
        "classes": _classes(group) if labeled else [],
        "gains": _gains(group) if labeled else None,
        "confusions": [_confusion(each) for each in _main_first(group)] if labeled else [],
        "calibrations": [_calibration(each) for each in group.files] if labeled else [],
        "predictions": [] if labeled else _predictions(group),
        "examples": shown,
        "pictured": any(example.pictures for of_kind in shown.values() for example in of_kind),
    }


def _fusion_columns(fused: Predictions) -> list[dict[str, Any]]:
    """Return the fusion's numbers for each input: weights, and temperatures if there are any."""
    metadata = fused.scores.metadata
    columns = [
        {"name": name, "values": metadata.get(field)}
        for name, field in (("weight", "weights"), ("temperature", "temperatures"))
    ]
    inputs = len(metadata.get("inputs", []))
    return [column for column in columns if column["values"] and len(column["values"]) == inputs]


def _main_first(group: Group) -> list[Predictions]:
    return [group.main, *(each for each in group.files if each is not group.main)]


def _classes(group: Group) -> list[dict[str, Any]]:
    """Return a row for each class that has videos."""
    main, gain = group.main.per_class, group.gain
    accuracies = [each.per_class.accuracy for each in group.files]
    return [
        {
            "name": name,
            "videos": int(main.videos[label]),
            "accuracies": [float(accuracy[label]) for accuracy in accuracies],
            "gain": None if gain is None else float(gain[label]),
            "confused_with": group.classes[main.confused_with[label]] if main.confused_with[label] >= 0 else None,
            "confused_videos": int(main.confused_videos[label]),
        }
        for label, name in enumerate(group.classes)
        if main.videos[label]
    ]


def _gains(group: Group) -> dict[str, Any] | None:
    gain = group.gain
    if gain is None:
        return None
    labels = np.flatnonzero(np.isfinite(gain))
    better, worse = (int((sign * gain[labels] > 0).sum()) for sign in (1, -1))
    same = len(labels) - better - worse
    order = labels[np.argsort(-gain[labels], kind="stable")].tolist()
    first, last = (
        [(group.classes[label], float(gain[label])) for label in ordered[:MAX_CHANGED_CLASSES]]
        for ordered in (order, order[::-1])
    )
    return {
        "plot": plots.gains(gain, f"Gain of the fusion by class: {better} better, {worse} worse, {same} unchanged"),
        "better": better,
        "worse": worse,
        "same": same,
        "most_gained": [row for row in first if row[1] > 0],
        "most_lost": [row for row in last if row[1] < 0],
    }


def _confusion(predictions: Predictions) -> dict[str, Any]:
    matrix = predictions.confusion
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    as_picture = len(matrix) > MAX_TABLE_CLASSES
    block = -(-len(matrix) // MAX_PICTURE_CELLS)
    return {
        "predictions": predictions,
        "counts": [] if as_picture else matrix.tolist(),
        "shares": [] if as_picture else shares.round(3).tolist(),
        "picture": heat_map_uri(_block_maximum(shares, block), PICTURE_COLOR) if as_picture else None,
        "block": block,
        "pairs": most_confused(predictions),
    }


def _block_maximum(matrix: np.ndarray, block: int) -> np.ndarray:
    """Return the maximum of each `block` x `block` cells of a square matrix; single pixels would be invisible."""
    starts = np.arange(0, len(matrix), block)
    maximum: np.ndarray = np.maximum.reduceat(np.maximum.reduceat(matrix, starts, axis=0), starts, axis=1)
    return maximum


def _calibration(predictions: Predictions) -> dict[str, Any]:
    calibration = predictions.calibration
    alt = f"Accuracy by confidence; expected calibration error {calibration.error:.3f}"
    videos = calibration.count.sum()
    return {
        "predictions": predictions,
        "error": calibration.error,
        "confidence": float(np.nansum(calibration.confidence * calibration.count) / videos),
        "accuracy": float(np.nansum(calibration.accuracy * calibration.count) / videos),
        "plot": plots.reliability(predictions.series, calibration, alt),
    }


def _predictions(group: Group) -> list[dict[str, Any]]:
    """Return the predictions for some videos of a group without labels, evenly chosen."""
    videos = min(MAX_PREDICTIONS, len(group.keys))
    rows = np.linspace(0, len(group.keys) - 1, videos).round().astype(int).tolist()
    return [
        {
            "key": group.keys[row],
            "files": [(group.classes[each.predicted[row]], float(each.confidence[row])) for each in group.files],
        }
        for row in rows
    ]
