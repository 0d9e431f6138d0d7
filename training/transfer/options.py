"""The options of `lgd reproduce` and `lgd cross-validate` about the fusion of the streams."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from lgd.pipeline.console.errors import UsageError


@dataclass(frozen=True)
class FusionPlan:
    """How the streams of a fold are fused."""

    weights: Annotated[tuple[float, ...] | None, arg(metavar="W ...")] = None
    """Weight of each stream, rgb first. Default: equal weights."""
    fit_fusion: bool = False
    """Also fit the weights, on a held-out part of each training split, which `lgd splits --hold-out` makes: each stream
    is trained once more, without that part. The reported split is never used for it."""


def check_weights(fusion: FusionPlan, streams: int) -> None:
    """Raise UsageError for weights that do not fit the streams, and for a fusion of one stream."""
    if streams < 2 and (fusion.weights is not None or fusion.fit_fusion):
        raise UsageError("--weights and --fit-fusion need two streams: --streams rgb flow")
    if fusion.weights is not None and len(fusion.weights) != streams:
        raise UsageError(f"--weights takes one number per stream: {streams}, not {len(fusion.weights)}")
