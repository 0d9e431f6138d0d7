"""Checkpoints: everything needed to go on exactly, written whole or not at all, loaded without unpickling code."""

import io
import json
import pickle
import re
import zipfile
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.progress import say
from pipeline.storage import Storage
from training.run import Run

FORMAT = "lgd-checkpoint"
VERSION = 1
FOLDER = "checkpoints"


def save(run: Run, step: int, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """Writes the checkpoint after `step` steps and deletes those that are too many; returns its name."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "run": json.dumps(run.description()),
        "step": step,
        "position": step * run.config.batch,  # in the clip order: of the next clip
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    name = f"{FOLDER}/step-{step:08d}.pt"
    run.storage.write(name, buffer.getvalue())
    for old in names(run)[run.config.checkpoint.keep :]:
        run.storage.delete(old)
    return name


def names(run: Run) -> list[str]:
    """The run's checkpoints, the newest first."""
    found = [name for name in run.storage.names(FOLDER) if re.fullmatch(r"step-\d{8}\.pt", name)]
    return [f"{FOLDER}/{name}" for name in reversed(found)]


def load(run: Run, name: str) -> dict[str, Any]:
    """One checkpoint of a run, on the CPU. Raises UserError, naming it, if it is damaged or not this run's."""
    content = read(run.storage, name)
    if classes_of(content) != run.classes:
        raise UserError(f"{run.storage.show(name)} belongs to another list of classes")
    return content


def classes_of(content: dict[str, Any]) -> tuple[str, ...]:
    """The classes that a checkpoint's network tells apart."""
    return tuple(json.loads(content["run"])["data"]["classes"])


def read(storage: Storage, name: str) -> dict[str, Any]:
    """A checkpoint, on the CPU. Raises UserError, naming it, if it is cut short, foreign or of another version."""
    shown = storage.show(name)
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
    return None
