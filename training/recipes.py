"""Named configurations of training, as plain values; the command line overrides them field by field."""

import dataclasses
import difflib
import itertools
import math
import typing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.clip_order import Sampling
from lgd.pipeline.loading.transform import Transform
from lgd.training.models.config import ModelConfig, Variant


@dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent with momentum, and a learning rate that falls in steps."""

    lr: float = 0.01
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
    max_grad_norm: float | None = None
    """Largest norm of the gradient of a step; a longer one is shortened to it. Default: as it is."""


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
    """How many stay, besides the best by validation top-1; the one before the last in case the last is damaged."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run, whatever the number of its workers."""

    stream: Literal["rgb", "flow"] = "rgb"
    """Stream of the dataset that the network sees."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    init_from: str | None = None
    """Run folder or checkpoint to take the weights from: stage 2 from stage 1, long clips, another class list."""
    imagenet: str | None = None
    """File or URL (.pth, .safetensors) of an ImageNet ResNet in torchvision's names to take the weights from."""
    stride: int = 1
    """Step from one frame of a clip to the next, in frames of the dataset."""
    transform: Transform = field(default_factory=Transform)
    """Crop, mirroring, normalization and augmentation."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How the weights change."""
    batch_size: int = 64
    """Clips in the global batch, over all workers together."""
    micro_batch_size: int | None = None
    """Most clips that a worker computes at once; a larger share is cut up and the gradients are summed. Batch
    normalization sees the part. Default: the whole share."""
    freeze_normalization: bool = False
    """Batch normalization with the running statistics that the weights came with, unchanged: what becomes of a clip
    then does not depend on its batch."""
    compile: bool = False
    """Compile the network with torch.compile: minutes at the start of every worker, then faster steps."""
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
    skip_damaged: bool = False
    """Leave clips with damaged frames out of their batches, counted in the log, instead of stopping."""
    seed: int = 0
    """Seed of the initial weights and the clip order."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "test_clips", "micro_batch_size"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} must be more than 0, not {getattr(self, name)}")

    @property
    def sampling(self) -> Sampling:
        """Which frames make a clip: consecutive ones for 3D networks, one of each segment for 2D ones."""
        return Sampling(self.model.clip_frames, self.stride, segments=not self.model.family.temporal)

    def steps(self, videos: int) -> int:
        """Steps of the whole training on a split of that many videos."""
        return math.ceil(self.epochs * videos / self.batch_size)

    def learning_rate(self, step: int, videos: int) -> float:
        """Learning rate at a step: a function of the clips seen, not of the workers."""
        optimizer = self.optimizer
        epoch = step * self.batch_size / videos
        warm = min((epoch + self.batch_size / videos) / optimizer.warmup, 1.0) if optimizer.warmup else 1.0
        return optimizer.lr * warm / optimizer.drop_factor ** int(epoch / optimizer.drop_every)


def _paper(stream: Literal["rgb", "flow"], model: str) -> TrainConfig:
    """16 frames, from scratch, stage 1, as the paper trains."""
    return TrainConfig(stream=stream, model=ModelConfig(name=model), precision="bfloat16")


def _com(stage1: TrainConfig) -> TrainConfig:
    """Stage 2, the combination classifier: the whole network tuned. The paper gives no schedule; ours is a short one
    at half the rate: at a tenth, the new layer on sketches of length 1 hardly leaves its start."""
    return replace(
        stage1,
        model=replace(stage1.model, stage=2),
        optimizer=OptimizerConfig(lr=stage1.optimizer.lr / 2, drop_every=5.0),
        epochs=12.5,
    )


def _long(stage1: TrainConfig) -> TrainConfig:
    """Clips of 128 frames, 16 a batch, 12.5 epochs with the rate falling every 5, from a run of 16 frames."""
    return replace(
        stage1,
        model=replace(stage1.model, frames=128, checkpoint_activations=True),
        optimizer=OptimizerConfig(drop_every=5.0),
        batch_size=16,
        epochs=12.5,
    )


def _lgd2d(stage1: TrainConfig, depth: str) -> TrainConfig:
    """3 snippets of one frame, 224 x 224 crops of frames of short side 240, 128 triples a batch; tested on 10."""
    model, transform = replace(stage1.model, name=f"lgd2d_{depth}"), replace(stage1.transform, crop=224)
    return replace(stage1, model=model, transform=transform, batch_size=128, test_clips=10)


def _of_the_paper() -> dict[str, TrainConfig]:
    """Recipes by name: <dataset>-<stream>-<depth>, then -com (stage 2), -long, -lgd2d, and the ablation's blocks: -none
    (no diffusion), -v1, -v2.

    -com and -long need --init-from, the run of the recipe without the suffix."""
    recipes: dict[str, TrainConfig] = {}
    streams: tuple[Literal["rgb", "flow"], ...] = ("rgb", "flow")
    for dataset, stream, depth in itertools.product(("kinetics400", "kinetics600"), streams, ("r50", "r101")):
        name, stage1 = f"{dataset}-{stream}-{depth}", _paper(stream, f"lgd3d_{depth}")
        recipes |= {name: stage1, f"{name}-com": _com(stage1), f"{name}-long": _long(stage1)}
        recipes[f"{name}-lgd2d"] = _lgd2d(stage1, depth)
        variants: tuple[Variant, ...] = ("none", "v1", "v2")
        recipes |= {f"{name}-{v}": replace(stage1, model=replace(stage1.model, variant=v)) for v in variants}
    return recipes


def _nano(stream: Literal["rgb", "flow"]) -> TrainConfig:
    """A small network that learns small data sets from scratch on a laptop's processor within minutes.

    Every second frame: an action of a second fits into 16 of them. Few people in few places: without the jitter the
    RGB network learns their looks, and is sure of it on people that it has not seen."""
    return TrainConfig(
        stream=stream,
        model=ModelConfig(name="lgd3d_nano"),
        stride=2,
        transform=Transform(crop=64, color_jitter=0.4 if stream == "rgb" else 0.0),
        optimizer=OptimizerConfig(lr=0.02, warmup=4.0, drop_every=30.0),
        batch_size=8,  # of few videos an epoch then still has steps
        epochs=40.0,
        validation=ValidationConfig(every=10.0),
        checkpoint=CheckpointConfig(every_s=20.0),
    )


def _nano_com(stage1: TrainConfig) -> TrainConfig:
    """Stage 2 of the small network; sketches of 8192 numbers would cost a processor more than the network itself."""
    com = _com(stage1)
    optimizer = replace(com.optimizer, drop_every=15.0)
    return replace(com, model=replace(com.model, sketch_dimension=1024), optimizer=optimizer, epochs=20.0)


RECIPES: dict[str, TrainConfig] = {
    **_of_the_paper(),
    "nano-rgb": _nano("rgb"),
    "nano-flow": _nano("flow"),
    "nano-rgb-com": _nano_com(_nano("rgb")),
    "nano-flow-com": _nano_com(_nano("flow")),
}


# What a two-stream result is made of: the recipes of each stream, each starting from the run of the one before it.
REPRODUCTIONS: dict[str, tuple[str, ...]] = {
    "nano": ("nano-{stream}",),
    "nano-com": ("nano-{stream}", "nano-{stream}-com"),
    **{
        f"{dataset}-{depth}-{last}": (f"{dataset}-{{stream}}-{depth}", f"{dataset}-{{stream}}-{depth}-{last}")
        for dataset, depth, last in itertools.product(("kinetics400", "kinetics600"), ("r50", "r101"), ("com", "long"))
    },
}


def recipe_named(name: str) -> TrainConfig:
    """Raises UsageError, naming the nearest ones, for a recipe that does not exist."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4) or list(RECIPES)
        raise UsageError(f"no recipe is called {name!r}; did you mean {' or '.join(near)}?")
    return RECIPES[name]


def recipe_defaults(words: list[str]) -> dict[str, Any]:
    """What the first of the words of a command, its recipe, makes of the defaults of the options after it.

    Raises UsageError where something else comes first."""
    if not words or words[0] in ("-h", "--help"):
        return {}
    if words[0].startswith("-"):
        raise UsageError(f"the recipe comes first: RECIPE {words[0]} ...")
    return {"config": recipe_named(words[0])}


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of a configuration by the names that the command line gives them, `optimizer.lr`."""
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
