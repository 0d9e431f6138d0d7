"""Partial training: the first stages of a network keep their weights."""

from __future__ import annotations

from torch import nn

from lgd.pipeline.console.errors import UsageError
from lgd.training.models.config import FREEZE_POINTS, FreezeUntil, ModelConfig
from lgd.training.models.lgd import Network
from lgd.training.models.weights import HEADS

STAGES = ("res2", "res3", "res4", "res5")


def check_freeze_until(config: ModelConfig, until: FreezeUntil) -> None:
    """Raise UsageError, which names the choices, if the network of `config` does not have this stage."""
    existing = [stage for stage, units in zip(STAGES, config.family.blocks, strict=True) if units]
    if until in STAGES and until not in existing:
        raise UsageError(
            f"--freeze-until {until}: {config.name} has no {until}: choose from none, {', '.join(existing)}, heads"
        )


def frozen_parts(network: Network, until: FreezeUntil) -> list[nn.Module]:
    """Return the parts of a network before the one that is the first to be trained: the stem and stages."""
    if until == "none":
        return []
    parts: dict[str, nn.Module] = {"stem": network.stem, **{stage: getattr(network, stage) for stage in STAGES}}
    last = list(FREEZE_POINTS).index(until)
    return [part for number, part in enumerate(parts.values(), 1) if number <= last]


def freeze(network: Network, until: FreezeUntil) -> None:
    """Let the parameters of the frozen parts have no gradient: the optimizer does not change them."""
    for part in frozen_parts(network, until):
        part.requires_grad_(False)


def set_frozen_modes(network: Network, until: FreezeUntil) -> None:
    """Put the frozen parts of a network in training mode into evaluation mode: their batch normalization uses its
    running statistics and does not update them."""
    for part in frozen_parts(network, until):
        part.eval()


def describe_trained(network: Network) -> str:
    """Return in words how many of the parameters are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    trained, total = sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)
    return f"training {trained:,} of {total:,} parameters"


def head_parameters(network: Network) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of each head that the network has, by the beginning of their names."""
    heads: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        for head in HEADS:
            if name.startswith(head):
                heads.setdefault(head, []).append(parameter)
    return heads
