"""Named configurations of training, as plain values; the command line overrides them field by field."""

import dataclasses
import difflib
import math
import typing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipeline.errors import UsageError
from pipeline.order import Sampling
from pipeline.transform import Transform
from training.models.config import ModelConfig


@dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent with momentum, and a learning rate that falls in steps."""

    rate: float = 0.01
    """Learning rate at the start."""
    warmup: float = 0.0
    """Epochs over which the rate rises linearly from 0."""
    drop_every: float = 20.0
    """Epochs after which the rate is divided by drop_factor, each time."""
    drop_factor: float = 10.0
    """What the rate is divided by."""
    momentum: float = 0.9
    """Momentum."""
    weight_decay: float = 1e-4
    """Weight decay, of all parameters."""


@dataclass(frozen=True)
class ValidationConfig:
    """Validation while training: whole frames, uniform clips, spread over the workers."""

    split: str = "val"
    """Split of the dataset; nothing is validated where the dataset lacks it."""
    every: float = 1.0
    """Epochs between validations; 0 for none but the last."""
    clips: int = 1
    """Clips a video."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written, and how many stay."""

    every_s: float = 60.0
    """Seconds of training that a crash may cost; there is one at the end as well."""
    keep: int = 2
    """How many stay; the one before the last is there in case the last is damaged."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run, whatever the number of its workers."""

    stream: Literal["rgb", "flow"] = "rgb"
    """Stream of the dataset that the network sees."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    stride: int = 1
    """Step from one frame of a clip to the next, in frames of the dataset."""
    transform: Transform = field(default_factory=Transform)
    """Crop, mirroring and normalisation."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How the weights change."""
    batch: int = 64
    """Clips in the global batch, over all workers together."""
    epochs: float = 50.0
    """Times that every video is drawn."""
    test_clips: int = 15
    """Uniform clips a video in `lgd evaluate`, unless it says otherwise."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network; bfloat16 is autocast with float32 weights."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """When the validation split is looked at."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When checkpoints are written."""
    seed: int = 0
    """Seed of the initial weights and the clip order."""

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "test_clips"):
            if getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} must be more than 0, not {getattr(self, name)}")

    @property
    def sampling(self) -> Sampling:
        """Which frames make a clip: consecutive ones for 3D networks, one of each segment for 2D ones."""
        return Sampling(self.model.clip_frames, self.stride, segments=not self.model.family.temporal)

    def steps(self, videos: int) -> int:
        """Steps of the whole training on a split of that many videos."""
        return math.ceil(self.epochs * videos / self.batch)

    def rate(self, step: int, videos: int) -> float:
        """Learning rate at a step: a function of the clips seen, not of the workers."""
        optimizer = self.optimizer
        epoch = step * self.batch / videos
        warm = min((epoch + self.batch / videos) / optimizer.warmup, 1.0) if optimizer.warmup else 1.0
        return optimizer.rate * warm / optimizer.drop_factor ** int(epoch / optimizer.drop_every)


def _paper(stream: Literal["rgb", "flow"], model: str) -> TrainConfig:
    """The paper's section 4.2: 16 frames, from scratch, stage 1."""
    return TrainConfig(stream=stream, model=ModelConfig(name=model), precision="bfloat16")


def _nano(stream: Literal["rgb", "flow"]) -> TrainConfig:
    """A small network that learns small data sets from scratch on a laptop's processor within minutes."""
    return TrainConfig(
        stream=stream,
        model=ModelConfig(name="lgd3d_nano"),
        transform=Transform(crop=64),
        optimizer=OptimizerConfig(rate=0.02, warmup=5.0, drop_every=45.0),
        batch=16,
        epochs=60.0,
        validation=ValidationConfig(every=10.0),
        checkpoint=CheckpointConfig(every_s=20.0),
    )


RECIPES: dict[str, TrainConfig] = {
    "kinetics400-rgb-r50": _paper("rgb", "lgd3d_r50"),
    "kinetics400-flow-r50": _paper("flow", "lgd3d_r50"),
    "nano-rgb": _nano("rgb"),
    "nano-flow": _nano("flow"),
}


def recipe_named(name: str) -> TrainConfig:
    """Raises UsageError, naming the nearest ones, for a recipe that does not exist."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4) or list(RECIPES)
        raise UsageError(f"no recipe is called {name!r}; did you mean {' or '.join(near)}?")
    return RECIPES[name]


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of a configuration by the names that the command line gives them, `optimizer.rate`."""
    flat: dict[str, Any] = {}
    for name, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config)):
        flat |= flatten(value, f"{prefix}{name}.") if dataclasses.is_dataclass(value) else {prefix + name: value}
    return flat


def unflatten(config: Any, flat: dict[str, Any]) -> Any:
    """The configuration with the fields of `flatten`, here from JSON, in the place of its own.

    Raises KeyError for a field that is missing."""
    changes: dict[str, Any] = {}
    hints = typing.get_type_hints(type(config))
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            inner = {name.partition(".")[2]: v for name, v in flat.items() if name.startswith(f.name + ".")}
            changes[f.name] = unflatten(value, inner)
        else:
            given = flat[f.name]
            origin = typing.get_origin(hints[f.name])
            changes[f.name] = tuple(given) if origin is tuple else given
    return replace(config, **changes)
