"""metrics.jsonl of a run, which may have damaged lines: those of a process that was killed while it wrote, or of a
disk. They are left out; every other line counts."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lgd.pipeline.storage.checked_json import DamagedFile, parse_json
from lgd.pipeline.storage.storage import Storage
from lgd.training.run import MAX_STEP, METRICS

LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "clips_per_s": (0, 1e9),
        "data_wait": (0, 1e6),
        "epoch": (0, MAX_STEP),
        "grad_norm": (0, 1e30),
        "rate": (0, 1e6),
        "step_s": (0, 1e9),
        "top1": (0, 1 + 1e-6),  # a sum of float32 numbers
        "val_top1": (0, 1),
        "val_top5": (0, 1),
        "workers": (1, 1e6),
    }
)
"""Smallest and largest value of a metric."""
LOSS_LIMITS = (-1e12, 1e12)


class Metrics(NamedTuple):
    """Content of metrics.jsonl.

    lines: the valid ones. damaged: numbers of the others, from 1."""

    lines: list[dict[str, Any]]
    damaged: list[int]


def read_metrics(storage: Storage) -> Metrics:
    """Return the metrics of the run in a folder; none if it has not written any yet.

    An incomplete last line is still being written and is ignored."""
    content = storage.read(METRICS) if storage.exists(METRICS) else b""
    parsed = [parse_line(text) for text in content.split(b"\n")[:-1]]
    damaged = [number for number, line in enumerate(parsed, 1) if line is None]
    return Metrics([line for line in parsed if line is not None], damaged)


def parse_line(text: bytes) -> dict[str, Any] | None:
    """Return a line; None for a damaged one: not an object, without a step, or with a number out of its range."""
    try:
        line = parse_json(text, METRICS)
    except DamagedFile:
        return None
    if not isinstance(line, dict) or not isinstance(line.get("step"), int) or not _in_range(line["step"], 0, MAX_STEP):
        return None
    if "say" in line:
        return line if isinstance(line["say"], str) else None
    if "val_top1" in line and "val_top5" not in line:
        return None
    for name, value in line.items():
        limits = LOSS_LIMITS if name == "loss" or name.startswith("loss_") else LIMITS.get(name)
        if limits is not None and not _in_range(value, *limits):
            return None
    return line


def _in_range(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
