"""One way of training measured in a process of its own, which starts with little memory and nothing compiled."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lgd.pipeline.console.command_line import stdout_for_result
from lgd.pipeline.dataset.dataset import STREAMS, open_dataset
from lgd.pipeline.loading.loader import Batch, LoaderOptions, train_loader
from lgd.training.compile import compiled
from lgd.training.loop import fresh, train_step
from lgd.training.recipes import TrainConfig, flatten, unflatten

WARM_UP_STEPS = 2
QUEUED_BATCHES = (
    LoaderOptions().read_ahead + LoaderOptions().prefetch
)  # are ready before the first step, and waited for by none


@dataclass(frozen=True)
class StepJob:
    """config: of the training, whose `batch` is the worker's share. plain: float32, contiguous, eager, all clips at
    once. data: the dataset's folder that the clips come from; without it they are random numbers of `classes` classes.
    steps: measured; threads: of the arithmetic on a CPU."""

    config: TrainConfig
    plain: bool
    data: str | None
    classes: int
    steps: int
    threads: int


def measure(job: StepJob) -> dict[str, Any]:
    """step_s: of each step, waiting for data included. data_wait: share of the time. memory_mb: the largest, of the GPU
    or of the process. device: its name."""
    torch.set_num_threads(job.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = replace(job.config, precision="float32", micro_batch_size=None, compile=False) if job.plain else job.config
    torch.manual_seed(config.seed)
    network, optimizer = fresh(config, job.classes, device)
    if job.plain:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        # The network takes its input in channels-last.
        network.stem.register_forward_pre_hook(lambda _, inputs: tuple(clip.contiguous() for clip in inputs))
    model: Any = compiled(network, device) if config.compile else network
    warm_up = WARM_UP_STEPS + (QUEUED_BATCHES if job.data else 0)
    batches = _loaded(job, device, warm_up) if job.data else _random(job, device)
    step_s, waits = [], []
    for _ in range(warm_up + job.steps):
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        train_step(model, network, optimizer, batch=batch, config=config, rate=config.optimizer.lr, workers=1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        step_s.append(time.perf_counter() - start)
    cuda = device.type == "cuda"
    return {
        "step_s": step_s[warm_up:],
        "data_wait": sum(waits[warm_up:]) / sum(step_s[warm_up:]),
        "memory_mb": torch.cuda.max_memory_allocated() / 2**20 if cuda else resident_mb(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def _random(job: StepJob, device: torch.device) -> Iterator[Batch]:
    config, crop = job.config, job.config.transform.crop
    shape = (config.batch_size, STREAMS[config.stream].channels, config.model.clip_frames, crop, crop)
    video = torch.randn(shape, device=device).to(memory_format=torch.channels_last_3d)
    label = torch.randint(job.classes, (config.batch_size,), device=device)
    batch = Batch(video, label, [""] * config.batch_size, list(range(config.batch_size)))
    while True:
        yield batch


def _loaded(job: StepJob, device: torch.device, warm_up: int) -> Iterator[Batch]:
    assert job.data is not None
    config, steps = job.config, range(warm_up + job.steps)
    loader = train_loader(
        open_dataset(job.data),
        config.stream,
        config.batch_size,
        steps=steps,
        sampling=config.sampling,
        transform=config.transform,
        seed=config.seed,
        options=LoaderOptions(device, skip_damaged=config.skip_damaged),
    )
    with contextlib.closing(loader):
        yield from loader


def resident_mb() -> float:
    """The most memory that this process has had, without what its parent had before."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def encoded(job: StepJob) -> str:
    return json.dumps({**asdict(job), "config": flatten(job.config)})


def decoded_job(text: str) -> StepJob:
    fields = json.loads(text)
    return StepJob(**{**fields, "config": unflatten(TrainConfig(), fields["config"])})


if __name__ == "__main__":
    with stdout_for_result(alone=True) as answer:
        json.dump(measure(decoded_job(sys.argv[1])), answer)
