"""Late fusion: the weighted mean of the streams' predictions, joined by key (equal weights in the paper)."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.training.fusion.join import Joined, unlabelled
from lgd.training.scoring.metrics import MIN_PROBABILITY, summary
from lgd.training.scoring.scores import Scores, named

Space = Literal["probabilities", "logits"]
ROWS_AT_ONCE = 4096  # in double precision


@dataclass(frozen=True)
class Rule:
    """How predictions p_i of the inputs become one.

    Each input is tempered first: p_i^(1 / temperature_i), scaled to a sum of 1. Then, with weights w_i of sum 1,
    probabilities: sum of w_i p_i. logits: softmax of the sum of w_i ln p_i, which is the weighted geometric mean.

    Raises UsageError for numbers that cannot be."""

    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    space: Space = "probabilities"

    def __post_init__(self) -> None:
        weights, temperatures = np.array(self.weights, np.float64), np.array(self.temperatures, np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() == 0:
            raise UsageError(f"weights must be 0 or more, and not all 0; these are {' '.join(map(str, self.weights))}")
        if not (np.isfinite(temperatures) & (temperatures > 0)).all():
            raise UsageError(f"temperatures must be more than 0; these are {' '.join(map(str, self.temperatures))}")
        if self.space not in get_args(Space):
            raise UsageError(f"there is no space {self.space!r}: choose from {', '.join(get_args(Space))}")
        object.__setattr__(self, "weights", tuple((weights / weights.sum()).tolist()))
        object.__setattr__(self, "temperatures", tuple(temperatures.tolist()))

    @property
    def is_equal(self) -> bool:
        return len(set(self.weights)) == 1 and set(self.temperatures) == {1.0}


def given_rule(
    inputs: int,
    weights: tuple[float, ...] | None = None,
    temperatures: tuple[float, ...] | None = None,
    *,
    space: Space = "probabilities",
) -> Rule:
    """The rule of these numbers, one an input; equal weights and temperatures of 1 by default.

    Raises UsageError where there are more or fewer of them than inputs."""
    for option, numbers in (("--weights", weights), ("--temperatures", temperatures)):
        if numbers is not None and len(numbers) != inputs:
            raise UsageError(f"{inputs} score files need as many {option}, not {len(numbers)}")
    ones = (1.0,) * inputs
    return Rule(ones if weights is None else weights, ones if temperatures is None else temperatures, space)


def fuse(joined: Joined, rule: Rule, fitted_on: list[dict[str, Any]] | None = None) -> Scores:
    """Fused scores, in the order of the first input's keys.

    fitted_on: the tables that the rule was fitted on, for the record. `about` keeps that of every input, so that a
    fusion of fusions says what it is made of. Raises UsageError for fewer than two inputs, or another number of
    weights."""
    inputs = joined.inputs
    if len(inputs) < 2:
        raise UsageError("fusing takes two or more score files")
    if not len(inputs) == len(rule.weights) == len(rule.temperatures):
        raise UsageError(f"{len(inputs)} score files need as many weights and temperatures, not {len(rule.weights)}")
    first = joined.first
    fused = np.empty_like(first.probabilities, dtype=np.float32)
    for start in range(0, len(fused), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        fused[rows] = combined([each.probabilities[rows].astype(np.float64) for each in inputs], rule)
    about = {
        "stream": "fused",
        "inputs": [{"name": each.name, **each.about} for each in inputs],
        "weights": list(rule.weights),
        "temperatures": list(rule.temperatures),
        "space": rule.space,
        "fitted_on": fitted_on,
        "dropped": joined.dropped,
    }
    return Scores("fused", first.keys, first.labels, fused, first.classes, first.split, about)


def combined(probabilities: list[np.ndarray], rule: Rule) -> np.ndarray:
    """The rule's result for inputs of float64, videos x classes each. A probability of 0 counts as `SMALLEST` where
    logarithms are taken."""
    total = np.zeros_like(probabilities[0])
    for each, weight, temperature in zip(probabilities, rule.weights, rule.temperatures, strict=True):
        if rule.space == "logits":
            total += weight * _log(each, temperature)
        else:
            total += weight * (each if temperature == 1 else np.exp(_log(each, temperature)))
    return np.exp(_normalized(total)) if rule.space == "logits" else total


def metrics(scores: Scores) -> dict[str, Any]:
    """Raises UserError for a table with unlabelled videos, which have no accuracy."""
    without = unlabelled(scores)
    if without:
        raise UserError(f"{scores.name} has no label for {named(without)}: accuracy needs labelled videos")
    return summary(scores.probabilities, scores.labels)


def _log(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    return _normalized(np.log(np.maximum(probabilities, MIN_PROBABILITY)) / temperature)


def _normalized(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
