"""Checkpoints: everything needed to go on exactly, written whole or not at all, loaded without unpickling code."""

import io
import json
import pickle
import re
import time
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.storage.storage import Storage
from lgd.training.run import Run

FORMAT = "lgd-checkpoint"
VERSION = 1
FOLDER = "checkpoints"
BEST = "best.json"


class CheckpointWriter:
    """Writes a run's checkpoints while the training goes on: it waits only for a copy to the CPU's memory.

    One at a time; what goes wrong is raised by the next call."""

    def __init__(self, run: Run):
        self._run = run
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._last = time.monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since the last checkpoint, or since the start."""
        return time.monotonic() - self._last

    def is_best(self, top1: float) -> bool:
        """Whether no checkpoint has a better validation top-1."""
        self._finish()
        found = best(self._run)
        return found is None or top1 > found["val_top1"]

    def save(
        self, step: int, network: torch.nn.Module, optimizer: torch.optim.Optimizer, *, best_top1: float | None = None
    ) -> None:
        """Begins to write the checkpoint after `step` steps; afterwards those that are too many are deleted.

        best_top1: keep it as the best, with this validation top-1."""
        self._finish()
        self._last = time.monotonic()
        content = {
            "format": FORMAT,
            "version": VERSION,
            "run": json.dumps(self._run.description()),
            "step": step,
            "position": step * self._run.config.batch_size,  # in the clip order: of the next clip
            "model": _copied(network.state_dict()),
            "optimizer": _copied(optimizer.state_dict()),
        }
        self._writing = self._pool.submit(self._write, content, best_top1)

    def close(self) -> None:
        """Returns when everything is written."""
        self._finish()
        self._pool.shutdown()

    def _finish(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, content: dict[str, Any], best_top1: float | None) -> None:
        storage, buffer = self._run.storage, io.BytesIO()
        torch.save(content, buffer)
        name = name_of(content["step"])
        storage.write(name, buffer.getvalue())
        if best_top1 is not None:
            storage.write(BEST, json.dumps({"checkpoint": name, "val_top1": best_top1}).encode() + b"\n")
        kept = best(self._run)
        for old in names(self._run)[self._run.config.checkpoint.keep :]:
            if kept is None or old != kept["checkpoint"]:
                storage.delete(old)


def best(run: Run) -> dict[str, Any] | None:
    """Name and validation top-1 of the best checkpoint; None where nothing was validated yet."""
    return json.loads(run.storage.read(BEST)) if run.storage.exists(BEST) else None


def _copied(state: Any) -> Any:
    """A state dict on the CPU that further training does not change."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state


def name_of(step: int) -> str:
    """Of the checkpoint after `step` steps, in its run."""
    return f"{FOLDER}/step-{step:08d}.pt"


def names(run: Run) -> list[str]:
    """The run's checkpoints, the newest first."""
    found = [name for name in run.storage.names(FOLDER) if re.fullmatch(r"step-\d{8}\.pt", name)]
    return [f"{FOLDER}/{name}" for name in reversed(found)]


def load(run: Run, name: str) -> dict[str, Any]:
    """One checkpoint of a run, on the CPU. Raises UserError, naming it, if it is damaged or not this run's."""
    content = read(run.storage, name)
    if classes_of(content) != run.classes:
        raise UserError(f"{run.storage.display(name)} belongs to another list of classes")
    return content


def classes_of(content: dict[str, Any]) -> tuple[str, ...]:
    """The classes that a checkpoint's network tells apart."""
    return tuple(json.loads(content["run"])["data"]["classes"])


def read(storage: Storage, name: str) -> dict[str, Any]:
    """A checkpoint, on the CPU. Raises UserError, naming it, if it is cut short, foreign or of another version."""
    shown = storage.display(name)
    file = io.BytesIO(storage.read(name))
    if not zipfile.is_zipfile(file):
        raise UserError(f"{shown} is damaged or not a checkpoint")
    file.seek(0)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{shown} is damaged or not a checkpoint") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{shown} is not a checkpoint of this program")
    if content["version"] != VERSION:
        raise UserError(f"{shown} is of version {content['version']}, and this program reads version {VERSION}")
    return content


def load_latest(run: Run) -> dict[str, Any] | None:
    """The newest sound checkpoint, on the CPU; says which ones it had to pass over. None if there is none."""
    for name in names(run):
        try:
            return load(run, name)
        except UserError as error:
            say(f"{error}: the checkpoint before it is used")
        except FileNotFoundError:  # a training that goes on has just deleted it
            continue
    return None
