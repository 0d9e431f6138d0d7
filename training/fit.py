"""Weights and temperatures of a fusion, fitted on other videos than those that are reported."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from pipeline.errors import UserError
from training.fuse import ROWS_AT_ONCE, Rule, Space
from training.join import Joined, check_classes, unlabelled
from training.metrics import SMALLEST
from training.scores import named

ITERATIONS = 200
HOTTEST = 20.0  # temperatures lie between 1 / HOTTEST and HOTTEST
SAME_MODEL = ("stream", "model", "recipe", "step", "weights", "temperatures", "space")


def fitted_rule(fitting: Joined, space: Space) -> Rule:
    """Weights and temperatures with the least negative log likelihood of the fused predictions on labelled videos.

    Found by L-BFGS in double precision from equal weights and temperatures of 1, so never worse than those; the same
    numbers every time. In the space of logits only weight / temperature matters, and all inputs share one temperature:
    the problem is convex. In the space of probabilities every input has a temperature of its own. Temperatures stay
    within 1/20 and 20, which they near where the videos do not determine them (all predicted right, say)."""
    tables = [torch.from_numpy(np.ascontiguousarray(each.probabilities)) for each in fitting.inputs]
    labels = torch.from_numpy(fitting.first.labels)
    raw_weights = torch.zeros(len(tables), dtype=torch.float64, requires_grad=True)
    raw_heat = torch.zeros(1 if space == "logits" else len(tables), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [raw_weights, raw_heat],
        max_iter=ITERATIONS,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def rule() -> tuple[torch.Tensor, torch.Tensor]:
        limit = float(np.log(HOTTEST))
        return raw_weights.log_softmax(0), torch.exp(limit * torch.tanh(raw_heat / limit)).expand(len(tables))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for start in range(0, len(labels), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            log_weights, temperatures = rule()
            tempered = [
                (table[rows].double().clamp_min(SMALLEST).log() / temperature).log_softmax(1)
                for table, temperature in zip(tables, temperatures, strict=True)
            ]
            part = _loss(tempered, log_weights, labels[rows], space) / len(labels)
            part.backward()
            loss += part.detach()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        log_weights, temperatures = rule()
    return Rule(tuple(log_weights.exp().tolist()), tuple(temperatures.tolist()), space)


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
    parts = [about.get("inputs") for about in (ours, theirs)]
    if all(isinstance(each, list) for each in parts):
        if len(parts[0]) != len(parts[1]):
            return [*found, f"{len(parts[0])} and {len(parts[1])} inputs"]
        for one, other in zip(*parts, strict=True):
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


def _loss(
    tempered: Sequence[torch.Tensor], log_weights: torch.Tensor, labels: torch.Tensor, space: Space
) -> torch.Tensor:
    """Sum over videos of the negative log likelihood. tempered: log probabilities, videos x classes, of each input."""
    if space == "logits":
        mean = sum(weight * each for weight, each in zip(log_weights.exp(), tempered, strict=True))
        return torch.nn.functional.cross_entropy(torch.as_tensor(mean), labels, reduction="sum")
    of_label = torch.stack([each.gather(1, labels[:, None])[:, 0] for each in tempered])
    return -torch.logsumexp(of_label + log_weights[:, None], 0).sum()
