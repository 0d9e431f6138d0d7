"""`lgd train --resume-from STEP`: go back to an earlier checkpoint of a run, for example after its loss diverged.

The run is then as if it had stopped after that step: the checkpoints of later steps are deleted, because the newest
checkpoint is the one that a run resumes from, and best.json names the best of the remaining ones that were validated.
The metrics stay: a line with `resumed` says that the lines of later steps before it do not count, from which step the
run went back, and with which new values of the optimizer's options. Killed at any moment, the same command can be
repeated."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.training.config_file import option_name
from lgd.training.metrics_file import read_metrics
from lgd.training.metrics_lines import MetricsLine, counted_lines
from lgd.training.run import METRICS, RESULT, Run
from lgd.training.side_files import BEST, best_of_metrics, read_best

Changes = Mapping[str, tuple[Any, Any]]  # field of the configuration -> old and new value


def go_back(run: Run, step: int, changes: Changes) -> None:
    """Make the checkpoint of `step` the newest one of a run whose lock is held.

    changes: of the configuration. Raises UserError, which lists the checkpoints, if there is none of this step or it
    is damaged."""
    from lgd.training import checkpoint  # here, because it imports torch

    existing = {checkpoint.step_of(name): name for name in checkpoint.names(run)}  # the newest first
    folder = run.storage.display()
    if not existing:
        raise UserError(f"{folder} has no checkpoints: rerun without --resume-from")
    if step not in existing:
        raise UserError(f"{folder} has no checkpoint of step {step}: choose --resume-from {in_words(existing, 'or')}")
    checkpoint.load(run, existing[step])  # fails here and not after the others are deleted
    last = max([line["step"] for line in counted_lines(read_metrics(run.storage).lines)], default=step)
    later = [number for number in existing if number > step]
    run.storage.delete(RESULT, missing_ok=True)
    for number in later:
        run.storage.delete(existing[number])
    _choose_best(run)
    line = {"step": step, "resumed": True, "from": max([last, *later]), "changed": dict(changes)}
    content = run.storage.read(METRICS) if run.storage.exists(METRICS) else b""
    content = content[: content.rfind(b"\n") + 1]  # without a line that a killed worker did not complete
    run.storage.write(METRICS, content + json.dumps(line).encode() + b"\n")
    deleted = f"; deleted the checkpoints of steps {in_words(reversed(later), 'and')}" if later else ""
    say(f"{describe_return(line)}{deleted}")


def describe_return(line: MetricsLine) -> str:
    """Return in words what the line says that `go_back` writes to the metrics."""
    values = line["changed"] if isinstance(line.get("changed"), dict) else {}
    changed = [f"{option_name(name)}: {value[0]} -> {value[1]}" for name, value in values.items()]
    return f"went back from step {line['from']} to the checkpoint of step {line['step']}" + (
        f", {', '.join(changed)}" if changed else ""
    )


def in_words(steps: Iterable[int], last_word: str) -> str:
    """Return "1, 2 and 3" for steps."""
    *others, last = map(str, steps)
    return f"{', '.join(others)} {last_word} {last}" if others else last


def _choose_best(run: Run) -> None:
    """Let best.json name a checkpoint that remains: the best of those that were validated; none without one."""
    best = read_best(run.storage)
    if best is None or run.storage.exists(best["checkpoint"]):
        return
    if (best := best_of_metrics(run.storage)) is None:
        run.storage.delete(BEST)
    else:
        run.storage.write(BEST, json.dumps(best).encode() + b"\n")
