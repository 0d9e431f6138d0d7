"""How a run went: the curves in its metrics, and what its workers met with."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.storage import Storage
from lgd.training.run import METRICS

# What is drawn, by its name in the metrics, in this order.
CURVES = (
    "loss", "loss_local", "loss_global", "loss_combined", "top1", "val_top1", "rate", "data_wait", "clips_per_s",
    "workers",
)  # fmt: skip


class Curve(NamedTuple):
    """Values by the epoch (times that every video has been drawn) after which they were written."""

    epoch: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class History:
    """What counts of a run's metrics.

    steps: the last one. seconds: in steps, without validation. workers: fewest and most; None before the first line.
    resumptions: how often it went on from a checkpoint. repeated: steps that were done again because of that.
    said: lines for people, such as where the first weights come from."""

    curves: Mapping[str, Curve]
    steps: int
    seconds: float
    workers: tuple[int, int] | None
    resumptions: int
    repeated: int
    said: tuple[str, ...]


def read_history(storage: Storage) -> History:
    """The history of the run in a folder; an empty one where it has no metrics yet.

    Raises UserError for metrics that are damaged. A last line that ends early is still being written and left out."""
    content = storage.read(METRICS) if storage.exists(METRICS) else b""
    lines = []
    whole = content[: content.rfind(b"\n") + 1]
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            line = json.loads(text)
            line["step"] + 0
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{storage.display(METRICS)} is damaged in line {number} ({error!r}): delete that line"
            ) from error
        lines.append(line)
    return history(lines)


def history(lines: Iterable[Mapping[str, Any]]) -> History:
    """The history that counts: a `resumed` line takes back what stands before it and is of a later step."""
    kept: list[Mapping[str, Any]] = []
    said: dict[str, None] = {}
    resumptions = repeated = 0
    for line in lines:
        if "say" in line:
            said[str(line["say"])] = None
        elif "resumed" in line:
            resumptions += 1
            last = kept[-1]["step"] if kept else 0
            repeated += max(last - line["step"], 0)
            while kept and kept[-1]["step"] > line["step"]:
                kept.pop()
        else:
            kept.append(line)
    trained = [line for line in kept if "loss" in line]
    steps = np.array([line["step"] for line in trained], np.float64)
    epochs = np.array([line.get("epoch", line["step"]) for line in trained], np.float64)
    in_window = np.diff(steps, prepend=0.0)
    step_s = np.array([line.get("step_s", 0.0) for line in trained], np.float64)
    workers = [line["workers"] for line in trained if "workers" in line]
    curves = {}
    for name in CURVES:
        rows = [(line["step"], line[name]) for line in kept if isinstance(line.get(name), int | float)]
        if rows:
            at, value = np.array(rows, np.float64).T
            curves[name] = Curve(np.interp(at, steps, epochs) if len(steps) else at, value)
    return History(
        curves,
        kept[-1]["step"] if kept else 0,
        float((in_window * step_s).sum()),
        (min(workers), max(workers)) if workers else None,
        resumptions,
        repeated,
        tuple(said),
    )
