"""Checkpoints: everything that is needed to resume a run exactly. A checkpoint is written completely or not at all, and
loading one never runs code (`weights_only=True`).

Compatibility: VERSION is the version of the content; this version reads checkpoints of version 1, which lgd 0.1 and
later write. It rises if the weights of an earlier version need a conversion, which `read` then does, or if earlier
versions of lgd would misread the content. A checkpoint contains the description of its run, which names the version of
lgd that wrote it.

Damage: the file has a CRC-32 of every tensor, which is compared when it is read, see `torch_file`; a forged one can
have any content, so that types, sizes and numbers are checked as well. Weights that are NaN or infinite are never
used."""

import io
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from lgd.pipeline.console.errors import StoreError, UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.storage.checked_json import DamagedFile, read_json
from lgd.pipeline.storage.storage import Storage
from lgd.training.run import CHECKPOINTS, MAX_STEP, Run, check_version
from lgd.training.side_files import BEST as BEST
from lgd.training.side_files import read_best
from lgd.training.steps.optimizer import load_optimizer
from lgd.training.torch_file import check_tensors, load_torch_file

FORMAT = "lgd-checkpoint"
VERSION = 1


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
    """Return the name ("checkpoint") and validation top-1 ("val_top1") of the best checkpoint; None without one.

    Raises DamagedFile, which names the field."""
    return read_best(run.storage)


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


def step_of(name: str) -> int:
    """Return the step of a checkpoint name."""
    return int(name.rpartition("-")[2].removesuffix(".pt"))


def names(run: Run) -> list[str]:
    """Return the names of the run's checkpoints, the newest first."""
    files = [name for name in run.storage.names(CHECKPOINTS) if re.fullmatch(r"step-\d{8}\.pt", name)]
    return [f"{CHECKPOINTS}/{name}" for name in reversed(files)]


def load(run: Run, name: str, *, resume: bool = True) -> dict[str, Any]:
    """Return the content of a checkpoint of a run, on the CPU.

    resume: check the state of the optimizer as well, which only a training needs. Raises UserError, which names the
    file, if it is damaged, contains NaN or infinite numbers, or has different classes or another step than the run and
    its name say."""
    content, shown = read(run.storage, name), run.storage.display(name)
    if checkpoint_classes(content) != run.classes:
        raise UserError(f"{shown} has different classes than its run")
    if name != checkpoint_name(content["step"]):
        raise DamagedFile(f"{shown} is damaged or was renamed: it is the checkpoint of step {content['step']}")
    if content["position"] != content["step"] * run.config.batch_size:
        raise DamagedFile(f"{shown} is damaged: its position {content['position']} is not that of its step")
    if resume:
        _check_optimizer(content.get("optimizer"), run.storage.size(name) or 0, shown)
    return content


def _check_optimizer(state: Any, size: int, shown: str) -> None:
    """Raise DamagedFile unless this is the state dict of an SGD optimizer, of finite numbers."""
    fault = DamagedFile(f"{shown} is damaged: it does not contain the state of an optimizer")
    if not isinstance(state, dict) or not isinstance(state.get("state"), dict):
        raise fault
    groups = state.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise fault
    for number, values in state["state"].items():
        if not isinstance(values, dict):
            raise fault
        buffers = {f"{name} {number}": value for name, value in values.items() if value is not None}
        check_tensors(buffers, size, shown, what="state of the optimizer")


def restore(run: Run, content: dict[str, Any], network: torch.nn.Module, *, optimizer: torch.optim.Optimizer) -> None:
    """Load a checkpoint of `load` into the network and the optimizer of the run.

    Raises UserError if it was made by a different network. The options of the optimizer stay those of the run."""
    problem = UserError(
        f"{run.storage.display(checkpoint_name(content['step']))} does not match the network of its run: delete it, "
        "and rerun to resume from the checkpoint before it"
    )
    try:
        network.load_state_dict(content["model"])
        if any(content["model"][name].dtype != value.dtype for name, value in network.state_dict().items()):
            raise problem
        load_optimizer(optimizer, content["optimizer"])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise problem from error
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for value in optimizer.state.get(parameter, {}).values():
                if value is not None and (value.shape != parameter.shape or value.dtype != parameter.dtype):
                    raise problem


def checkpoint_classes(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the classes of a checkpoint's network."""
    return _origin(content, "checkpoint").data.classes


def checkpoint_stream(content: dict[str, Any]) -> str | None:
    """Return the stream of a checkpoint's network."""
    stream = _origin(content, "checkpoint").config.get("stream")
    return stream if isinstance(stream, str) else None


@dataclass(frozen=True)
class _Data:
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _Origin:
    """What is used of the description of its run in a checkpoint."""

    data: _Data
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Writer:
    lgd: str | None = None


def _origin(content: dict[str, Any], shown: str) -> _Origin:
    if not isinstance(content.get("run"), str):
        raise DamagedFile(f"{shown} is damaged: field 'run' is missing")
    return read_json(_Origin, content["run"].encode("utf-8", "replace"), shown)


def read(storage: Storage, name: str) -> dict[str, Any]:
    """Return the content of a checkpoint file, on the CPU.

    The weights are tensors of finite numbers, the step and the position are numbers, the optimizer is not checked.
    Raises UserError, which names the file, if it is damaged, not a checkpoint, or of another version."""
    shown = storage.display(name)
    with storage.open_whole(name) as file:
        size = file.size()
        content = load_torch_file(file, shown)
    if not isinstance(content, dict) or not isinstance(content.get("format"), str) or content["format"] != FORMAT:
        raise UserError(f"{shown} is not a checkpoint of lgd")
    described = isinstance(content.get("run"), str)
    written_by = read_json(_Writer, content["run"].encode("utf-8", "replace"), shown).lgd if described else None
    version = content.get("version")
    if not isinstance(version, int):
        raise DamagedFile(f"{shown} is damaged: field 'version' is missing")
    check_version(f"{shown} is a checkpoint", version, VERSION, written_by=written_by, otherwise="train again")
    _origin(content, shown)
    for entry, limit in (("step", MAX_STEP), ("position", 1 << 62)):
        value = content.get(entry)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
            raise DamagedFile(f"{shown} is damaged: field {entry!r} is {str(value)[:20]}")
    if not isinstance(content.get("model"), dict) or not all(isinstance(key, str) for key in content["model"]):
        raise DamagedFile(f"{shown} is damaged: field 'model' does not contain weights by name")
    check_tensors(content["model"], size, shown)
    return content


def load_latest(run: Run, *, resume: bool = True, report: Callable[[str], None] = say) -> dict[str, Any] | None:
    """Return the content of the newest valid checkpoint, on the CPU; None without one.

    resume: see `load`. report: called with a line for each newer checkpoint that cannot be used; prints it by
    default."""
    existing = names(run)
    for name in existing:
        try:
            return load(run, name, resume=resume)
        except StoreError:
            raise
        except UserError as error:
            report(f"{error}: " + ("there is none before it" if name == existing[-1] else "the one before it is used"))
        except FileNotFoundError:  # deleted in the meantime by a training that is running
            continue
    return None
