"""Short trainings for tests, and what they wrote to their run folders."""

import json
from pathlib import Path

SMALL = (
    *("--transform.crop", 48, "--batch-size", 4, "--epochs", 15, "--validation.every", 5),
    *("--checkpoint.every-s", 0.5),
)


STEPS = 45  # of SMALL on the dataset of tests: 12 videos, 15 epochs, 4 a step


def train_command(data: Path, run: Path | str, *options: object) -> tuple[object, ...]:
    """Return the words of an `lgd train` command with SMALL and more options."""
    return ("train", "nano-rgb", "--data", data, "--run", run, *SMALL, *options)


def metrics(run: Path) -> list[dict]:
    """Return the lines of metrics.jsonl; [] if it does not exist yet."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def without_repeats(lines: list[dict]) -> list[dict]:
    """Return the lines that count: a `resumed` line discards the earlier lines of later steps."""
    kept: list[dict] = []
    for line in lines:
        if "resumed" in line:
            kept = [earlier for earlier in kept if earlier["step"] <= line["step"]]
        else:
            kept.append(line)
    return kept


def positions(lines: list[dict]) -> list[int]:
    """Return the positions of the clips that the steps of these lines used; the workers checked each other's."""
    return [position for line in lines if "positions" in line for position in range(*line["positions"])]


def losses(run: Path, name: str = "losses") -> list[float]:
    """Return the loss of every step, without those that were repeated. name: "grad_norms" for those instead."""
    by_step = {}
    for line in without_repeats(metrics(run)):
        for step, loss in enumerate(line.get(name, []), line["step"] - len(line.get(name, []))):
            by_step[step] = loss
    assert list(by_step) == list(range(len(by_step)))
    return list(by_step.values())
