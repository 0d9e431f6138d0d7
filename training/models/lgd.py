"""Local and global diffusion: the block and the network (Table 1)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lgd.training.models.config import ModelConfig, Variant
from lgd.training.models.convolutions import set_convolutions
from lgd.training.models.dropout import ClipDropout
from lgd.training.models.normalization import frozen_statistics
from lgd.training.models.resnet import EXPANSION, FramePool, ResidualUnit, Stem
from lgd.training.models.sketch import CombinationClassifier


class LowRank(nn.Module):
    """W = W1 W2 of low rank, without nonlinearity between the factors and without bias: N x C_in -> N x C_out."""

    def __init__(self, c_in: int, c_out: int, rank: int) -> None:
        super().__init__()
        self.inner = nn.Linear(c_in, rank, bias=False)
        self.outer = nn.Linear(rank, c_out, bias=False)

    def forward(self, g: Tensor) -> Tensor:
        projected: Tensor = self.outer(self.inner(g))
        return projected


def pool(x: Tensor) -> Tensor:
    """Return the global average over frames, height and width: N x C x T x H x W -> N x C."""
    return x.mean((2, 3, 4))


class Block(nn.Module):
    """Residual unit with local and global diffusion (section 3.1).

    x_l = ReLU(F(x_{l-1}) + broadcast(W_xg g_{l-1}))        (2)
    g_l = ReLU(W_gx GAP(x_l) + W_gg g_{l-1})                (3)

    Variants of the ablation: v1 replaces (3) by g_l = GAP(x_l) (8), v2 replaces (2) by
    x_l = ReLU(F(x_{l-1}) sigmoid(broadcast(W_xg g_{l-1}))) (9), none is only the unit.
    """

    def __init__(self, unit: ResidualUnit, c_in: int, c_out: int, *, variant: Variant, rank: int) -> None:
        super().__init__()
        self.unit = unit
        self.variant = variant
        self.w_xg = LowRank(c_in, c_out, rank) if variant != "none" else None
        has_global_weights = variant in ("lgd", "v2")
        self.w_gx = LowRank(c_out, c_out, rank) if has_global_weights else None
        self.w_gg = LowRank(c_in, c_out, rank) if has_global_weights else None

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
    """Output of a network for N clips. Heads that the network does not have are None."""

    local_logits: Tensor | None
    """Stage 1: W_x GAP(x_L), N x classes."""
    global_logits: Tensor | None
    """Stage 1 with LGD: W_g g_L, N x classes."""
    combined_logits: Tensor | None
    """Stage 2: logits of the combination classifier, N x classes."""
    local: Tensor
    """Local representation x_L, N x C x T x H x W."""
    glob: Tensor | None
    """Global representation g_L, N x C; None without LGD."""

    def logits(self) -> dict[str, Tensor]:
        """Return the logits of the network's heads by path: local and global, or combined."""
        heads = {"local": self.local_logits, "global": self.global_logits, "combined": self.combined_logits}
        return {path: logits for path, logits in heads.items() if logits is not None}


class Losses(NamedTuple):
    """The loss to minimize, and the loss of each path for the metrics (scalars on the device, detached)."""

    total: Tensor
    paths: dict[str, Tensor]


class Network(nn.Module):
    """A network of the paper: LGD-3D, LGD-2D, P3D or TSN, depending on `config`. Use `zoo.build` to create one.

    It computes in channels-last 3D, which is about twice as fast on a CPU; a video in a different memory format is
    converted. Weights may have either format: for a GPU, convert them to channels-last 3D once instead of in every
    step.

    checkpointing: whether training recomputes the activations of each block in the backward pass. run_part: how the
    parts are computed, see `run_part` below."""

    def __init__(self, config: ModelConfig, classes: int, channels: int) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = config.checkpoint_activations is True
        self.run_part: Callable[..., Any] = run_part
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
        self.pool2 = FramePool(2) if family.temporal else nn.Identity()

        self.local_head = self.global_head = self.combination = None
        if config.stage == 2:
            self.combination = CombinationClassifier(
                c_in,
                classes,
                config.sketch_dimension,
                seed=config.sketch_seed,
                normalize=config.sketch_normalize,
                global_path=variant != "none",
                dropout=config.dropout,
            )
        else:
            self.local_head = nn.Linear(c_in, classes)
            self.global_head = nn.Linear(c_in, classes) if variant != "none" else None
            self.local_dropout = ClipDropout(config.dropout, c_in, "local")
            self.global_dropout = ClipDropout(config.dropout, c_in, "global")
        set_convolutions(self, config.convolutions)

    def forward(self, video: Tensor) -> Output:
        """Return logits and representations of a video, N x channels x T x H x W, with any height and width."""
        x = self.run_part(self.stem, video.contiguous(memory_format=torch.channels_last_3d))
        g = None if self.config.block_variant == "none" else pool(x)
        for blocks in (self.res2, self.res3, self.res4, self.res5):
            for block in blocks:
                x, g = self.run_part(block, x, g, checkpointing=self.checkpointing and self.training)
            if blocks is self.res2:
                x = self.run_part(self.pool2, x)  # after g, which is computed from all frames

        local = self.local_head(self.local_dropout(pool(x))) if self.local_head is not None else None
        glob = self.global_head(self.global_dropout(g)) if self.global_head is not None else None
        combined = self.combination(x, g) if self.combination is not None else None
        return Output(local, glob, combined, x, g)

    @staticmethod
    def loss(output: Output, label: Tensor, weight: Tensor | None = None) -> Losses:
        """Return the sum of the heads' cross-entropies (eq. 6; eq. 7 in stage 2), float32.

        label: N class numbers. weight: N; the loss of a head is sum_n weight_n CE_n. Weights are not normalized, so
        that workers with shares of different sizes can give each clip the weight 1 / (global batch size). Default: 1/N.
        """
        paths = {}
        for path, logits in output.logits().items():
            entropy = functional.cross_entropy(logits.float(), label, reduction="none")
            paths[path] = entropy.mean() if weight is None else (entropy * weight).sum()
        total = torch.stack(list(paths.values())).sum()
        return Losses(total, {path: value.detach() for path, value in paths.items()})

    @staticmethod
    def probabilities(output: Output) -> Tensor:
        """Return the probabilities, N x classes, float32: the mean over the heads, of which stage 2 has one."""
        heads = [logits.float().softmax(1) for logits in output.logits().values()]
        return torch.stack(heads).mean(0)


def run_part(part: nn.Module, *inputs: Tensor | None, checkpointing: bool = False) -> Any:
    """Return the output of a part of a network: the stem, a block or pool2. `lgd.training.steps.compile` compiles it.

    checkpointing: recompute the activations of a block in the backward pass."""
    if checkpointing:
        x, g = inputs
        return checkpointed(cast(Block, part), cast(Tensor, x), g)
    return part(*inputs)


def checkpointed(block: Block, x: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Run a block without storing its activations; the backward pass recomputes them."""
    output: tuple[Tensor, Tensor | None]
    if torch.compiler.is_compiling():  # compiled code updates the statistics only in the forward pass
        output = checkpoint(block, x, g, use_reentrant=False)
    else:  # a block uses no random numbers, whose state would be read from the GPU
        output = checkpoint(
            block, x, g, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: _contexts(block)
        )
    return output


def _contexts(block: Block) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), frozen_statistics(block)  # the recomputation must not count the batch again
