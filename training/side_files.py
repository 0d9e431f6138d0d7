"""The small JSON files of a run folder: what its workers write for the driver, and for the workers that replace them.

None of them is needed to resume: the checkpoints are. A damaged one is therefore never an error of a training: `repair`
deletes it or writes it again, with a line, before the workers start, and the workers take it for missing."""

import dataclasses
import json
import re
from typing import Any, TypeVar

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.storage.checked_json import DamagedFile, check_range, read_json
from lgd.pipeline.storage.storage import Storage
from lgd.training.metrics_file import read_metrics
from lgd.training.run import CHECKPOINTS, ERROR, FAILURE, RESULT, STARTS, Run

BEST = "best.json"
CHECKPOINT_NAME = re.compile(rf"{CHECKPOINTS}/step-(\d{{8}})\.pt")

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Best:
    checkpoint: str
    val_top1: float

    def __post_init__(self) -> None:
        if not CHECKPOINT_NAME.fullmatch(self.checkpoint):
            raise UserError(f"field 'checkpoint' is {self.checkpoint[:60]!r}, must be the name of a checkpoint")
        check_range("val_top1", self.val_top1, 0, high=1)


@dataclasses.dataclass(frozen=True)
class Starts:
    """starts.json: starts of the workers of a launch since the newest checkpoint."""

    launch: str
    checkpoint: str
    starts: int

    def __post_init__(self) -> None:
        check_range("starts", self.starts, 1, high=1 << 20)


@dataclasses.dataclass(frozen=True)
class Message:
    """error.json and failure.json: the last error of a worker of a launch, one line."""

    launch: str
    message: str


def read_best(storage: Storage) -> dict[str, Any] | None:
    """Return the name ("checkpoint") and validation top-1 ("val_top1") of the best checkpoint; None without one.

    Raises DamagedFile, which names the field."""
    if not storage.exists(BEST):
        return None
    return dataclasses.asdict(read_json(_Best, storage.read(BEST), storage.display(BEST)))


def read_starts(storage: Storage) -> Starts | None:
    """Return the content of starts.json; None without a valid one."""
    return _read_valid(storage, STARTS, Starts)


def read_message(storage: Storage, name: str) -> Message | None:
    """Return the content of error.json or failure.json; None without a valid one."""
    return _read_valid(storage, name, Message)


def _read_valid(storage: Storage, name: str, kind: type[T]) -> T | None:
    try:
        return read_json(kind, storage.read(name), storage.display(name)) if storage.exists(name) else None
    except (DamagedFile, FileNotFoundError):  # deleted in the meantime
        return None


def repair(run: Run, steps: int) -> None:
    """Delete damaged files or write them again, with a line. run: one whose lock this command holds. steps: number of
    its steps, which its result must have."""
    storage = run.storage
    for name, kind in ((STARTS, Starts), (ERROR, Message), (FAILURE, Message)):
        try:
            if storage.exists(name):
                read_json(kind, storage.read(name), storage.display(name))
        except DamagedFile as error:
            say(f"{error}: it is deleted, training does not need it")
            storage.delete(name)
    if (problem := result_problem(run, steps)) is not None:
        say(f"{problem}: it is written again, after a validation of the last checkpoint")
        storage.delete(RESULT)
    try:
        read_best(storage)
    except DamagedFile as error:
        best = best_of_metrics(storage)
        if best is None:
            say(f"{error}: it is deleted, because no checkpoint is left that was validated")
            storage.delete(BEST)
        else:
            say(f"{error}: it is written again, {best['checkpoint']} has validation top-1 {best['val_top1']:.1%}")
            storage.write(BEST, json.dumps(best).encode() + b"\n")


def result_problem(run: Run, steps: int) -> str | None:
    """Return what is wrong with result.json, with its name; None for a valid one and without one.

    steps: number of steps of the run."""
    try:
        result = run.result()
    except DamagedFile as error:
        return str(error)
    if result is None or result["steps"] == steps:
        return None
    return f"{run.storage.display(RESULT)}: field 'steps' is {result['steps']}, must be {steps}"


def best_of_metrics(storage: Storage) -> dict[str, Any] | None:
    """Return the best checkpoint among those that exist, by the validations in the metrics; None if there is none."""
    existing = {f"{CHECKPOINTS}/{name}" for name in storage.names(CHECKPOINTS)}
    top1: dict[str, float] = {}
    for line in read_metrics(storage).lines:
        if "val_top1" in line and (name := f"{CHECKPOINTS}/step-{line['step']:08d}.pt") in existing:
            top1[name] = line["val_top1"]
    if not top1:
        return None
    name = max(top1, key=lambda name: top1[name])  # of equals the first one, as in training
    return {"checkpoint": name, "val_top1": top1[name]}
