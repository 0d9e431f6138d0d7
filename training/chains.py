"""Chains of recipes by name, for `lgd reproduce`. Each recipe starts from the run of the recipe before it."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lgd.pipeline.console.errors import UsageError

# The recipes of each stream, in order.
REPRODUCTIONS: dict[str, tuple[str, ...]] = {
    "nano": ("nano-{stream}",),
    "nano-com": ("nano-{stream}", "nano-{stream}-com"),
    **{
        f"{dataset}-{depth}-{last}": (f"{dataset}-{{stream}}-{depth}", f"{dataset}-{{stream}}-{depth}-{last}")
        for dataset, depth, last in itertools.product(("kinetics400", "kinetics600"), ("r50", "r101"), ("com", "long"))
    },
}


@dataclass(frozen=True)
class Transfer:
    """A chain that starts from a run on another dataset and is trained on each of three official splits.

    paper: top-1 by stream that the paper reports, the mean over the splits; None for what it does not report."""

    chain: tuple[str, ...]
    paper: Mapping[str, float] | None = None


# LGD-3D, ResNet-101, pretrained on ImageNet and Kinetics-600 (section 5.6 of the paper).
PAPER: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "ucf101": {"rgb": 0.970, "flow": 0.968, "fused": 0.982},
        "hmdb51": {"rgb": 0.757, "flow": 0.789, "fused": 0.805},
    }
)

TRANSFERS: dict[str, Transfer] = {
    f"{dataset}-{depth}{suffix}": Transfer(
        (f"{dataset}-{{stream}}-{depth}", *([f"{dataset}-{{stream}}-{depth}-com"] if suffix else [])), PAPER[dataset]
    )
    for dataset, depth, suffix in itertools.product(("ucf101", "hmdb51"), ("r50", "r101"), ("", "-com"))
}


def reproduction_named(name: str) -> tuple[str, ...]:
    """Return a chain of REPRODUCTIONS by name. Raises UsageError, which names all chains, if it does not exist."""
    if name not in REPRODUCTIONS:
        raise UsageError(f"unknown chain {name!r}: choose from {', '.join([*REPRODUCTIONS, *TRANSFERS])}")
    return REPRODUCTIONS[name]
