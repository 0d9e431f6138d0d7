"""The options of `lgd fuse`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

Space = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class FusionOptions:
    """How score files are fused; see `lgd.training.fusion.fuse_files.fuse_files`."""

    weights: Annotated[tuple[float, ...] | None, arg(metavar="W ...")] = None
    """One weight per score file. Default: equal weights."""
    temperatures: Annotated[tuple[float, ...] | None, arg(metavar="T ...")] = None
    """One temperature per score file, by which its logits are divided. Default: 1."""
    fit: Annotated[tuple[str, ...] | None, arg(metavar="SCORES ...")] = None
    """Fit weights and temperatures on these score files: of the same models, in the same order, with different videos
    than the reported ones."""
    space: Space = "probabilities"
    """What is averaged: probabilities, or their logarithms, which gives a geometric mean."""
    intersect: bool = False
    """Use only the videos that all score files have, and report how many are dropped."""
