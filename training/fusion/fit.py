"""Weights and temperatures of a fusion, fitted on other videos than those that are reported."""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from lgd.pipeline.console.errors import UserError
from lgd.training.fusion.fuse import ROWS_AT_ONCE, Rule, Space
from lgd.training.fusion.join import Joined, check_classes, unlabelled
from lgd.training.scoring.metrics import MIN_PROBABILITY
from lgd.training.scoring.scores import named

ITERATIONS = 200
FLAT = 1e-9  # a gradient that ends the search, nats
NOTHING = 1e-6  # a weight below it is 0, and its temperature, which nothing determines, 1
MAX_TEMPERATURE = 20.0  # temperatures lie between 1 / HOTTEST and HOTTEST
SAME_MODEL = ("stream", "model", "recipe", "step", "weights", "temperatures", "space")

Cost = Callable[[np.ndarray], tuple[float, np.ndarray]]


def fitted_rule(fitting: Joined, space: Space) -> Rule:
    """Weights and temperatures with the least negative log likelihood of the fused predictions on labelled videos.

    Found from equal weights and temperatures of 1, so never worse than those; the same numbers every time. In the space
    of logits only weight / temperature matters, and all inputs share one temperature: the problem is convex. In the
    space of probabilities every input has a temperature of its own. Temperatures stay within 1/20 and 20, which they
    near where the videos do not determine them (all predicted right, say)."""
    inputs = len(fitting.inputs)
    logs = [np.log(np.maximum(each.probabilities, np.float32(MIN_PROBABILITY))) for each in fitting.inputs]
    labels = fitting.first.labels
    cost = _cost_of_logits if space == "logits" else _cost_of_probabilities

    def at(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean cost and its gradient. x: weights before their softmax, then temperatures before their limit."""
        weights, temperatures, slopes = _unpacked(x, inputs)
        value, by_weight, by_coolness = 0.0, np.zeros(inputs), np.zeros(len(x) - inputs)
        for start in range(0, len(labels), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            part = cost(
                [each[rows].astype(np.float64) for each in logs], labels[rows], weights, coolness=1 / temperatures
            )
            value, by_weight, by_coolness = value + part[0], by_weight + part[1], by_coolness + part[2]
        gradient = np.concatenate([weights * (by_weight - weights @ by_weight), -by_coolness * slopes / temperatures])
        return value / len(labels), gradient / len(labels)

    found = _least(at, np.zeros(inputs + (1 if space == "logits" else inputs)))
    weights, temperatures, _ = _unpacked(found, inputs)
    used = weights > NOTHING
    shown = np.broadcast_to(temperatures, inputs) if space == "logits" else np.where(used, temperatures, 1.0)
    return Rule(tuple(np.where(used, weights, 0.0)), tuple(shown), space)


def check_fitting(reported: Joined, fitting: Joined) -> None:
    """Raises UserError, naming them, for videos that are in both, videos without a label, other classes, and tables of
    other models, as far as they say so, than those reported. There must be as many of the one as of the other."""
    for ours, theirs in zip(reported.inputs, fitting.inputs, strict=True):
        check_classes(ours, theirs)
        differ = differences(ours.about, theirs.about)
        if differ:
            raise UserError(
                f"{ours.name} and {theirs.name} are of other models ({'; '.join(differ)}): give --fit the scores of "
                "the same models, in the same order"
            )
    overlap = sorted(set(reported.first.keys) & set(fitting.first.keys))
    if overlap:
        raise UserError(
            f"{fitting.first.name} and {reported.first.name} share {len(overlap)} videos ({named(overlap)}): "
            "fit on other videos than those reported"
        )
    without = unlabelled(fitting.first)
    if without:
        raise UserError(f"{fitting.first.name} has no label for {named(without)}: fitting needs labelled videos")


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What says that two tables are of other models. A run is told by its folder's name, wherever it was moved to;
    of a fusion the rule and every input must be the same."""
    found = [
        f"{field} {ours[field]} and {theirs[field]}"
        for field in SAME_MODEL
        if None not in (ours.get(field), theirs.get(field)) and not _same(ours[field], theirs[field])
    ]
    runs = [PurePosixPath(about["run"]).name for about in (ours, theirs) if about.get("run")]
    if len(set(runs)) > 1:
        found.append(f"run {ours['run']} and {theirs['run']}")
    our_inputs, their_inputs = ours.get("inputs"), theirs.get("inputs")
    if our_inputs and their_inputs:
        if len(our_inputs) != len(their_inputs):
            return [*found, f"{len(our_inputs)} and {len(their_inputs)} inputs"]
        for one, other in zip(our_inputs, their_inputs, strict=True):
            found += differences(one, other)
    return found


def _same(one: Any, other: Any) -> bool:
    """Numbers that were written down and given again are the same to the digits that are usual."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and np.allclose(one, other, rtol=0, atol=1e-6)
    return one == other


def record(fitting: Joined) -> list[dict[str, Any]]:
    """What a fused table says of the tables that its rule was fitted on."""
    return [{"name": each.name, "split": each.split, "videos": len(each.keys)} for each in fitting.inputs]


def _unpacked(x: np.ndarray, inputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, temperatures, and the derivatives of the temperatures' logarithms."""
    powers = np.exp(x[:inputs] - x[:inputs].max())
    limit = np.log(MAX_TEMPERATURE)
    bent = np.tanh(x[inputs:] / limit)
    return powers / powers.sum(), np.exp(limit * bent), 1 - bent**2


def _cost_of_logits(
    logs: list[np.ndarray], labels: np.ndarray, weights: np.ndarray, *, coolness: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Sum over videos of the negative log likelihood; its derivatives by the weights and by 1 / temperature."""
    of_label, expected = np.empty((len(logs), len(labels))), np.empty((len(logs), len(labels)))
    mean = sum(weight * each for weight, each in zip(weights, logs, strict=True)) * coolness
    log_likelihood, probabilities = _softmax(np.asarray(mean), labels)
    for i, each in enumerate(logs):
        of_label[i] = each[np.arange(len(labels)), labels]
        expected[i] = (probabilities * each).sum(axis=1)
    by_product = (expected - of_label).sum(axis=1)
    return -log_likelihood.sum(), by_product * coolness, np.array([by_product @ weights])


def _cost_of_probabilities(
    logs: list[np.ndarray], labels: np.ndarray, weights: np.ndarray, *, coolness: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """As `_cost_of_logits`, of a mixture, with a temperature an input."""
    likelihood, surprise = np.empty((len(logs), len(labels))), np.empty((len(logs), len(labels)))
    for i, each in enumerate(logs):
        log_likelihood, probabilities = _softmax(each * coolness[i], labels)
        likelihood[i] = np.exp(log_likelihood)
        surprise[i] = (probabilities * each).sum(axis=1) - each[np.arange(len(labels)), labels]
    mixture = np.maximum(weights @ likelihood, np.finfo(np.float64).tiny)
    share = likelihood / mixture
    return -np.log(mixture).sum(), -share.sum(axis=1), (weights[:, None] * share * surprise).sum(axis=1)


def _softmax(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log likelihood of the labels, and the probabilities."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    sums = powers.sum(axis=1, keepdims=True)
    return shifted[np.arange(len(labels)), labels] - np.log(sums[:, 0]), powers / sums


def _least(cost: Cost, x: np.ndarray) -> np.ndarray:
    """Where a smooth function is least, from x downwards: BFGS with backtracking (Nocedal and Wright, Numerical
    Optimization, algorithms 6.1 and 3.1)."""
    value, gradient = cost(x)
    inverse = np.eye(len(x))  # of the Hessian
    for _ in range(ITERATIONS):
        if np.abs(gradient).max() < FLAT:
            break
        step = -inverse @ gradient
        if step @ gradient >= 0:
            inverse, step = np.eye(len(x)), -gradient
        length = min(1.0, 2 / np.abs(step).max())
        while (there := cost(x + length * step))[0] > value + 1e-4 * length * (step @ gradient):
            length /= 2
            if length < 1e-12:  # no way down that the rounding lets see
                return x
        s, y = length * step, there[1] - gradient
        if s @ y > 1e-16:
            turn = np.eye(len(x)) - np.outer(s, y) / (s @ y)
            inverse = turn @ inverse @ turn.T + np.outer(s, s) / (s @ y)
        x, value, gradient = x + s, *there
    return x
