"""Which lines of a run's metrics.jsonl count.

{"step": 40, "loss": 1.2, ...}            metrics of the steps since the line before
{"step": 40, "val_top1": 0.5, ...}        a validation
{"step": 0, "say": "..."}                 a message
{"step": 20, "resumed": true}             the run resumed after step 20: earlier lines of later steps do not count
{"step": 20, "resumed": true, "from": 40, "changed": {...}}    the same, because of --resume-from
"""

from collections.abc import Iterable, Mapping
from typing import Any

MetricsLine = Mapping[str, Any]


def counted_lines(lines: Iterable[MetricsLine]) -> list[MetricsLine]:
    """Return the lines with metrics that count, without those of steps that were repeated later."""
    kept: list[MetricsLine] = []
    for line in lines:
        if "resumed" in line:
            discard_later(kept, line["step"])
        elif "say" not in line:
            kept.append(line)
    return kept


def discard_later(kept: list[MetricsLine], step: int) -> int:
    """Remove the lines of later steps than `step` from the end of the list. Return the number of these steps."""
    last = kept[-1]["step"] if kept else 0
    while kept and kept[-1]["step"] > step:
        kept.pop()
    return int(max(last - step, 0))
