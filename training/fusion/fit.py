"""Weights and temperatures of a fusion, fitted on videos that are not among the reported ones."""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from lgd.pipeline.console.errors import UserError
from lgd.training.fusion.fuse import BLOCK_ROWS, FittedOn, FusionRule
from lgd.training.fusion.join import JoinedScores, check_classes
from lgd.training.fusion.options import Space
from lgd.training.scoring.metrics import MIN_PROBABILITY
from lgd.training.scoring.scores import shown_keys, unlabelled_keys

MAX_ITERATIONS = 200
GRADIENT_TOLERANCE = 1e-9  # the search ends at a gradient below it, nats
MIN_STEP = 1e-12  # the search ends at a step length below it: rounding errors hide any decrease
SUFFICIENT_DECREASE = 1e-4  # c1 of the Armijo condition
MIN_CURVATURE = 1e-16  # below it the inverse Hessian is not updated
MIN_WEIGHT = 1e-6  # a smaller weight becomes 0, and its temperature, which then has no effect, becomes 1
MAX_TEMPERATURE = 20.0  # temperatures lie between 1 / MAX_TEMPERATURE and MAX_TEMPERATURE
MODEL_FIELDS = ("stream", "model", "recipe", "step", "weights", "temperatures", "space")

Cost = Callable[[np.ndarray], tuple[float, np.ndarray]]


def fit_rule(fitting: JoinedScores, space: Space) -> FusionRule:
    """Return the weights and temperatures that minimize the negative log likelihood of the fused predictions on labeled
    videos.

    The search starts at equal weights and temperatures of 1, so the result is never worse than those, and it is
    deterministic. In the space of logits only weight / temperature matters, and all inputs share one temperature: the
    problem is convex. In the space of probabilities every input has its own temperature. Temperatures stay within 1/20
    and 20; they approach these limits if the videos do not determine them, for example if all predictions are right."""
    inputs = len(fitting.inputs)
    logs = [np.log(np.maximum(each.probabilities, np.float32(MIN_PROBABILITY))) for each in fitting.inputs]
    labels = fitting.first.labels
    block_cost = _logits_cost if space == "logits" else _probabilities_cost

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the mean cost and its gradient. x: weights before the softmax, then temperatures before the limit."""
        weights, temperatures, slopes = _unpack(x, inputs)
        value, by_weight, by_inverse = 0.0, np.zeros(inputs), np.zeros(len(x) - inputs)
        for start in range(0, len(labels), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            block = [each[rows].astype(np.float64) for each in logs]
            more = block_cost(block, labels[rows], weights, inverse_temperatures=1 / temperatures)
            value, by_weight, by_inverse = value + more[0], by_weight + more[1], by_inverse + more[2]
        gradient = np.concatenate([weights * (by_weight - weights @ by_weight), -by_inverse * slopes / temperatures])
        return value / len(labels), gradient / len(labels)

    solution = minimize_bfgs(cost, np.zeros(inputs + (1 if space == "logits" else inputs)))
    weights, temperatures, _ = _unpack(solution, inputs)
    used = weights > MIN_WEIGHT
    effective = np.broadcast_to(temperatures, inputs) if space == "logits" else np.where(used, temperatures, 1.0)
    return FusionRule(tuple(np.where(used, weights, 0.0)), tuple(effective), space)


def check_fitting(reported: JoinedScores, fitting: JoinedScores) -> None:
    """Raise UserError, naming them, for videos that are in both, videos without a label, different classes, and tables
    whose metadata name different models than those reported. Both must have the same number of inputs."""
    for first, other in zip(reported.inputs, fitting.inputs, strict=True):
        check_classes(first, other)
        if different := model_differences(first.metadata, other.metadata):
            raise UserError(
                f"{first.name} and {other.name} are from different models ({'; '.join(different)}): give --fit the "
                "scores of the same models, in the same order"
            )
    check_fitting_videos(reported, fitting)


def check_fitting_videos(reported: JoinedScores, fitting: JoinedScores) -> None:
    """Raise UserError, naming them, for videos that are in both, and for videos without a label to fit on."""
    overlap = sorted(set(reported.first.keys) & set(fitting.first.keys))
    if overlap:
        raise UserError(
            f"{fitting.first.name} and {reported.first.name} share {len(overlap)} videos ({shown_keys(overlap)}): "
            "fit on videos that are not reported"
        )
    if unlabelled := unlabelled_keys(fitting.first):
        raise UserError(f"{fitting.first.name} has no label for {shown_keys(unlabelled)}: --fit needs labeled videos")


def model_differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return what differs between the models of two tables, by their metadata; empty for the same model.

    Runs are compared by the name of their folder, since a run may have been moved; of fused tables the rule and every
    input must be the same."""
    differences = [
        f"{field} {first[field]} and {other[field]}"
        for field in MODEL_FIELDS
        if None not in (first.get(field), other.get(field)) and not _equal(first[field], other[field])
    ]
    runs = [PurePosixPath(metadata["run"]).name for metadata in (first, other) if metadata.get("run")]
    if len(set(runs)) > 1:
        differences.append(f"run {first['run']} and {other['run']}")
    first_inputs, other_inputs = first.get("inputs"), other.get("inputs")
    if first_inputs and other_inputs:
        if len(first_inputs) != len(other_inputs):
            return [*differences, f"{len(first_inputs)} and {len(other_inputs)} inputs"]
        for one, another in zip(first_inputs, other_inputs, strict=True):
            differences += model_differences(one, another)
    return differences


def _equal(first: Any, other: Any) -> bool:
    """Compare lists of numbers to 6 decimals, since users may have copied them from a report, and all else exactly."""
    if isinstance(first, list) and isinstance(other, list):
        return len(first) == len(other) and np.allclose(first, other, rtol=0, atol=1e-6)
    return bool(first == other)


def fitted_on(fitting: JoinedScores) -> list[FittedOn]:
    """Return the entries of the fused table's metadata for the tables that its rule was fitted on."""
    return [{"name": each.name, "split": each.split, "videos": len(each.keys)} for each in fitting.inputs]


def _unpack(x: np.ndarray, inputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights, temperatures, and the derivatives of the temperatures' logarithms."""
    exponentials = np.exp(x[:inputs] - x[:inputs].max())
    limit = np.log(MAX_TEMPERATURE)
    limited = np.tanh(x[inputs:] / limit)
    return exponentials / exponentials.sum(), np.exp(limit * limited), 1 - limited**2


def _logits_cost(
    logs: list[np.ndarray], labels: np.ndarray, weights: np.ndarray, *, inverse_temperatures: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the sum over videos of the negative log likelihood, and its derivatives by the weights and by the inverse
    temperature."""
    label_log, expected_log = np.empty((len(logs), len(labels))), np.empty((len(logs), len(labels)))
    mean = sum(weight * each for weight, each in zip(weights, logs, strict=True)) * inverse_temperatures
    log_likelihood, probabilities = _log_likelihood(np.asarray(mean), labels)
    for i, each in enumerate(logs):
        label_log[i] = each[np.arange(len(labels)), labels]
        expected_log[i] = (probabilities * each).sum(axis=1)
    by_product = (expected_log - label_log).sum(axis=1)
    return -log_likelihood.sum(), by_product * inverse_temperatures, np.array([by_product @ weights])


def _probabilities_cost(
    logs: list[np.ndarray], labels: np.ndarray, weights: np.ndarray, *, inverse_temperatures: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """As `_logits_cost`, for the mixture of probabilities with one temperature per input."""
    likelihood, slope = np.empty((len(logs), len(labels))), np.empty((len(logs), len(labels)))
    for i, each in enumerate(logs):
        log_likelihood, probabilities = _log_likelihood(each * inverse_temperatures[i], labels)
        likelihood[i] = np.exp(log_likelihood)
        slope[i] = (probabilities * each).sum(axis=1) - each[np.arange(len(labels)), labels]
    mixture = np.maximum(weights @ likelihood, np.finfo(np.float64).tiny)
    ratio = likelihood / mixture
    return -np.log(mixture).sum(), -ratio.sum(axis=1), (weights[:, None] * ratio * slope).sum(axis=1)


def _log_likelihood(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log likelihood of the labels, N, and the softmax of the logits, N x classes."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    sums = exponentials.sum(axis=1, keepdims=True)
    return shifted[np.arange(len(labels)), labels] - np.log(sums[:, 0]), exponentials / sums


def minimize_bfgs(cost: Cost, x: np.ndarray) -> np.ndarray:
    """Return a minimum of a smooth function, searched from x by BFGS with backtracking (Nocedal and Wright, Numerical
    Optimization, algorithms 6.1 and 3.1).

    cost: returns the value and the gradient."""
    value, gradient = cost(x)
    inverse_hessian = np.eye(len(x))
    for _ in range(MAX_ITERATIONS):
        if np.abs(gradient).max() < GRADIENT_TOLERANCE:
            break
        direction = -inverse_hessian @ gradient
        if direction @ gradient >= 0:
            inverse_hessian, direction = np.eye(len(x)), -gradient
        length = min(1.0, 2 / np.abs(direction).max())
        while (new := cost(x + length * direction))[0] > value + SUFFICIENT_DECREASE * length * (direction @ gradient):
            length /= 2
            if length < MIN_STEP:
                return x
        s, y = length * direction, new[1] - gradient
        if s @ y > MIN_CURVATURE:
            factor = np.eye(len(x)) - np.outer(s, y) / (s @ y)
            inverse_hessian = factor @ inverse_hessian @ factor.T + np.outer(s, s) / (s @ y)
        x, value, gradient = x + s, *new
    return x
