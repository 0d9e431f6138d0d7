"""Families of networks by name, and the configuration of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Variant = Literal["lgd", "v1", "v2", "none"]
FreezeUntil = Literal["none", "res2", "res3", "res4", "res5", "heads"]
FREEZE_POINTS: tuple[FreezeUntil, ...] = ("none", "res2", "res3", "res4", "res5", "heads")
"""The first part of a network that is trained, from the input to the output."""
Convolutions = Literal["3d", "2d"]
Switch = bool | Literal["auto"]
"""Whether something is done that does not change the result; auto: decided where the training runs."""


@dataclass(frozen=True)
class Family:
    """A family of networks, as the tables of the paper name them."""

    blocks: tuple[int, int, int, int]
    """Residual units in res2, res3, res4 and res5; 0 for stages that the network does not have."""
    temporal: bool
    """True: P3D-A units on 16-frame clips. False: 2D units on single frames."""
    variant: Variant
    """Block variant."""
    frames: int
    """Frames of a clip (3D) or snippets of a video (2D)."""
    size: int
    """Height and width of a training crop, pixels."""
    width: int = 64
    """Channels of the stem and of res2's bottleneck; 64 in every network of the paper."""


R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)

MODELS: dict[str, Family] = {
    "lgd3d_r50": Family(R50, temporal=True, variant="lgd", frames=16, size=112),
    "lgd3d_r101": Family(R101, temporal=True, variant="lgd", frames=16, size=112),
    "lgd2d_r50": Family(R50, temporal=False, variant="lgd", frames=3, size=224),
    "lgd2d_r101": Family(R101, temporal=False, variant="lgd", frames=3, size=224),
    "p3d_r50": Family(R50, temporal=True, variant="none", frames=16, size=112),
    "p3d_r101": Family(R101, temporal=True, variant="none", frames=16, size=112),
    "tsn_r50": Family(R50, temporal=False, variant="none", frames=3, size=224),
    "tsn_r101": Family(R101, temporal=False, variant="none", frames=3, size=224),
    # Not in the paper: the same network, small enough to train from scratch on a CPU. It ends at res4: res5 samples
    # maps of 7 x 7 (crops of 56 pixels) and 8 x 8 (frames of 64 pixels) differently, which makes testing worse.
    "lgd3d_nano": Family((1, 1, 2, 0), temporal=True, variant="lgd", frames=16, size=56, width=16),
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a network, except classes and input channels, which the dataset decides.

    Defaults that the paper does not give are decisions of this project."""

    name: str = "lgd3d_r50"
    """Family, see `lgd models`."""
    variant: Variant | None = None
    """Block variant: lgd (eq. 2 and 3), v1 (eq. 8), v2 (eq. 9), none (plain P3D or TSN). Default: the family's."""
    stage: Literal[1, 2] = 1
    """Training stage. 1: a linear head on each path (eq. 6); 2: the combination classifier (eq. 5 and 7)."""
    frames: int | None = None
    """Frames per clip: 16, or 128 (long clips: pool1 pools 4 frames into one). Default: that of the family (2D: 3)."""
    rank_divisor: int = 16
    """Rank of W_xg, W_gx and W_gg: output channels / rank divisor."""
    spatial_stride: Literal["3x3", "1x1"] = "3x3"
    """Convolution that halves the frame size in the first unit of res3 to res5; torchvision's weights use 3x3."""
    sketch_dimension: int = 8192
    """Length D of the Tensor Sketch of each path (stage 2)."""
    sketch_seed: int = 0
    """Seed of the hash functions of the sketch, which are saved with the weights."""
    sketch_normalize: bool = True
    """Signed square root and L2 normalization of each path's sketch before the linear layer (not in eq. 5)."""
    zero_last_bn: bool = False
    """From scratch: initialize the last batch normalization of every unit with zero: units start as their shortcut."""
    checkpoint_activations: Switch = "auto"
    """Recompute the activations of each block in the backward pass instead of storing them: less memory, slower steps,
    the same result. auto: if the memory is too small to store them."""
    convolutions: Convolutions = "3d"
    """How convolutions are computed: 3d, or as the equal 2d convolutions of frames and of positions over time. On a GPU
    with a cuDNN older than 9.15, bfloat16 always uses 2d."""
    dropout: float = 0.0
    """Fraction of the numbers of a representation that are dropped before every head in training."""

    @property
    def family(self) -> Family:
        """Family of the network. Raises KeyError for an unknown name, which `zoo.check_model_config` reports."""
        return MODELS[self.name]

    @property
    def block_variant(self) -> Variant:
        """Block variant; that of the family if none is given."""
        return self.family.variant if self.variant is None else self.variant

    @property
    def clip_frames(self) -> int:
        """Frames per clip; that of the family if none is given."""
        return self.family.frames if self.frames is None else self.frames

    @property
    def pool1_frames(self) -> int:
        """Frames that pool1 pools into one (Table 1): 2, for long clips 4; 1 for 2D families."""
        if not self.family.temporal:
            return 1
        return 4 if self.clip_frames >= 128 else 2
