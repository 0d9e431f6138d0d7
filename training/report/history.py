"""The history of a run: its training curves, and what happened to its workers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lgd.pipeline.storage.storage import Storage
from lgd.training.metrics_file import read_metrics
from lgd.training.metrics_lines import MetricsLine, discard_later
from lgd.training.resume_from import describe_return

# The metrics that are plotted, in this order.
CURVES = (
    "loss", "loss_local", "loss_global", "loss_combined", "top1", "val_top1", "rate", "grad_norm", "data_wait",
    "clips_per_s", "workers",
)  # fmt: skip


class Curve(NamedTuple):
    """Values of a metric. epoch: passes over the training videos after which each value was written."""

    epoch: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class History:
    """A run's metrics without the steps that a restart discarded.

    steps: number of the last step. seconds: time spent in steps, without validation. workers: minimum and maximum;
    None before the first line. resumptions: how often the run resumed from a checkpoint. repeated: steps that were
    repeated because of that. messages: lines of text in the metrics, such as the source of the initial weights, and
    the uses of --resume-from."""

    curves: Mapping[str, Curve]
    steps: int
    seconds: float
    workers: tuple[int, int] | None
    resumptions: int
    repeated: int
    messages: tuple[str, ...]


def read_history(storage: Storage) -> History:
    """Return the history of the run in a folder; an empty one if it has no metrics yet.

    Damaged lines are left out, and an incomplete last line, which is still being written."""
    return history_of(read_metrics(storage).lines)


def history_of(lines: Iterable[MetricsLine]) -> History:
    """Return the history in the lines of a metrics file.

    A `resumed` line discards the lines before it that belong to a later step."""
    kept: list[MetricsLine] = []
    messages: dict[str, None] = {}
    resumptions = repeated = 0
    for line in lines:
        if "say" in line:
            messages[str(line["say"])] = None
        elif "resumed" in line:
            discarded = discard_later(kept, line["step"])
            if "from" in line:  # with --resume-from; the line of the workers follows
                messages[describe_return(line)] = None
            else:
                resumptions += 1
                repeated += discarded
        else:
            kept.append(line)
    training = [line for line in kept if "loss" in line]
    steps = np.array([line["step"] for line in training], np.float64)
    epochs = np.array([line.get("epoch", line["step"]) for line in training], np.float64)
    steps_per_line = np.diff(steps, prepend=0.0)
    step_s = np.array([line.get("step_s", 0.0) for line in training], np.float64)
    workers = [line["workers"] for line in training if "workers" in line]
    curves = {}
    for name in CURVES:
        points = [(line["step"], line[name]) for line in kept if isinstance(line.get(name), int | float)]
        if points:
            step, value = np.array(points, np.float64).T
            curves[name] = Curve(np.interp(step, steps, epochs) if len(steps) else step, value)
    return History(
        curves,
        kept[-1]["step"] if kept else 0,
        float((steps_per_line * step_s).sum()),
        (min(workers), max(workers)) if workers else None,
        resumptions,
        repeated,
        tuple(messages),
    )
