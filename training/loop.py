"""The training loop of one worker, from top to bottom.

What is trained on at a step depends on the step alone: the global batch, the learning rate and the samples are the
same whatever the number of workers. Each clip weighs 1 / (global batch), so that the sum of the workers' gradients is
the gradient of the whole batch however unevenly it is cut.
"""

import json
import math
import resource
import time
from dataclasses import dataclass
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from pipeline.cache import Caching, ShardCache, opened_cache
from pipeline.dataset import Dataset, open_dataset
from pipeline.errors import UserError
from pipeline.loader import Delivery, train_loader, uniform_loader
from training import checkpoint
from training.evaluate import CLIPS_AT_ONCE, autocast, predict
from training.models.lgd import Network
from training.models.zoo import build
from training.run import ERROR, METRICS, RESULT, Run, open_run
from training.start import start_weights

LOG_EVERY_S = 2.0  # also the pace of ray.train.report, which is a barrier


@dataclass(frozen=True)
class Job:
    """What a worker is told. launch: which start of the run this is, so that an old start's error is not taken for
    this one's. caching: of the worker's machine, for a remote dataset."""

    run: str
    data: str
    launch: str
    caching: Caching = Caching()


def train_worker(job: dict[str, Any]) -> None:
    """What Ray Train runs in every worker. An error that is the user's to mend is written to the run folder for the
    driver, and is not tried again; any other lets Ray Train start the workers anew from the last checkpoint."""
    told = Job(**job)
    run = open_run(told.run)
    if run.storage.exists(ERROR) and json.loads(run.storage.read(ERROR))["launch"] == told.launch:
        return
    try:
        with opened_cache(told.caching) as cache:
            train(run, open_dataset(told.data), cache)
    except UserError as error:
        run.storage.write(ERROR, json.dumps({"launch": told.launch, "message": str(error)}).encode())
        raise


def train(run: Run, dataset: Dataset, cache: ShardCache | None = None) -> None:
    """Trains from the newest checkpoint to the end, as one of the workers of the process group."""
    config = run.config
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()

    # Every worker builds the same network, then takes over what rank 0 found in the run folder.
    torch.manual_seed(config.seed)
    index_classes = len(dataset.classes)
    network = build(config.model, index_classes, channels=3 if config.stream == "rgb" else 2)
    network.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=config.optimizer.rate,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
    )
    first_step, origin = _resume(run, network, optimizer, rank, workers)
    model = DistributedDataParallel(network) if workers > 1 else network

    videos = dataset.summary["splits"]["train"]
    last_step = config.steps(videos)
    loader = train_loader(
        dataset,
        config.stream,
        config.batch,
        range(first_step, last_step),
        config.sampling,
        config.transform,
        seed=config.seed,
        rank=rank,
        workers=workers,
        delivery=Delivery(device, skip_damaged=config.skip_damaged, cache=cache),
    )
    log = Log(run, first_step) if rank == 0 else None
    if log and origin:
        log.say(origin)
    window = Window(first_step, device)
    next_log, last_checkpoint = first_step + 1, time.monotonic()
    validate_every = max(round(config.validation.every * videos / config.batch), 1) if config.validation.every else 0
    accuracy: dict[str, float] = {}

    for step, batch in enumerate(loader, first_step):
        network.train()
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step, videos)
        with autocast(config, device):
            output = model(batch.video)
        weight = torch.full((len(batch.key),), 1 / config.batch, device=device)
        losses = network.loss(output, batch.label, weight)
        optimizer.zero_grad(set_to_none=True)
        (losses.total * workers).backward()  # DistributedDataParallel takes the mean over workers; the sum is meant
        optimizer.step()
        right = network.probabilities(output).argmax(1) == batch.label
        window.add(losses.paths, (right * weight).sum().detach(), batch.key)

        done = step + 1
        if done >= next_log or done == last_step:
            # The only collective besides the gradients': all workers agree on the numbers and on what comes next.
            now = time.monotonic()
            wants = now - last_checkpoint > config.checkpoint.every_s
            report = window.reduce(run, loader.data_wait_s, loader.skipped, wants, rank)
            next_log = done + report.steps_until_next
            if log:
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                log.write(
                    {
                        "step": done,
                        "position": done * config.batch,
                        "epoch": round(done * config.batch / videos, 4),
                        **report.numbers,
                        "clips_per_s": round(report.steps * config.batch / report.seconds, 2),
                        "rate": config.rate(step, videos),
                        "workers": workers,
                        "memory_mb": round(memory),
                    }
                )
            if report.checkpoint or done == last_step:
                if rank == 0:
                    checkpoint.save(run, done, network, optimizer)
                last_checkpoint = time.monotonic()
            ray.train.report({"step": done})
        if (validate_every and done % validate_every == 0) or done == last_step:
            started = time.monotonic()
            accuracy = _validate(run, dataset, network, device, rank, workers, cache)
            if log and accuracy:
                log.write({"step": done, **accuracy})
            window.pause(time.monotonic() - started)
    if log:
        run.storage.write(RESULT, json.dumps({"steps": last_step, **accuracy}).encode() + b"\n")
        log.close()


def _resume(run: Run, network: Network, optimizer: torch.optim.Optimizer, rank: int, workers: int) -> tuple[int, str]:
    """Loads the newest sound checkpoint, the one that rank 0 finds, into every worker.

    Returns its step and, at the start of a run, where rank 0's weights come from; DistributedDataParallel hands
    rank 0's weights to the others."""
    found: list[Any] = [checkpoint.load_latest(run) if rank == 0 else None]
    if workers > 1:
        dist.broadcast_object_list(found, src=0)
    content = found[0]
    if content is None:
        return 0, start_weights(network, run.config, run.classes) if rank == 0 else ""
    network.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return content["step"], ""


def _validate(
    run: Run,
    dataset: Dataset,
    network: Network,
    device: torch.device,
    rank: int,
    workers: int,
    cache: ShardCache | None,
) -> dict[str, float]:
    """Top-1 and top-5 on the validation split, spread over the workers; nothing if the dataset has none."""
    if not dataset.summary["splits"].get(run.config.validation.split):
        return {}
    loader = uniform_loader(
        dataset,
        run.config.stream,
        run.config.validation.clips,
        run.config.sampling,
        run.config.transform,
        split=run.config.validation.split,
        most_clips=CLIPS_AT_ONCE,
        rank=rank,
        workers=workers,
        delivery=Delivery(device, cache=cache),
    )
    counts = torch.zeros(3, dtype=torch.float64)
    for row, probabilities in predict(network, loader, run.config):
        better = int((probabilities > probabilities[loader.index.labels[row]]).sum())
        counts += torch.tensor([better < 1, better < 5, 1], dtype=torch.float64)
    counts = counts.to(device)
    if workers > 1:
        dist.all_reduce(counts)
    top1, top5, videos = counts.tolist()
    return {"val_top1": top1 / videos, "val_top5": top5 / videos, "val_videos": int(videos)}


@dataclass(frozen=True)
class Report:
    """What the workers agree on at the end of a window."""

    steps: int
    seconds: float
    numbers: dict[str, float]
    checkpoint: bool
    steps_until_next: int


class Window:
    """The steps since the last line of the log. Numbers stay on the device until the window is reduced."""

    def __init__(self, step: int, device: torch.device):
        self._device, self._next_step, self._waited = device, step, 0.0
        self._begin()

    def _begin(self) -> None:
        self._first_step, self._started, self._paused = self._next_step, time.monotonic(), 0.0
        self._rows: list[torch.Tensor] = []
        self._keys: list[list[str]] = []

    def add(self, paths: dict[str, torch.Tensor], right: torch.Tensor, keys: list[str]) -> None:
        """Numbers of one step, each this worker's part of the global batch's mean."""
        self._paths = list(paths)
        self._rows.append(torch.stack([*paths.values(), right]))
        self._keys.append(keys)
        self._next_step += 1

    def pause(self, seconds: float) -> None:
        """Leaves seconds that were spent on something else out of the step time."""
        self._paused += seconds

    def reduce(self, run: Run, data_wait_s: float, skipped: int, wants_checkpoint: bool, rank: int) -> Report:
        """Sums over the workers and begins the next window.

        Raises UserError, in every worker, when a loss was not finite."""
        seconds = max(time.monotonic() - self._started - self._paused, 1e-9)
        steps = len(self._rows)
        pace = max(round(LOG_EVERY_S * steps / seconds), 1)
        # The pace and the wish for a checkpoint are rank 0's; summed with zeros of the others they reach everybody.
        mine = [(data_wait_s - self._waited) / seconds, 1.0, skipped]
        mine += [pace, wants_checkpoint] if rank == 0 else [0, 0]
        everything = torch.cat([torch.stack(self._rows).double().flatten(), torch.tensor(mine, device=self._device)])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(everything)
        rows, (waited, workers, skipped, pace, wants) = everything[:-5].view(steps, -1), everything[-5:].tolist()
        finite = rows.isfinite().all(dim=1)
        if not finite.all():
            bad = int((~finite).nonzero()[0])
            newest = checkpoint.names(run)
            raise UserError(
                f"the loss is not finite after step {self._first_step + bad} (this worker's clips: "
                f"{', '.join(self._keys[bad])}): train with a smaller --optimizer.rate; "
                f"last good checkpoint: {newest[0] if newest else 'none yet'}"
            )
        means = rows.mean(dim=0).tolist()
        numbers = {f"loss_{path}": round(value, 6) for path, value in zip(self._paths, means, strict=False)}
        report = Report(
            steps,
            seconds,
            {
                "loss": round(math.fsum(means[:-1]), 6),
                **numbers,
                "top1": round(means[-1], 4),
                "step_s": round(seconds / steps, 4),
                "data_wait": round(waited / workers, 4),
                "skipped": int(skipped),
            },
            bool(wants),
            int(pace),
        )
        self._waited = data_wait_s
        self._begin()
        return report


class Log:
    """metrics.jsonl and TensorBoard, written by rank 0.

    A run that goes on from a checkpoint writes some steps a second time: a line with `resumed` says that what stands
    before it and is of a later step does not count."""

    def __init__(self, run: Run, step: int):
        local = run.storage.path()
        self._file = open(f"{local}/{METRICS}", "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (closed in close)
        self._board = SummaryWriter(f"{local}/tensorboard", purge_step=step)
        if step:
            self._file.write(json.dumps({"step": step, "resumed": True}) + "\n")

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        self._file.write(json.dumps({"step": 0, "say": text}) + "\n")

    def write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps({**line, "time": round(time.time(), 3)}) + "\n")
        for name, value in line.items():
            if name != "step":
                self._board.add_scalar(name, value, line["step"])
        self._board.flush()

    def close(self) -> None:
        self._file.close()
        self._board.close()
