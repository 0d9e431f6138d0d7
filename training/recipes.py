"""Recipes: named training configurations. The options of `lgd train` override their fields one by one.

Compatibility: runs of earlier versions are read with these classes, see `lgd.training.config_file`. A new field needs a
default that does what earlier versions did; a renamed field needs an entry in RENAMED_FIELDS there."""

import difflib
import itertools
import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from tyro.conf import arg

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.clip_order import Sampling
from lgd.pipeline.loading.transform import Transform
from lgd.training.config_file import option_name
from lgd.training.models.config import FreezeUntil, ModelConfig, Switch, Variant

StreamName = Literal["rgb", "flow"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent with momentum. The learning rate falls in steps."""

    lr: float = 0.01
    """Initial learning rate."""
    warmup: float = 0.0
    """Epochs in which the learning rate rises linearly from 0."""
    drop_every: float = 20.0
    """Epochs between two drops of the learning rate."""
    drop_factor: float = 10.0
    """Each drop divides the learning rate by this."""
    momentum: float = 0.9
    """Momentum."""
    weight_decay: float = 1e-4
    """Weight decay of all parameters."""
    max_grad_norm: float | None = None
    """Maximum norm of the gradient of a step; a larger gradient is scaled down to it. Default: no maximum."""
    head_factor: float = 1.0
    """Heads that start with new weights, because the initial weights have none for these classes, have the learning
    rate times this."""

    def __post_init__(self) -> None:
        if not 0 < self.head_factor < math.inf:
            raise UsageError(f"{option_name('optimizer.head_factor')} must be more than 0, not {self.head_factor:g}")


@dataclass(frozen=True)
class ValidationConfig:
    """Validation during training: uniform clips, full frames, divided over the workers."""

    split: str = "val"
    """Split that is validated. A dataset without this split is not validated; "" validates nothing."""
    every: float = 1.0
    """Epochs between validations. 0: only at the end."""
    clips: int = 1
    """Clips per video."""


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and how many are kept."""

    every_s: float = 60.0
    """Seconds of training between checkpoints: what a crash can cost. One more is written at the end."""
    keep: int = 2
    """Newest checkpoints that are kept, in addition to the best one by validation top-1. With 2 or more, a damaged
    checkpoint can be replaced by the one before it."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run, except the number of workers, which does not change the result."""

    stream: StreamName = "rgb"
    """Stream of the dataset that the network is trained on."""
    split: str = "train"
    """Split that the network is trained on: one of the shards or of splits.parquet; `lgd splits` lists them."""
    classes: Annotated[str | None, arg(metavar="FILE")] = None
    """Text file with one class name per line: train on the videos of these classes only, with the labels in this order.
    The run keeps the list. Default: all classes of the dataset."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Network."""
    init_from: str | None = None
    """Run folder or checkpoint with the initial weights: for stage 2, long clips or different classes."""
    imagenet: str | None = None
    """File or URL (.pth, .safetensors) with the initial weights: an ImageNet ResNet with torchvision's names."""
    freeze_until: FreezeUntil = "none"
    """The first part of the network that is trained; the parts before it keep their initial weights and running
    statistics. none: everything is trained. res2 to res5: this stage, the stages after it and the heads. heads: only
    the heads, a linear probe."""
    stride: int = 1
    """Step between two frames of a clip, in frames of the dataset."""
    transform: Transform = field(default_factory=Transform)
    """Crop, mirroring, normalization and augmentation."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and learning rate."""
    batch_size: int = 64
    """Clips per step over all workers (global batch)."""
    micro_batch_size: int | None = None
    """Maximum clips that a worker computes at the same time. A larger share of the batch is computed in several parts
    whose gradients are summed. Each part holds complete normalization groups. Default: no maximum."""
    freeze_normalization: bool = False
    """Use the running statistics of the initial weights for batch normalization and do not update them. The result for
    a clip then does not depend on the other clips of its batch."""
    normalization_group: int = 0
    """Clips whose statistics batch normalization uses together: consecutive clips of the global batch, on any number of
    workers. 0: all clips that a worker computes at the same time, so the result depends on the number of workers."""
    compile: Switch = "auto"
    """Compile the blocks of the network with torch.compile. Each worker needs minutes to start; its steps are faster.
    auto: on a GPU, if Triton and a C compiler are installed."""
    cuda_graph: Switch = "auto"
    """Launch the kernels of a step as one CUDA graph, which is faster for few clips. auto: for at most 16 clips a
    worker, where it is possible."""
    epochs: float = 50.0
    """Epochs of training: how often each video is used."""
    test_clips: int = 15
    """Default of --clips in `lgd evaluate`: uniform clips per video."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network; bfloat16 means autocast with float32 weights."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Validation."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    skip_damaged: bool = False
    """Leave out clips with damaged frames and count them in the metrics. Default: stop with an error."""
    seed: int = 0
    """Seed of the initial weights and of the clip order."""

    def __post_init__(self) -> None:
        if self.normalization_group < 0:
            raise UsageError(f"{option_name('normalization_group')} must be 0 or more, not {self.normalization_group}")
        for name in ("batch_size", "epochs", "test_clips", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{option_name(name)} must be more than 0, not {value}")

    @property
    def sampling(self) -> Sampling:
        """Frames of a clip: consecutive frames for 3D networks, one frame of each segment for 2D networks."""
        return Sampling(self.model.clip_frames, self.stride, segments=not self.model.family.temporal)

    @property
    def statistics_group(self) -> int:
        """Clips whose statistics are used together. 0: no groups, also if batch normalization uses no statistics."""
        return 0 if self.freeze_normalization or self.freeze_until == "heads" else self.normalization_group

    @property
    def micro_batch_is_free(self) -> bool:
        """Whether the result does not depend on the size of the micro-batches, so that a run may change it."""
        return self.freeze_normalization or self.normalization_group > 0

    def check_micro_batches(self) -> None:
        """Raise UsageError for micro-batches that cannot hold complete normalization groups."""
        group, size = self.statistics_group, self.micro_batch_size
        if group and size and size < self.batch_size and size % group:
            fitting = range(group, self.batch_size, group)
            sizes = ", ".join([*map(str, fitting[:3]), *(["..."] if len(fitting) > 3 else [])]) or "none fits"
            raise UsageError(
                f"{option_name('micro_batch_size')} {size} does not hold complete groups of "
                f"{option_name('normalization_group')} {group}: use a multiple of {group} ({sizes}) or a smaller group"
            )

    def steps(self, videos: int) -> int:
        """Return the number of training steps on a split with this number of videos."""
        return math.ceil(self.epochs * videos / self.batch_size)

    def learning_rate(self, step: int, videos: int) -> float:
        """Return the learning rate of a step. It depends on the clips seen so far, not on the number of workers."""
        optimizer = self.optimizer
        epoch = step * self.batch_size / videos
        warmup = min((epoch + self.batch_size / videos) / optimizer.warmup, 1.0) if optimizer.warmup else 1.0
        return optimizer.lr * warmup / optimizer.drop_factor ** int(epoch / optimizer.drop_every)


def _paper(stream: StreamName, model: str) -> TrainConfig:
    """Stage 1 of the paper: 16 frames, from scratch."""
    return TrainConfig(stream=stream, model=ModelConfig(name=model), normalization_group=16, precision="bfloat16")


def _com(stage1: TrainConfig) -> TrainConfig:
    """Stage 2, the combination classifier; the complete network is trained.

    The paper gives no schedule. Ours is short, with half the learning rate: with a tenth of it, the new layer, whose
    inputs are sketches of length 1, hardly changes."""
    return replace(
        stage1,
        model=replace(stage1.model, stage=2),
        optimizer=OptimizerConfig(lr=stage1.optimizer.lr / 2, drop_every=5.0),
        epochs=12.5,
    )


def _long(stage1: TrainConfig) -> TrainConfig:
    """Long clips: 128 frames, 16 clips per batch, 12.5 epochs, a drop every 5 epochs, from a run with 16 frames."""
    return replace(
        stage1,
        model=replace(stage1.model, frames=128),
        optimizer=OptimizerConfig(drop_every=5.0),
        batch_size=16,
        epochs=12.5,
    )


def _lgd2d(stage1: TrainConfig, depth: str) -> TrainConfig:
    """LGD-2D: 3 snippets of one frame, 224 x 224 crops of frames with short side 240, 128 triples per batch, tested
    with 10 triples per video."""
    model, transform = replace(stage1.model, name=f"lgd2d_{depth}"), replace(stage1.transform, crop=224)
    return replace(stage1, model=model, transform=transform, batch_size=128, test_clips=10)


def _paper_recipes() -> dict[str, TrainConfig]:
    """Recipes of the paper by name: <dataset>-<stream>-<depth>, optionally followed by -com (stage 2), -long (128
    frames), -lgd2d, or a block variant of the ablation: -none (no diffusion), -v1, -v2.

    -com and -long need --init-from with a run of the recipe without this suffix."""
    recipes: dict[str, TrainConfig] = {}
    streams: tuple[StreamName, ...] = ("rgb", "flow")
    variants: tuple[Variant, ...] = ("none", "v1", "v2")
    for dataset, stream, depth in itertools.product(("kinetics400", "kinetics600"), streams, ("r50", "r101")):
        name, stage1 = f"{dataset}-{stream}-{depth}", _paper(stream, f"lgd3d_{depth}")
        recipes |= {name: stage1, f"{name}-com": _com(stage1), f"{name}-long": _long(stage1)}
        recipes[f"{name}-lgd2d"] = _lgd2d(stage1, depth)
        recipes |= {f"{name}-{v}": replace(stage1, model=replace(stage1.model, variant=v)) for v in variants}
    return recipes


def _fine_tuned(stream: StreamName, model: str) -> TrainConfig:
    """UCF101 and HMDB51: stage 1, from a Kinetics run of the same stream and depth. The paper gives no settings.

    lr, drop_every, epochs: a tenth of the paper's rate, as TSN and TSM have it, divided by 10 every 40 of 100 epochs.
    An epoch uses each video once; R(2+1)D used 84 to 90 clips of each.
    batch_size, momentum: the paper's. weight_decay, max_grad_norm: TSN's for these datasets, which are small.
    freeze_normalization: the statistics of Kinetics are of many more videos; TSN and P3D freeze them, too.
    dropout: 0.8 before each head, as TSN and TSM for RGB; the authors' code of 2022 has 0.9.
    head_factor: new heads learn ten times as fast as the other layers, as in P3D by the same author.
    validation: none, because the lists have no validation split; the last checkpoint is scored."""
    return replace(
        _paper(stream, model),
        model=ModelConfig(name=model, dropout=0.8),
        optimizer=OptimizerConfig(lr=0.001, drop_every=40.0, weight_decay=5e-4, max_grad_norm=40.0, head_factor=10.0),
        freeze_normalization=True,
        epochs=100.0,
        validation=ValidationConfig(split=""),
    )


def _fine_tuned_com(stage1: TrainConfig) -> TrainConfig:
    """Stage 2 from the fine-tuned stage 1: as for Kinetics, half the rate and a quarter of the epochs."""
    optimizer = replace(stage1.optimizer, lr=stage1.optimizer.lr / 2, drop_every=stage1.optimizer.drop_every / 4)
    return replace(_com(stage1), optimizer=optimizer, epochs=stage1.epochs / 4)


def _fine_tuning_recipes() -> dict[str, TrainConfig]:
    """Recipes by name: <dataset>-<stream>-<depth>, and with -com stage 2 from the run of the recipe without it. All
    need --init-from."""
    recipes: dict[str, TrainConfig] = {}
    streams: tuple[StreamName, ...] = ("rgb", "flow")
    for dataset, stream, depth in itertools.product(("ucf101", "hmdb51"), streams, ("r50", "r101")):
        name, stage1 = f"{dataset}-{stream}-{depth}", _fine_tuned(stream, f"lgd3d_{depth}")
        recipes |= {name: stage1, f"{name}-com": _fine_tuned_com(stage1)}
    return recipes


def _nano(stream: StreamName) -> TrainConfig:
    """A small network that learns small datasets from scratch on a CPU within minutes.

    It uses every second frame, so that a clip of 16 frames contains an action of one second. Small datasets show few
    people in few places: without color jitter the RGB network learns what they look like, and it is confident and wrong
    about people that it has not seen."""
    return TrainConfig(
        stream=stream,
        model=ModelConfig(name="lgd3d_nano"),
        stride=2,
        transform=Transform(crop=64, color_jitter=0.4 if stream == "rgb" else 0.0),
        optimizer=OptimizerConfig(lr=0.02, warmup=4.0, drop_every=30.0),
        batch_size=8,  # small, so that an epoch of few videos has several steps
        normalization_group=8,
        epochs=40.0,
        validation=ValidationConfig(every=10.0),
        checkpoint=CheckpointConfig(every_s=20.0),
    )


def _nano_com(stage1: TrainConfig) -> TrainConfig:
    """Stage 2 of the small network. A sketch of 8192 numbers would take more CPU time than the network itself."""
    com = _com(stage1)
    optimizer = replace(com.optimizer, drop_every=15.0)
    return replace(com, model=replace(com.model, sketch_dimension=1024), optimizer=optimizer, epochs=20.0)


FINE_TUNING: dict[str, TrainConfig] = _fine_tuning_recipes()
"""Recipes that start from a run on another dataset."""

RECIPES: dict[str, TrainConfig] = {
    **_paper_recipes(),
    **FINE_TUNING,
    "nano-rgb": _nano("rgb"),
    "nano-flow": _nano("flow"),
    "nano-rgb-com": _nano_com(_nano("rgb")),
    "nano-flow-com": _nano_com(_nano("flow")),
}


def recipe_named(name: str) -> TrainConfig:
    """Return a recipe by name. Raises UsageError, which names similar recipes, if it does not exist."""
    if name not in RECIPES:
        similar = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4) or list(RECIPES)
        raise UsageError(f"unknown recipe {name!r}; did you mean {' or '.join(similar)}?")
    return RECIPES[name]


def recipe_defaults(words: list[str]) -> dict[str, Any]:
    """Return the defaults of the options that follow a recipe, the first word of a command line.

    Raises UsageError if something else comes first."""
    if not words or words[0] in ("-h", "--help"):
        return {}
    if words[0].startswith("-"):
        raise UsageError(f"the recipe must come first: RECIPE {words[0]} ...")
    return {"config": recipe_named(words[0])}
