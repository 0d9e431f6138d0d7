"""What decides a network: the families by name, and the configuration of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Variant = Literal["lgd", "v1", "v2", "none"]


@dataclass(frozen=True)
class Family:
    """What a name of the paper's tables stands for."""

    blocks: tuple[int, int, int, int]
    """Residual units in res2, res3, res4, res5; 0 where the network ends earlier."""
    temporal: bool
    """True: P3D-A units on 16-frame clips. False: 2D units on single frames."""
    variant: Variant
    """Block variant that the name promises."""
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
    # Not in the paper: the same network, small enough to train from scratch on a CPU. It ends at res4: res5 would
    # sample 7 x 7 (56 pixel crops) and 8 x 8 (64 pixel frames) differently, and forget in testing what it learned.
    "lgd3d_nano": Family((1, 1, 2, 0), temporal=True, variant="lgd", frames=16, size=56, width=16),
}


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a network but its classes and input channels, which the data decide.

    Where the paper is silent, the default is this project's decision.
    """

    name: str = "lgd3d_r50"
    """Family, one of those that `lgd models` lists."""
    variant: Variant | None = None
    """Block variant: lgd (eq. 2 and 3), v1 (eq. 8), v2 (eq. 9), none (plain P3D or TSN). Default: the family's."""
    stage: Literal[1, 2] = 1
    """Training stage. 1: a linear head on each path (eq. 6); 2: the combination classifier (eq. 5 and 7)."""
    frames: int | None = None
    """Frames of a clip: 16, or 128 (long clips: pool1 takes 4 into 1). Default: the family's; 2D: 3 snippets."""
    rank_divisor: int = 16
    """Rank of W_xg, W_gx and W_gg = output channels / this."""
    spatial_stride: Literal["3x3", "1x1"] = "3x3"
    """Convolution that halves the frame in the first unit of res3 to res5; torchvision's weights were made with 3x3."""
    sketch_dimension: int = 8192
    """D, length of the Tensor Sketch of each path (stage 2)."""
    sketch_seed: int = 0
    """Seed of the sketch's hash functions, which are saved with the weights."""
    sketch_normalize: bool = True
    """Signed square root and L2 normalization of each path's sketch before the linear layer; eq. 5 has neither."""
    zero_last_bn: bool = False
    """From scratch: start the last batch normalization of every unit at zero, so that units start as their shortcut."""
    checkpoint_activations: bool = False
    """Compute each block's activations again in the backward pass instead of keeping them; for long clips."""

    @property
    def family(self) -> Family:
        """The family of `name`; KeyError for a name that `zoo.build` would refuse."""
        return MODELS[self.name]

    @property
    def block_variant(self) -> Variant:
        """The block variant, the family's where none is given."""
        return self.family.variant if self.variant is None else self.variant

    @property
    def clip_frames(self) -> int:
        """Frames of a clip, the family's where none are given."""
        return self.family.frames if self.frames is None else self.frames

    @property
    def pool1_frames(self) -> int:
        """Frames that pool1 takes into one (Table 1): 2, for long clips 4; the 2D families keep every frame."""
        if not self.family.temporal:
            return 1
        return 4 if self.clip_frames >= 128 else 2
