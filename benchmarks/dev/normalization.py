"""The cost of normalization groups: a training step with groups, compared with one without, on one worker.

    python -m lgd.benchmarks.dev.normalization nano-rgb
    python -m lgd.benchmarks.dev.normalization kinetics400-rgb-r50 --batch-size 16 --sampling.frames 4   # or others

The same network trains on the same random clips with groups of `--normalization-group` clips and without groups
(`torch.nn.BatchNorm3d` over all clips of the step), in turn, in one process with one thread. A round is a few steps of
each; the ratio is the median of the rounds' ratios. Claim: a step with groups takes at most 1.05 times as long.
"""

import statistics
import sys
import time
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from tyro.conf import Positional, arg

from lgd.benchmarks.claims import ClaimsResult
from lgd.pipeline.console.command_line import Json, Line, run_and_print
from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.console.option_parser import parse_command
from lgd.pipeline.dataset.dataset import STREAMS
from lgd.pipeline.loading.loader import Batch
from lgd.training.recipes import TrainConfig, recipe_defaults
from lgd.training.steps.step import create_network, train_step
from lgd.training.steps.step_groups import StepGroups

MAX_RATIO = 1.05
CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class NormalizationBenchmark(ClaimsResult):
    """The result of the benchmark."""

    recipe: str
    clips: int
    group: int
    device: str
    grouped_s: float
    """Median time of a step with groups, seconds."""
    plain_s: float
    """Median time of a step without groups, seconds."""
    ratio: float
    """Time with groups / time without, median over the rounds."""
    ratios: list[float]
    """Of each round."""

    def lines(self) -> list[Line]:
        return [
            f"{self.recipe}, {self.clips} clips per step on {self.device}: {self.grouped_s:.3f} s with groups of "
            f"{self.group}, {self.plain_s:.3f} s without",
            f"ratio {self.ratio:.3f}, rounds {', '.join(f'{ratio:.3f}' for ratio in self.ratios)}",
        ]


class _Steps:
    """Trains on the same random clips again and again."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        self.network, self.optimizer = create_network(config, CLASSES, device)
        self.groups = StepGroups(config, 0, workers=1, device=device)
        channels, side, n = STREAMS[config.stream].channels, config.transform.crop, config.batch_size
        video = torch.randn(n, channels, config.sampling.frames, side, side, device=device)
        video = video.contiguous(memory_format=torch.channels_last_3d)
        label = torch.arange(n, device=device) % CLASSES
        self.batch = Batch(video, label, [""] * n, list(range(n)))

    def seconds(self, steps: int) -> float:
        """Return the time per step."""
        self._wait()
        start = time.perf_counter()
        for _ in range(steps):
            train_step(
                self.network,
                self.network,
                self.optimizer,
                batch=self.batch,
                config=self.config,
                groups=self.groups,
                lr=self.config.optimizer.lr,
                workers=1,
            )
        self._wait()
        return (time.perf_counter() - start) / steps

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def run(recipe: str, config: TrainConfig, *, steps: int, rounds: int) -> NormalizationBenchmark:
    """Measure. steps: of each kind in a round."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = config.statistics_group
    kinds = {group: _Steps(replace(config, normalization_group=group), device) for group in (size, 0)}
    for trained in kinds.values():
        trained.seconds(2)  # compiles the kernels
    rows: list[dict[int, float]] = []
    for number in range(rounds):
        order = list(kinds)[:: 1 if number % 2 == 0 else -1]
        rows.append({group: kinds[group].seconds(steps) for group in order})
    ratios = [row[size] / row[0] for row in rows]
    ratio = statistics.median(ratios)
    return NormalizationBenchmark(
        recipe=recipe,
        clips=config.batch_size,
        group=size,
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu, one thread",
        grouped_s=statistics.median(row[size] for row in rows),
        plain_s=statistics.median(row[0] for row in rows),
        ratio=ratio,
        ratios=ratios,
        claims_not_met=[f"a step takes {ratio:.3f} times as long with groups"] if ratio > MAX_RATIO else [],
    )


def normalization(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help="Name of a recipe; `lgd recipes` lists them.")],
    *,
    steps: Annotated[int, arg(help="Steps of each kind in a round.")] = 5,
    rounds: Annotated[int, arg(help="Rounds, of which the median counts.")] = 5,
    config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),
    json: Json = False,
) -> NormalizationBenchmark:
    """Measure the cost of normalization groups."""
    if min(steps, rounds) < 1:
        raise UsageError("--steps and --rounds must be 1 or more")
    if not config.statistics_group:
        raise UsageError("there are no groups to measure: give --normalization-group, and no --freeze-normalization")
    return run(recipe, config, steps=steps, rounds=rounds)


def main() -> None:
    """Run the script."""
    words = sys.argv[1:]
    program = "python -m lgd.benchmarks.dev.normalization"
    run_and_print(words, lambda: parse_command(normalization, words, program, defaults=recipe_defaults(words))())


if __name__ == "__main__":
    main()
