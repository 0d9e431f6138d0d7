"""Checkpoints: everything that is needed to resume a run exactly. A checkpoint is written completely or not at all, and
loading one never runs code (`weights_only=True`).

Compatibility: VERSION is the version of the content; this version reads checkpoints of version 1, which lgd 0.1 and
later write. It rises if the weights of an earlier version need a conversion, which `read` then does, or if earlier
versions of lgd would misread the content. A checkpoint contains the description of its run, which names the version of
lgd that wrote it."""

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
from lgd.training.run import CHECKPOINTS, Run, check_version

FORMAT = "lgd-checkpoint"
VERSION = 1
BEST = "best.json"


class CheckpointWriter:
    """Writes the checkpoints of a run in the background: training waits only for a copy to CPU memory.

    One checkpoint is written at a time. An error is raised by the next call."""

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
        """Return whether this validation top-1 is higher than that of the best checkpoint so far."""
        self._finish()
        previous = best(self._run)
        return previous is None or top1 > previous["val_top1"]

    def save(
        self, step: int, network: torch.nn.Module, optimizer: torch.optim.Optimizer, *, best_top1: float | None = None
    ) -> None:
        """Start to write the checkpoint after `step` steps; old checkpoints are deleted afterwards.

        best_top1: validation top-1 of this checkpoint, if it is the best one."""
        self._finish()
        self._last = time.monotonic()
        content = {
            "format": FORMAT,
            "version": VERSION,
            "run": json.dumps(self._run.description()),
            "step": step,
            "position": step * self._run.config.batch_size,  # of the next clip in the clip order
            "model": _copy_to_cpu(network.state_dict()),
            "optimizer": _copy_to_cpu(optimizer.state_dict()),
        }
        self._writing = self._pool.submit(self._write, content, best_top1)

    def close(self) -> None:
        """Wait until everything is written."""
        self._finish()
        self._pool.shutdown()

    def _finish(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, content: dict[str, Any], best_top1: float | None) -> None:
        storage, buffer = self._run.storage, io.BytesIO()
        torch.save(content, buffer)
        name = checkpoint_name(content["step"])
        storage.write(name, buffer.getvalue())
        if best_top1 is not None:
            storage.write(BEST, json.dumps({"checkpoint": name, "val_top1": best_top1}).encode() + b"\n")
        kept = best(self._run)
        for old in names(self._run)[self._run.config.checkpoint.keep :]:
            if kept is None or old != kept["checkpoint"]:
                storage.delete(old)


def best(run: Run) -> dict[str, Any] | None:
    """Return the name ("checkpoint") and validation top-1 ("val_top1") of the best checkpoint; None without one."""
    if not run.storage.exists(BEST):
        return None
    content: dict[str, Any] = json.loads(run.storage.read(BEST))
    return content


def _copy_to_cpu(state: Any) -> Any:
    """Return a copy of a state dict in CPU memory, which further training does not change."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _copy_to_cpu(value) for key, value in state.items()}
    return [_copy_to_cpu(value) for value in state] if isinstance(state, list) else state


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint after `step` steps, relative to the run folder."""
    return f"{CHECKPOINTS}/step-{step:08d}.pt"


def names(run: Run) -> list[str]:
    """Return the names of the run's checkpoints, the newest first."""
    files = [name for name in run.storage.names(CHECKPOINTS) if re.fullmatch(r"step-\d{8}\.pt", name)]
    return [f"{CHECKPOINTS}/{name}" for name in reversed(files)]


def load(run: Run, name: str) -> dict[str, Any]:
    """Return the content of a checkpoint of a run, on the CPU.

    Raises UserError, which names the file, if it is damaged or has different classes than the run."""
    content = read(run.storage, name)
    if checkpoint_classes(content) != run.classes:
        raise UserError(f"{run.storage.display(name)} has different classes than its run")
    return content


def checkpoint_classes(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the classes of a checkpoint's network."""
    return tuple(json.loads(content["run"])["data"]["classes"])


def read(storage: Storage, name: str) -> dict[str, Any]:
    """Return the content of a checkpoint file, on the CPU.

    Raises UserError, which names the file, if it is incomplete, not a checkpoint, or of another version."""
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
        raise UserError(f"{shown} is not a checkpoint of lgd")
    written_by = json.loads(content["run"]).get("lgd") if "run" in content else None
    version = content["version"]
    check_version(f"{shown} is a checkpoint", version, VERSION, written_by=written_by, otherwise="train again")
    return content


def load_latest(run: Run) -> dict[str, Any] | None:
    """Return the content of the newest valid checkpoint, on the CPU; None without one.

    Prints a message for each newer checkpoint that cannot be used."""
    for name in names(run):
        try:
            return load(run, name)
        except UserError as error:
            say(f"{error}: the checkpoint before it is used")
        except FileNotFoundError:  # deleted in the meantime by a training that is running
            continue
    return None
