"""Late fusion: the weighted mean of the streams' predictions, joined by key (equal weights in the paper)."""

from dataclasses import dataclass
from typing import Any, TypedDict, get_args

import numpy as np

from lgd.pipeline.console.errors import UsageError
from lgd.training.fusion.join import JoinedScores
from lgd.training.fusion.options import Space
from lgd.training.scoring.metrics import MIN_PROBABILITY
from lgd.training.scoring.scores import Scores

BLOCK_ROWS = 4096  # computed at the same time, in double precision


class FittedOn(TypedDict):
    """A score file that a fusion rule was fitted on."""

    name: str
    """Path of the file."""
    split: str
    """Split of its videos."""
    videos: int
    """Number of videos."""


@dataclass(frozen=True)
class FusionRule:
    """How the predictions p_i of the inputs are combined.

    The temperature of each input is applied first: p_i^(1 / temperature_i), normalized to a sum of 1. Then, with
    weights w_i of sum 1, probabilities: sum of w_i p_i. logits: softmax of the sum of w_i ln p_i, which is the weighted
    geometric mean.

    Raises UsageError for invalid weights, temperatures and spaces."""

    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    space: Space = "probabilities"

    def __post_init__(self) -> None:
        weights, temperatures = np.array(self.weights, np.float64), np.array(self.temperatures, np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() == 0:
            raise UsageError(f"weights must be 0 or more, and not all 0, not {' '.join(map(str, self.weights))}")
        if not (np.isfinite(temperatures) & (temperatures > 0)).all():
            raise UsageError(f"temperatures must be more than 0, not {' '.join(map(str, self.temperatures))}")
        if self.space not in get_args(Space):
            raise UsageError(f"unknown space {self.space!r}: choose from {', '.join(get_args(Space))}")
        object.__setattr__(self, "weights", tuple((weights / weights.sum()).tolist()))
        object.__setattr__(self, "temperatures", tuple(temperatures.tolist()))

    @property
    def is_equal(self) -> bool:
        """Whether all weights are equal and all temperatures are 1."""
        return len(set(self.weights)) == 1 and set(self.temperatures) == {1.0}


def make_rule(
    inputs: int,
    weights: tuple[float, ...] | None = None,
    temperatures: tuple[float, ...] | None = None,
    *,
    space: Space = "probabilities",
) -> FusionRule:
    """Return the rule with these weights and temperatures, one of each per input; by default equal weights and
    temperatures of 1.

    Raises UsageError if their number is not that of the inputs."""
    for option, numbers in (("--weights", weights), ("--temperatures", temperatures)):
        if numbers is not None and len(numbers) != inputs:
            raise UsageError(f"{option} takes one number per score file: {inputs}, not {len(numbers)}")
    ones = (1.0,) * inputs
    return FusionRule(ones if weights is None else weights, ones if temperatures is None else temperatures, space)


def fuse(joined: JoinedScores, rule: FusionRule, fitted_on: list[FittedOn] | None = None) -> Scores:
    """Return the fused scores, in the order of the first input's keys.

    fitted_on: the tables that the rule was fitted on, for the metadata. The metadata contains that of every input, so
    that the inputs of a fusion of fusions are known. Raises UsageError for fewer than two inputs, and for a different
    number of weights."""
    inputs = joined.inputs
    if len(inputs) < 2:
        raise UsageError("fusion needs two or more score files")
    if not len(inputs) == len(rule.weights) == len(rule.temperatures):
        raise UsageError(f"{len(inputs)} score files need as many weights and temperatures, not {len(rule.weights)}")
    first = joined.first
    fused = np.empty_like(first.probabilities, dtype=np.float32)
    for start in range(0, len(fused), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        fused[rows] = combine([each.probabilities[rows].astype(np.float64) for each in inputs], rule)
    metadata: dict[str, Any] = {
        "stream": "fused",
        "inputs": [{"name": each.name, **each.metadata} for each in inputs],
        "weights": list(rule.weights),
        "temperatures": list(rule.temperatures),
        "space": rule.space,
        "fitted_on": fitted_on,
        "dropped": joined.dropped,
        **({"split_hash": first.metadata["split_hash"]} if "split_hash" in first.metadata else {}),
    }
    return Scores("fused", first.keys, first.labels, fused, first.classes, first.split, metadata)


def combine(probabilities: list[np.ndarray], rule: FusionRule) -> np.ndarray:
    """Apply the rule to the inputs' probabilities, float64, videos x classes each. A probability of 0 counts as
    `MIN_PROBABILITY` where logarithms are taken."""
    total = np.zeros_like(probabilities[0])
    for each, weight, temperature in zip(probabilities, rule.weights, rule.temperatures, strict=True):
        if rule.space == "logits":
            total += weight * _log_with_temperature(each, temperature)
        else:
            total += weight * (each if temperature == 1 else np.exp(_log_with_temperature(each, temperature)))
    return np.exp(_log_softmax(total)) if rule.space == "logits" else total


def _log_with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    return _log_softmax(np.log(np.maximum(probabilities, MIN_PROBABILITY)) / temperature)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
