"""The options of `lgd reproduce` and `lgd cross-validate` about the fusion of the streams."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class FusionPlan:
    """How the streams of a fold are fused."""

    weights: Annotated[tuple[float, ...] | None, arg(metavar="W ...")] = None
    """Weight of each stream, rgb first. Default: equal weights."""
    fit_fusion: bool = False
    """Also fit the weights, on a held-out part of each training split, which `lgd splits --hold-out` makes: each stream
    is trained once more, without that part. The reported split is never used for it."""
