"""A recipe's training step on this machine: clips and multiply-accumulates per second, waiting for data, memory.

ours     the recipe as configured: channels last, its precision and micro-batch size, compiled or not; random clips
plain    what a first script would do: float32, contiguous, eager, the complete batch at once; the same clips
data     the recipe as configured, on the clips of a dataset, with the loader

All run the training step of `lgd train` as one worker on random weights. Each runs in a child process, which is started
again in every round; they run in turn, in the opposite order every second round, and a ratio is the median of the
rounds' ratios. A training step counts as three forward passes; waiting for data is part of the step's time. The memory
is the peak of the GPU's, or of the process's on a CPU.

Claims: at least as fast as plain, and at most 5% of the time spent waiting for data.
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.table import Column, Table

from lgd.benchmarks.claims import ClaimsResult
from lgd.benchmarks.isolated import run_isolated
from lgd.benchmarks.train_child import StepJob, encode_job
from lgd.pipeline.console.command_line import Line
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import STREAMS, open_dataset
from lgd.pipeline.storage.storage import absolute_path
from lgd.training.models.zoo import check_model_config, count
from lgd.training.recipes import TrainConfig

VARIANTS = ("ours", "plain", "data")
CLASSES = 400  # of the random clips
PASSES = 3  # a training step costs as much as this many forward passes
# Of dense bfloat16 matrix products: what they reach. Data sheets say 989, 989, 312 and 362.
BF16_PEAK_TFLOPS = {"H100": 790.0, "H200": 790.0, "A100": 250.0, "L40S": 290.0}

MIN_OVER_PLAIN = 1.0
MAX_DATA_WAIT = 0.05

Round = dict[str, dict[str, Any]]  # variant -> numbers of `train_child.measure`


@dataclass(frozen=True)
class VariantNumbers:
    """Numbers of one variant, medians over the rounds."""

    step_s: float
    """Time per step, seconds."""
    clips_per_s: float
    """Clips per second."""
    gmac_per_s: float
    """10^9 multiply-accumulates per second."""
    data_wait: float
    """Fraction of the time spent waiting for data."""
    memory_mb: float
    """Peak memory of all rounds, MB: of the GPU, or of the process on a CPU."""


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What is measured: the recipe and its fields, the size of the network, the device."""

    recipe: str
    """Name of the recipe."""
    model: str
    """Name of the network."""
    frames: int
    """Frames per clip."""
    crop: int
    """Side of the square crop, pixels."""
    batch: int
    """Clips per step."""
    micro_batch: int | None
    """Maximum clips that are computed at the same time; null (None) without a maximum."""
    precision: str
    """Precision of the network."""
    compile: bool
    """Whether torch.compile compiles the blocks of the network."""
    parameters: int
    """Number of parameters of the network."""
    forward_gmac_per_clip: float
    """10^9 multiply-accumulates per clip and forward pass."""
    device: str
    """Name of the GPU, or "cpu"."""
    threads: int
    """Threads for computation on a CPU."""
    rounds: int
    """Number of rounds."""
    steps: int
    """Measured steps per round."""


@dataclass(frozen=True, kw_only=True)
class TrainBenchmark(StepSettings, ClaimsResult):
    """Result of `lgd bench train`."""

    ours: VariantNumbers
    """The recipe as configured, with random clips."""
    plain: VariantNumbers
    """What a first script would do: float32, eager, the complete batch at once; with random clips."""
    data: VariantNumbers | None
    """The recipe as configured, with clips of the dataset; only with a dataset."""
    ratios: dict[str, float]
    """Speed and memory of ours divided by plain; speed with the dataset's clips divided by random clips."""
    ours_of_bf16_peak: float | None
    """Fraction of the bfloat16 operations per second that matrix products reach on the GPU; only for a GPU for which
    they are known."""

    OPTIONAL: ClassVar[tuple[str, ...]] = ("data", "ours_of_bf16_peak")

    def lines(self) -> list[Line]:
        names = ("s/step", "clips/s", "GMAC/s", "data wait", "memory, MB")
        table = Table("variant", *(Column(name, justify="right") for name in names))
        variants = {
            "ours, random clips": self.ours,
            "plain, random clips": self.plain,
            "ours, clips of the dataset": self.data,
        }
        for title, numbers in variants.items():
            if numbers is not None:
                speeds = (f"{value:.3g}" for value in (numbers.step_s, numbers.clips_per_s, numbers.gmac_per_s))
                table.add_row(title, *speeds, f"{numbers.data_wait:.1%}", f"{numbers.memory_mb:.0f}")
        comparison = (
            f"ours is {self.ratios['ours_over_plain']:.2f} times as fast as plain and uses "
            f"{self.ratios['memory_ours_over_plain']:.2f} times the memory"
        )
        if "data_over_random" in self.ratios:
            comparison += (
                f"; clips of the dataset: {self.ratios['data_over_random']:.2f} times the speed of random clips"
            )
        if self.ours_of_bf16_peak is not None:
            comparison += f"; {self.ours_of_bf16_peak:.1%} of the speed of bfloat16 matrix products"
        device = self.device if self.device != "cpu" else f"CPU, threads: {self.threads}"
        return [
            f"{self.recipe}: {self.batch} clips per step, {self.frames} frames of {self.crop} x {self.crop}, on "
            f"{device}; {self.forward_gmac_per_clip:.3g} GMAC per clip and forward pass, {PASSES} passes per training "
            "step",
            f"ours: {self.precision}, channels last, {'compiled' if self.compile else 'eager'}; "
            "plain: float32, contiguous, eager",
            table,
            comparison,
        ]


def run(
    recipe: str, config: TrainConfig, data: str | None, *, steps: int, rounds: int, threads: int = 1
) -> TrainBenchmark:
    """Run the benchmark.

    data: folder of a dataset; None for random clips only. steps: per variant and round. threads: for computation on a
    CPU. Raises UserError for a missing or unsuitable dataset, UsageError for an invalid configuration."""
    classes = len(open_dataset(data).classes) if data else CLASSES
    channels = STREAMS[config.stream].channels
    check_model_config(config.model, classes, channels)
    jobs = {
        "ours": StepJob(config, False, None, classes, steps, threads),
        "plain": StepJob(config, True, None, classes, steps, threads),
    }
    if data:
        jobs["data"] = StepJob(config, False, absolute_path(data), classes, steps, threads)
    measured: list[Round] = []
    for number in range(rounds):
        by_variant: Round = {}
        for variant in list(jobs) if number % 2 == 0 else reversed(jobs):
            by_variant[variant] = run_isolated(
                "lgd.benchmarks.train_child", encode_job(jobs[variant]), name=f"a training step ({variant})"
            )
            speed = config.batch_size / statistics.median(by_variant[variant]["step_s"])
            say(f"round {number + 1} of {rounds}, {variant}: {speed:.2f} clips/s")
        measured.append(by_variant)
    size = count(config.model, classes, channels, size=config.transform.crop)
    settings = StepSettings(
        recipe=recipe,
        model=config.model.name,
        frames=config.model.clip_frames,
        crop=config.transform.crop,
        batch=config.batch_size,
        micro_batch=config.micro_batch_size,
        precision=config.precision,
        compile=measured[0]["ours"]["compiled"],
        parameters=size.parameters,
        forward_gmac_per_clip=size.gmac,
        device=measured[0]["ours"]["device"],
        threads=threads,
        rounds=rounds,
        steps=steps,
    )
    return summarize(settings, measured)


def summarize(settings: StepSettings, rounds: Sequence[Round]) -> TrainBenchmark:
    """Compute all numbers, medians over the rounds."""
    variants = [variant for variant in VARIANTS if variant in rounds[0]]
    speeds = {
        variant: [settings.batch * len(step_s) / sum(step_s) for step_s in _values(rounds, variant, "step_s")]
        for variant in variants
    }
    numbers = {}
    for variant in variants:
        clips_per_s = statistics.median(speeds[variant])
        numbers[variant] = VariantNumbers(
            step_s=statistics.median(itertools.chain.from_iterable(_values(rounds, variant, "step_s"))),
            clips_per_s=clips_per_s,
            gmac_per_s=PASSES * settings.forward_gmac_per_clip * clips_per_s,
            data_wait=statistics.median(_values(rounds, variant, "data_wait")),
            memory_mb=max(_values(rounds, variant, "memory_mb")),
        )
    ours, plain, data = numbers["ours"], numbers["plain"], numbers.get("data")
    over = {
        variant: statistics.median(
            ours_speed / other for ours_speed, other in zip(speeds["ours"], speeds[variant], strict=True)
        )
        for variant in variants
    }
    ratios = {"ours_over_plain": over["plain"], "memory_ours_over_plain": ours.memory_mb / plain.memory_mb}
    if data is not None:
        ratios["data_over_random"] = 1 / over["data"]
    peak = next((tflops for name, tflops in BF16_PEAK_TFLOPS.items() if name in settings.device), None)
    return TrainBenchmark(
        **vars(settings),
        ours=ours,
        plain=plain,
        data=data,
        ratios=ratios,
        ours_of_bf16_peak=2 * ours.gmac_per_s / 1e3 / peak if peak else None,
        claims_not_met=claims_not_met(over["plain"], data),
    )


def _values(rounds: Sequence[Round], variant: str, name: str) -> list[Any]:
    return [by_variant[variant][name] for by_variant in rounds]


def claims_not_met(ours_over_plain: float, data: VariantNumbers | None) -> list[str]:
    """Return the claims that the measurements do not support."""
    broken = []
    if ours_over_plain < MIN_OVER_PLAIN:
        broken.append(f"{ours_over_plain:.2f} times as fast as plain (required: {MIN_OVER_PLAIN:g})")
    if data is not None and data.data_wait > MAX_DATA_WAIT:
        broken.append(f"{data.data_wait:.1%} of the time spent waiting for data (maximum: {MAX_DATA_WAIT:.0%})")
    return broken
