"""A run folder: what was asked for, the checkpoints, the metrics and the result.

RUN/
  config.json        the recipe's name, every field of the configuration, and the data that it belongs to: its classes,
                     and everything that decides the bytes of its stream, so that other videos can be made alike
  checkpoints/       step-00000150.pt ...
  best.json          which of them was best on the validation split
  metrics.jsonl      a line each few seconds, and one a validation
  tensorboard/
  result.json        written last: a run with a result is finished
"""

import json
from dataclasses import dataclass
from typing import Any

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, StreamSpec
from lgd.pipeline.storage.storage import Storage
from lgd.training.recipes import TrainConfig, flatten, unflatten

FORMAT = "lgd-run"
VERSION = 2
CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
ERROR, FAILURE, STARTS = "error.json", "failure.json", "starts.json"  # what workers tell the driver, and each other


@dataclass(frozen=True)
class Run:
    """An opened run folder.

    stream_recipe: of the dataset's stream that it was trained on. fingerprint: of the dataset's videos."""

    storage: Storage
    recipe: str
    config: TrainConfig
    classes: tuple[str, ...]
    stream_spec: StreamSpec
    fingerprint: str

    @property
    def spec_hash(self) -> str:
        """Hash of the recipe of the dataset's stream."""
        return self.stream_spec.hash

    def result(self) -> dict[str, Any] | None:
        """What the finished run reached; None while it is not finished."""
        return json.loads(self.storage.read(RESULT)) if self.storage.exists(RESULT) else None

    def description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "recipe": self.recipe,
            "config": flatten(self.config),
            "data": {
                "hash": self.spec_hash,
                "recipe": dict(self.stream_spec.settings),
                "fingerprint": self.fingerprint,
                "classes": list(self.classes),
            },
        }


def begin_run(folder: str, recipe: str, config: TrainConfig, *, dataset: Dataset) -> Run:
    """Makes the run folder, or opens the one that is there to go on with it.

    Raises UserError if it belongs to another configuration or other data, naming what differs."""
    storage = Storage(folder)
    data = dataset.spec(config.stream)
    run = Run(storage, recipe, config, dataset.classes, data, dataset.fingerprint)
    if storage.exists(CONFIG):
        there = open_run(folder)
        differences = [
            f"{name}: {there_value} -> {flatten(config)[name]}"
            for name, there_value in flatten(there.config).items()
            if there_value != flatten(config)[name]
        ]
        if (there.spec_hash, there.fingerprint, there.classes) != (data.hash, dataset.fingerprint, dataset.classes):
            differences.append("another dataset")
        if differences:
            raise UserError(
                f"{folder} belongs to another configuration ({'; '.join(differences)}): "
                "give the same options to go on with it, or another --run folder"
            )
        return there
    if storage.names():
        raise UserError(f"{folder} holds other files and is not a run: choose another --run folder")
    storage.make_folder("checkpoints")
    storage.write(CONFIG, json.dumps(run.description(), indent=2).encode() + b"\n")
    return run


def open_run(folder: str) -> Run:
    """Opens a run folder. Raises UserError if it is missing, not a run, or of another version."""
    storage = Storage(folder)
    if not storage.exists(CONFIG):
        raise UserError(f"{folder} is not a run (it has no {CONFIG}): make one with `lgd train RECIPE --run {folder}`")
    try:
        description = json.loads(storage.read(CONFIG))
        if (description["format"], description["version"]) != (FORMAT, VERSION):
            raise UserError(
                f"{folder} is a run of version {description['version']}, and this program reads version {VERSION}: "
                "train again, or use the program that wrote it"
            )
        data = description["data"]
        config = unflatten(TrainConfig(), description["config"])
        made = StreamSpec(config.stream, dict(data["recipe"]))
        if made.hash != data["hash"]:
            raise ValueError("the settings of its stream do not have the hash beside them")
        return Run(storage, description["recipe"], config, tuple(data["classes"]), made, data["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{storage.display(CONFIG)} does not describe a run ({error!r}): choose another --run"
        ) from error
