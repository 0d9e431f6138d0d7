"""Child process of `lgd.benchmarks.train`: measures one variant, with little memory in use and nothing compiled yet."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lgd.pipeline.console.command_line import stdout_for_result
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import STREAMS, open_dataset
from lgd.pipeline.loading.loader import MAX_DECODING_THREADS, Batch, LoaderOptions, train_loader
from lgd.training.config_file import from_flat_dict, to_flat_dict
from lgd.training.recipes import TrainConfig
from lgd.training.steps.cuda_graph import CudaRecorder, GraphedBackward
from lgd.training.steps.device_settings import prepare_step
from lgd.training.steps.step import create_network, train_step
from lgd.training.steps.step_groups import StepGroups

WARM_UP_STEPS = 2
GPU_WINDOW = 10  # steps between two times when the CPU waits for the GPU
GRAPH_STEPS = 4  # until a CUDA graph is recorded
# Batches that are ready before the first step, so that the first steps do not wait for data.
QUEUED_BATCHES = LoaderOptions().read_ahead + LoaderOptions().prefetch


@dataclass(frozen=True)
class StepJob:
    """A training step to measure.

    config: its `batch_size` is the worker's share of the batch. plain: float32, contiguous, eager, all clips at once.
    data: folder of the dataset of the clips; None for random clips of `classes` classes. steps: number of steps to
    measure. threads: for computation on a CPU."""

    config: TrainConfig
    plain: bool
    data: str | None
    classes: int
    steps: int
    threads: int


def measure(job: StepJob) -> dict[str, Any]:
    """Measure the steps of a job.

    Returns step_s (seconds of each step, waiting for data included; on a GPU the mean of GPU_WINDOW steps), data_wait
    (fraction of the time spent waiting for data), memory_mb (peak of the GPU's memory, or of the process's on a CPU),
    device (its name) and compiled (whether the blocks are)."""
    torch.set_num_threads(job.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = job.config
    if job.plain:
        model = replace(config.model, checkpoint_activations=False, convolutions="3d")
        config = replace(config, model=model, precision="float32", micro_batch_size=None, normalization_group=0)
        config = replace(config, compile=False, cuda_graph=False)
    torch.manual_seed(config.seed)
    network, optimizer = create_network(config, job.classes, device)
    if job.plain:
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        # The network converts its input to channels-last.
        network.stem.register_forward_pre_hook(lambda _, inputs: tuple(clip.contiguous() for clip in inputs))
    groups = StepGroups(config, 0, 1, device=device)
    settings = prepare_step(config, network, groups, classes=job.classes, device=device, workers=1, local_workers=1)
    say(str(settings))
    graphs = GraphedBackward(network, config, CudaRecorder(device), report=say) if settings.graph else None
    lr = config.optimizer.lr

    def run(steps: int) -> tuple[float, float]:
        """Return the time of these steps, and that of waiting for data, seconds."""
        start, waited = time.perf_counter(), 0.0
        for _ in range(steps):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            train_step(
                network,
                network,
                optimizer,
                batch=batch,
                config=config,
                groups=groups,
                lr=lr,
                workers=1,
                graphs=graphs,
            )
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, waited

    warm_up = WARM_UP_STEPS + (QUEUED_BATCHES if job.data else 0) + (GRAPH_STEPS if graphs else 0)
    batches = _dataset_batches(job, device, warm_up) if job.data else _random_batches(job, device)
    run(warm_up)
    # Training waits for the GPU only now and then, so that the CPU queues the next steps meanwhile.
    window = GPU_WINDOW if device.type == "cuda" else 1
    step_s: list[float] = []
    data_wait_s = 0.0
    for first in range(0, job.steps, window):
        steps = min(window, job.steps - first)
        seconds, waited = run(steps)
        step_s += [seconds / steps] * steps
        data_wait_s += waited
    cuda = device.type == "cuda"
    return {
        "step_s": step_s,
        "data_wait": data_wait_s / sum(step_s),
        "memory_mb": torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_mb(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "compiled": settings.compiled,
    }


def _random_batches(job: StepJob, device: torch.device) -> Iterator[Batch]:
    config, crop = job.config, job.config.transform.crop
    shape = (config.batch_size, STREAMS[config.stream].channels, config.model.clip_frames, crop, crop)
    video = torch.randn(shape, device=device).to(memory_format=torch.channels_last_3d)
    label = torch.randint(job.classes, (config.batch_size,), device=device)
    batch = Batch(video, label, [""] * config.batch_size, list(range(config.batch_size)))
    while True:
        yield batch


def _dataset_batches(job: StepJob, device: torch.device, warm_up: int) -> Iterator[Batch]:
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
        options=LoaderOptions(device, threads=_decoding_threads(device), skip_damaged=config.skip_damaged),
    )
    with contextlib.closing(loader):
        yield from loader


def _decoding_threads(device: torch.device) -> int:
    """Return the threads that decode: on a CPU one, which shares the core; beside a GPU as many as `lgd train` uses."""
    return 1 if device.type == "cpu" else min(max(len(os.sched_getaffinity(0)) - 1, 1), MAX_DECODING_THREADS)


def peak_mb() -> float:
    """Return the peak memory of this process, MB, without that of its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def encode_job(job: StepJob) -> str:
    """Return the job as JSON, the argument of the child process."""
    return json.dumps({**asdict(job), "config": to_flat_dict(job.config)})


def decode_job(text: str) -> StepJob:
    fields = json.loads(text)
    return StepJob(**{**fields, "config": from_flat_dict(TrainConfig, fields["config"], "the job")})


if __name__ == "__main__":
    with stdout_for_result(alone=True) as output:
        json.dump(measure(decode_job(sys.argv[1])), output)
