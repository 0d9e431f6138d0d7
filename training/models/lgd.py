"""Local and global diffusion: the block, and the network made of it (Table 1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lgd.training.models.config import ModelConfig, Variant
from lgd.training.models.resnet import EXPANSION, ResidualUnit, Stem
from lgd.training.models.sketch import CombinationClassifier


class LowRank(nn.Module):
    """W = W1 W2 of low rank, linear between the factors, no bias: N x C_in -> N x C_out."""

    def __init__(self, c_in: int, c_out: int, rank: int) -> None:
        super().__init__()
        self.inner = nn.Linear(c_in, rank, bias=False)
        self.outer = nn.Linear(rank, c_out, bias=False)

    def forward(self, g: Tensor) -> Tensor:
        return self.outer(self.inner(g))


def pool(x: Tensor) -> Tensor:
    """Global average pooling over frames, height and width: N x C x T x H x W -> N x C."""
    return x.mean((2, 3, 4))


class Block(nn.Module):
    """A residual unit with local and global diffusion (section 3.1).

    x_l = ReLU(F(x_{l-1}) + broadcast(W_xg g_{l-1}))        (2)
    g_l = ReLU(W_gx GAP(x_l) + W_gg g_{l-1})                (3)

    Variants of the ablation: v1 replaces (3) by g_l = GAP(x_l) (8), v2 replaces (2) by
    x_l = ReLU(F(x_{l-1}) sigmoid(broadcast(W_xg g_{l-1}))) (9), none is the unit alone.
    """

    def __init__(self, unit: ResidualUnit, c_in: int, c_out: int, *, variant: Variant, rank: int) -> None:
        super().__init__()
        self.unit = unit
        self.variant = variant
        self.w_xg = LowRank(c_in, c_out, rank) if variant != "none" else None
        whole = variant in ("lgd", "v2")
        self.w_gx = LowRank(c_out, c_out, rank) if whole else None
        self.w_gg = LowRank(c_in, c_out, rank) if whole else None

    def forward(self, x: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(N x C_in x T x H x W, N x C_in) -> (N x C_out x T x H' x W', N x C_out); g is None without LGD."""
        x = self.unit(x)
        if g is None or self.w_xg is None:
            return functional.relu(x, inplace=True), None
        residual = self.w_xg(g)[:, :, None, None, None]
        x = x * residual.sigmoid() if self.variant == "v2" else x + residual
        x = functional.relu(x, inplace=True)
        if self.w_gx is None or self.w_gg is None:
            return x, pool(x)
        return x, functional.relu(self.w_gx(pool(x)) + self.w_gg(g))


class Output(NamedTuple):
    """What a network says about N clips. A head that the network does not have is None."""

    local_logits: Tensor | None
    """Stage 1: W_x GAP(x_L), N x classes."""
    global_logits: Tensor | None
    """Stage 1 with LGD: W_g g_L, N x classes."""
    combined_logits: Tensor | None
    """Stage 2: the combination classifier's, N x classes."""
    local: Tensor
    """x_L, the local representation, N x C x T x H x W."""
    glob: Tensor | None
    """g_L, the global representation, N x C; None without LGD."""

    def logits(self) -> dict[str, Tensor]:
        """The heads that there are, by path: local and global, or combined."""
        heads = {"local": self.local_logits, "global": self.global_logits, "combined": self.combined_logits}
        return {path: logits for path, logits in heads.items() if logits is not None}


class Losses(NamedTuple):
    """The loss to minimize, and its parts for the curves (scalars on the device, cut from the graph)."""

    total: Tensor
    paths: dict[str, Tensor]


class Network(nn.Module):
    """The networks of the paper: LGD-3D, LGD-2D, P3D and TSN, as `config` says; built by `zoo.build`.

    The video is taken in channels-last 3D (the loader's format; any other is converted), and so is everything after
    it, which is about twice as fast on a CPU. Weights may have either format: for a GPU, move them to channels-last 3D
    once rather than in every step.
    """

    def __init__(self, config: ModelConfig, classes: int, channels: int) -> None:
        super().__init__()
        self.config = config
        family, variant = config.family, config.block_variant
        self.stem = Stem(channels, family.width, family.temporal, pool_frames=config.pool1_frames)
        c_in = family.width
        stages = []
        for i, count in enumerate(family.blocks):
            width = family.width * 2**i
            c_out = EXPANSION * width
            blocks = nn.ModuleList()
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                unit = ResidualUnit(c_in, width, stride, temporal=family.temporal, spatial_stride=config.spatial_stride)
                blocks.append(Block(unit, c_in, c_out, variant=variant, rank=c_out // config.rank_divisor))
                c_in = c_out
            stages.append(blocks)
        self.res2, self.res3, self.res4, self.res5 = stages
        self.pool2 = nn.MaxPool3d((2, 1, 1)) if family.temporal else nn.Identity()

        self.local_head = self.global_head = self.combination = None
        if config.stage == 2:
            self.combination = CombinationClassifier(
                c_in,
                classes,
                config.sketch_dimension,
                seed=config.sketch_seed,
                normalize=config.sketch_normalize,
                global_path=variant != "none",
            )
        else:
            self.local_head = nn.Linear(c_in, classes)
            self.global_head = nn.Linear(c_in, classes) if variant != "none" else None

    def forward(self, video: Tensor) -> Output:
        """Video N x channels x T x H x W, any height and width, to logits and representations."""
        x = self.stem(video.contiguous(memory_format=torch.channels_last_3d))
        g = None if self.config.block_variant == "none" else pool(x)
        for blocks in (self.res2, self.res3, self.res4, self.res5):
            for block in blocks:
                if self.config.checkpoint_activations and self.training:
                    x, g = checkpointed(cast(Block, block), x, g)
                else:
                    x, g = block(x, g)
            if blocks is self.res2:
                x = self.pool2(x)  # after g, which has seen every frame

        local = self.local_head(pool(x)) if self.local_head is not None else None
        glob = self.global_head(g) if self.global_head is not None else None
        combined = self.combination(x, g) if self.combination is not None else None
        return Output(local, glob, combined, x, g)

    @staticmethod
    def loss(output: Output, label: Tensor, weight: Tensor | None = None) -> Losses:
        """Sum over the heads of their cross-entropies (eq. 6; eq. 7 in stage 2), float32.

        `label` holds N class numbers. A head's loss is sum_n weight_n CE_n: the weights are not normalized here, so
        that workers with unequal shares of a batch can weigh each clip by 1 / the global batch. Default: 1/N each.
        """
        paths = {}
        for path, logits in output.logits().items():
            entropy = functional.cross_entropy(logits.float(), label, reduction="none")
            paths[path] = entropy.mean() if weight is None else (entropy * weight).sum()
        total = torch.stack(list(paths.values())).sum()
        return Losses(total, {path: value.detach() for path, value in paths.items()})

    @staticmethod
    def probabilities(output: Output) -> Tensor:
        """N x classes, float32: the mean of the heads' probabilities; in stage 2 there is one head."""
        heads = [logits.float().softmax(1) for logits in output.logits().values()]
        return torch.stack(heads).mean(0)


def checkpointed(block: Block, x: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Run a block without keeping its activations; the backward pass computes them again."""
    if torch.compiler.is_compiling():  # there the statistics are written by the forward pass only
        return checkpoint(block, x, g, use_reentrant=False)
    return checkpoint(block, x, g, use_reentrant=False, context_fn=lambda: _contexts(block))


def _contexts(block: Block) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_held(block)


@contextmanager
def _statistics_held(block: Block) -> Iterator[None]:
    """Keep the recomputation from averaging the same batch into the running statistics a second time."""
    held = [
        (norm, norm.momentum, norm.num_batches_tracked) for norm in block.modules() if isinstance(norm, nn.BatchNorm3d)
    ]
    for norm, _, _ in held:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in held:
            norm.momentum, norm.num_batches_tracked = momentum, batches
