"""The training loop of one worker, from top to bottom.

What is trained on at a step depends on the step alone: the global batch, the learning rate and the samples are the
same whatever the number of workers. Each clip weighs 1 / (global batch), so that the sum of the workers' gradients is
the gradient of the whole batch however unevenly it is cut.
"""

import contextlib
import json
import resource
import time
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.loading.loader import Batch, LoaderOptions, train_loader, uniform_loader
from lgd.training import checkpoint
from lgd.training.compile import compiled
from lgd.training.metrics_log import LogWindow, MetricsLog
from lgd.training.models.lgd import Network
from lgd.training.models.zoo import build
from lgd.training.recipes import TrainConfig
from lgd.training.run import RESULT, Run
from lgd.training.scoring.inference import CLIPS_PER_BATCH, autocast, score_batches
from lgd.training.start import start_weights

MIN_BETWEEN_EPOCHS_S = 10.0  # from one checkpoint to that of an epoch's end


def train(run: Run, dataset: Dataset) -> None:
    """Trains from the newest checkpoint to the end, as one of the workers of the process group."""
    config = run.config
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where NCCL puts what it broadcasts

    # Every worker builds the same network, then takes over what rank 0 found in the run folder.
    torch.manual_seed(config.seed)
    network, optimizer = fresh(config, len(dataset.classes), device)
    first_step, origin = _resume(run, network, optimizer, rank=rank, workers=workers)
    model = compiled(network, device) if config.compile else network
    if workers > 1:
        model = DistributedDataParallel(model)

    videos = dataset.summary["splits"]["train"]
    last_step = config.steps(videos)
    loader = train_loader(
        dataset,
        config.stream,
        config.batch_size,
        steps=range(first_step, last_step),
        sampling=config.sampling,
        transform=config.transform,
        seed=config.seed,
        rank=rank,
        workers=workers,
        options=LoaderOptions(device, skip_damaged=config.skip_damaged),
    )
    log = MetricsLog(run, first_step) if rank == 0 else None
    if log and origin:
        log.say(origin)
    window, writer = LogWindow(first_step, config.batch_size, device), checkpoint.CheckpointWriter(run)
    next_log, preempted, saved_epoch = first_step + 1, False, first_step * config.batch_size // videos
    validate_every = (
        max(round(config.validation.every * videos / config.batch_size), 1) if config.validation.every else 0
    )
    accuracy: dict[str, float] = {}

    def validate(done: int) -> dict[str, float]:
        found = _validate(run, dataset, network, device=device, rank=rank, workers=workers)
        if log and found:
            log.write({"step": done, **found})
            if writer.is_best(found["val_top1"]):
                log.flush()
                writer.save(done, network, optimizer, best_top1=found["val_top1"])
        return found

    for step, batch in enumerate(loader, first_step):
        paths, right = train_step(
            model,
            network,
            optimizer,
            batch=batch,
            config=config,
            rate=config.learning_rate(step, videos),
            workers=workers,
        )
        window.add(paths, right, batch.key, positions=batch.position)

        done = step + 1
        validates = done == last_step or (validate_every > 0 and done % validate_every == 0)
        # A window ends before every checkpoint: the lines up to it are then written, and its losses known to be sound.
        if done >= next_log or validates:
            # The only collectives besides the gradients': all workers agree on the numbers and on the next time.
            report = window.reduce(run, loader.data_wait_s, loader.skipped, rank=rank)
            next_log = done + report.steps_until_next
            if log:
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                log.write(
                    {
                        "step": done,
                        "positions": [
                            (done - report.steps) * config.batch_size,
                            done * config.batch_size,
                        ],  # each was taken once
                        "epoch": round(done * config.batch_size / videos, 4),
                        **report.numbers,
                        "clips_per_s": round(report.steps * config.batch_size / report.seconds, 2),
                        "rate": config.learning_rate(step, videos),
                        "workers": workers,
                        "memory_mb": round(memory),
                        "losses": report.losses,
                    }
                )
            ray.train.report({"step": done})
            hurry = not preempted and ray.train.get_preemption_info() is not None
            preempted |= hurry  # a node goes away soon: what it has learnt must not
            if log and hurry:
                log.say("a node is about to be taken away: writing a checkpoint")
            epoch = done * config.batch_size // videos
            due = writer.age_s > (MIN_BETWEEN_EPOCHS_S if epoch > saved_epoch else config.checkpoint.every_s)
            if log and (due or hurry or done == last_step):
                log.flush()
                writer.save(done, network, optimizer)
                saved_epoch = epoch
        if validates:
            started = time.monotonic()
            accuracy = validate(done)
            window.pause(time.monotonic() - started)
    if first_step == last_step:  # killed between its last checkpoint and the end of the validation
        accuracy = validate(last_step)
    writer.close()
    if log:
        run.storage.write(RESULT, json.dumps({"steps": last_step, **accuracy}).encode() + b"\n")
        log.close()


def fresh(config: TrainConfig, classes: int, device: torch.device) -> tuple[Network, torch.optim.Optimizer]:
    """The configuration's network, not trained yet, and what trains it."""
    network = build(config.model, classes, channels=3 if config.stream == "rgb" else 2)
    network.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=config.optimizer.lr,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
    )
    return network, optimizer


def train_step(
    model: Any,
    network: Network,
    optimizer: torch.optim.Optimizer,
    *,
    batch: Batch,
    config: TrainConfig,
    rate: float,
    workers: int,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """One step on this worker's part of a global batch. model: the network as it is called, compiled or distributed.

    Returns the losses by path and the share of right answers, each this worker's part of the global batch's mean."""
    network.train()
    if config.freeze_normalization:
        freeze_normalization(network)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    paths, right = _gradients(model, network, batch, config=config, workers=workers)
    if config.optimizer.max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.max_grad_norm)
    optimizer.step()
    return paths, right


def _gradients(
    model: Any, network: Network, batch: Batch, *, config: TrainConfig, workers: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The gradient of this worker's part of the global batch, in pieces of the micro-batch, summed over the workers."""
    weight = torch.full((len(batch.key),), 1 / config.batch_size, device=batch.video.device)
    size = config.micro_batch_size or len(batch.key)
    paths: dict[str, torch.Tensor] = {}
    right = weight.new_zeros(())
    for first in range(0, len(batch.key), size):
        part = slice(first, first + size)
        last = first + size >= len(batch.key)
        alone = contextlib.nullcontext() if last or workers == 1 else model.no_sync()
        with alone:
            with autocast(config.precision, batch.video.device):
                output = model(batch.video[part])
            losses = network.loss(output, batch.label[part], weight[part])
            (losses.total * workers).backward()  # DistributedDataParallel takes the mean over workers; the sum is meant
        for path, loss in losses.paths.items():
            paths[path] = paths.get(path, 0) + loss.detach()
        found = network.probabilities(output).argmax(1) == batch.label[part]
        right += (found * weight[part]).sum().detach()
    return paths, right


def freeze_normalization(network: torch.nn.Module) -> None:
    """Batch normalization with its running statistics, unchanged, so that a clip does not depend on its batch."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def _resume(
    run: Run, network: Network, optimizer: torch.optim.Optimizer, *, rank: int, workers: int
) -> tuple[int, str]:
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
    *,
    device: torch.device,
    rank: int,
    workers: int,
) -> dict[str, float]:
    """Top-1 and top-5 on the validation split, spread over the workers; nothing if the dataset has none."""
    if not dataset.summary["splits"].get(run.config.validation.split):
        return {}
    loader = uniform_loader(
        dataset,
        run.config.stream,
        run.config.validation.clips,
        sampling=run.config.sampling,
        transform=run.config.transform,
        split=run.config.validation.split,
        max_clips=CLIPS_PER_BATCH,
        rank=rank,
        workers=workers,
        options=LoaderOptions(device),
    )
    counts = torch.zeros(3, dtype=torch.float64)
    for video in score_batches(network, loader, run.config.precision):
        better = int((video.probabilities > video.probabilities[loader.index.labels[video.row]]).sum())
        counts += torch.tensor([better < 1, better < 5, 1], dtype=torch.float64)
    counts = counts.to(device)
    if workers > 1:
        dist.all_reduce(counts)
    top1, top5, videos = counts.tolist()
    return {"val_top1": top1 / videos, "val_top5": top5 / videos, "val_videos": int(videos)}
