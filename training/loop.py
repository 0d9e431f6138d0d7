"""The training loop of one worker.

Clips, learning rate and global batch of a step depend only on the step, not on the number of workers.
"""

import inspect
import json
import resource
import time
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.loading.loader import MAX_DECODING_THREADS, LoaderOptions, train_loader, uniform_loader
from lgd.training import checkpoint
from lgd.training.metrics_log import LogWindow, MetricsLog
from lgd.training.models.frozen import describe_trained
from lgd.training.models.lgd import Network
from lgd.training.models.normalization import share_running_statistics
from lgd.training.run import RESULT, Run
from lgd.training.scoring.inference import CLIPS_PER_BATCH, score_batches
from lgd.training.start import share_start, start_weights
from lgd.training.steps.cuda_graph import CudaRecorder, GraphedBackward, share_start_weights
from lgd.training.steps.device_settings import fastest_convolutions, prepare_step
from lgd.training.steps.step import create_network, train_step
from lgd.training.steps.step_groups import StepGroups
from lgd.training.stop import StopRequest

# Option of DistributedDataParallel, by the version of PyTorch: do not copy rank 0's buffers before each forward pass.
_OPTIONS = inspect.signature(DistributedDataParallel.__init__).parameters
UNSYNCED_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers": False
}
MIN_BETWEEN_EPOCHS_S = 10.0  # seconds between a checkpoint and the checkpoint at the end of an epoch


def train(run: Run, dataset: Dataset) -> None:
    """Train from the newest checkpoint to the last step, as one worker of the process group."""
    config = run.config
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL puts the tensors that it broadcasts there

    # Every worker builds the same network, then loads the checkpoint that rank 0 finds.
    torch.manual_seed(config.seed)
    network, optimizer = create_network(config, len(dataset.classes), device)
    first_step, weights_source = _resume(run, network, optimizer, rank=rank, workers=workers)
    groups = StepGroups(config, rank, workers, device=device)
    settings = prepare_step(
        config,
        network,
        groups,
        classes=len(dataset.classes),
        device=device,
        workers=workers,
        local_workers=context.get_local_world_size(),
    )
    model: Any = network
    graphs: GraphedBackward | None = None
    if settings.graph:
        graphs = GraphedBackward(network, config, CudaRecorder(device), report=say)
        if workers > 1:
            share_start_weights(network)
    elif workers > 1:
        # Training does not read the running statistics; `_validate` gives all workers those of rank 0.
        model = DistributedDataParallel(model, **UNSYNCED_BUFFERS)

    videos = dataset.labeled(config.split)
    last_step = config.steps(videos)
    if first_step > last_step:
        raise UserError(
            f"{run.storage.display(checkpoint.checkpoint_name(first_step))} is of a step after the last one, "
            f"{last_step}: it belongs to a different run; delete it"
        )
    loader = train_loader(
        dataset,
        config.stream,
        config.batch_size,
        steps=range(first_step, last_step),
        sampling=config.sampling,
        transform=config.transform,
        split=config.split,
        seed=config.seed,
        rank=rank,
        workers=workers,
        group=config.statistics_group,
        options=LoaderOptions(device, threads=decoding_threads(), skip_damaged=config.skip_damaged),
    )
    log = MetricsLog(run, first_step) if rank == 0 else None
    if log and weights_source:
        log.say(weights_source)
    if log:
        log.say(str(settings))
    if log and workers > 1 and device.type == "cuda" and dist.get_backend() == "gloo":
        log.say("the workers run on parts of GPUs (MIG), which NCCL cannot use: gloo adds their gradients, more slowly")
    if log and config.freeze_until != "none":
        log.say(describe_trained(network))
    stop = StopRequest(run.storage) if rank == 0 else None
    window = LogWindow(first_step, config.batch_size, device)
    writer = checkpoint.CheckpointWriter(run)
    next_report, preempted, saved_epoch = first_step + 1, False, first_step * config.batch_size // videos
    validation_period = 0  # steps
    if config.validation.every:
        validation_period = max(round(config.validation.every * videos / config.batch_size), 1)
    accuracy: dict[str, float] = {}

    def validate(done: int) -> dict[str, float]:
        with fastest_convolutions(False):  # the frames have many sizes
            result = _validate(run, dataset, network, device=device, rank=rank, workers=workers)
        if log and result:
            log.write({"step": done, **result})
            if writer.is_best(result["val_top1"]):
                log.flush()
                writer.save(done, network, optimizer, best_top1=result["val_top1"])
        return result

    for step, batch in enumerate(loader, first_step):
        lr = config.learning_rate(step, videos)
        losses, correct, grad_norm = train_step(
            model, network, optimizer, batch=batch, config=config, groups=groups, lr=lr, workers=workers, graphs=graphs
        )
        window.add(losses, correct, batch.key, positions=batch.position, grad_norm=grad_norm)

        done = step + 1
        validation_due = done == last_step or (validation_period > 0 and done % validation_period == 0)
        # A window ends before every checkpoint: its lines are then written, and its losses are known to be finite.
        if done >= next_report or validation_due:
            # The only collective besides the gradients: all workers agree on the metrics and on the next report.
            report = window.reduce(run, loader.data_wait_s, loader.skipped, rank=rank)
            next_report = done + report.steps_until_next
            if log:
                clips, first_clip = done * config.batch_size, (done - report.steps) * config.batch_size
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                log.write(
                    {
                        "step": done,
                        "positions": [first_clip, clips],  # of the clip order; each was used once
                        "epoch": round(clips / videos, 4),
                        **report.metrics,
                        "clips_per_s": round(report.steps * config.batch_size / report.seconds, 2),
                        "rate": lr,
                        "workers": workers,
                        "memory_mb": round(memory),
                        "losses": report.losses,
                        "grad_norms": report.grad_norms,
                    }
                )
            ray.train.report({"step": done})
            preemption_announced = not preempted and ray.train.get_preemption_info() is not None
            preempted |= preemption_announced
            if log and preemption_announced:
                log.say("a node will be removed soon: writing a checkpoint")
            epoch = done * config.batch_size // videos
            due = writer.age_s > (MIN_BETWEEN_EPOCHS_S if epoch > saved_epoch else config.checkpoint.every_s)
            stopping = stop is not None and stop.received
            if log and (due or preemption_announced or stopping or done == last_step):
                log.flush()
                writer.save(done, network, optimizer)
                saved_epoch = epoch
            if log and stop and stopping:
                writer.close()
                log.close()
                stop.answer(done)
                return  # the driver ends the other workers
        if validation_due:
            started = time.monotonic()
            accuracy = validate(done)
            window.pause(time.monotonic() - started)
    if first_step == last_step:  # the run was killed between its last checkpoint and the end of the validation
        accuracy = validate(last_step)
    writer.close()
    if stop:
        stop.close()
    if log:
        run.storage.write(RESULT, json.dumps({"steps": last_step, **accuracy}).encode() + b"\n")
        log.close()


def decoding_threads() -> int:
    """Return the number of threads that decode in this worker: all its CPUs but one, 1 to
    MAX_DECODING_THREADS."""
    resources: dict[str, float] = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    cpus = resources.get("CPU", 1.0)
    return min(max(int(cpus) - 1, 1), MAX_DECODING_THREADS)


def _resume(
    run: Run, network: Network, optimizer: torch.optim.Optimizer, *, rank: int, workers: int
) -> tuple[int, str]:
    """Load the newest valid checkpoint that rank 0 finds into every worker.

    Returns its step, and lines of text on rank 0: checkpoints that cannot be used and, at the start of a run, the
    source of the initial weights; DistributedDataParallel copies rank 0's weights to the other workers."""
    problems: list[str] = []
    loaded: list[Any] = [checkpoint.load_latest(run, report=problems.append) if rank == 0 else None]
    if workers > 1:
        dist.broadcast_object_list(loaded, src=0)
    content = loaded[0]
    if content is None:
        started = start_weights(network, run.config, run.classes) if rank == 0 else None
        share_start(network, optimizer, started, workers=workers)
        return 0, "\n".join([*problems, *([str(started)] if started else [])])
    checkpoint.restore(run, content, network, optimizer=optimizer)
    return content["step"], "\n".join(problems)


def _validate(
    run: Run, dataset: Dataset, network: Network, *, device: torch.device, rank: int, workers: int
) -> dict[str, float]:
    """Return top-1 and top-5 on the validation split, computed by all workers together; {} if it has no videos with
    labels. All workers use the weights and statistics of rank 0, which its checkpoints contain."""
    if not dataset.labeled(run.config.validation.split):
        return {}
    if workers > 1 and not run.config.statistics_group:  # with normalization groups they are the same already
        share_running_statistics(network)
    loader = uniform_loader(
        dataset,
        run.config.stream,
        run.config.validation.clips,
        sampling=run.config.sampling,
        transform=run.config.transform,
        split=run.config.validation.split,
        max_clips=min(CLIPS_PER_BATCH, run.config.micro_batch_size or CLIPS_PER_BATCH),
        rank=rank,
        workers=workers,
        options=LoaderOptions(device, threads=decoding_threads()),
        labeled=True,
    )
    counts = torch.zeros(3, dtype=torch.float64)  # correct by top-1, by top-5, all
    for video in score_batches(network, loader, run.config.precision):
        better = int((video.probabilities > video.probabilities[loader.index.labels[video.row]]).sum())
        counts += torch.tensor([better < 1, better < 5, 1], dtype=torch.float64)
    counts = counts.to(device)
    if workers > 1:
        dist.all_reduce(counts)
    top1, top5, videos = counts.tolist()
    return {"val_top1": top1 / videos, "val_top5": top5 / videos, "val_videos": int(videos)}
