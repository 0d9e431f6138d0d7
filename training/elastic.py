"""`lgd train`: run the training loop with Ray Train on the available resources, between a minimum and a maximum number
of workers. Nodes may leave and join in the meantime."""

import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lgd.pipeline.console import signals
from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import Progress, say
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.splits import missing_split
from lgd.pipeline.placement import ShortageWatch, cluster_nodes, count_fitting, count_gpus, gpu_share
from lgd.pipeline.storage.cache import CacheConfig
from lgd.pipeline.storage.lock import locked
from lgd.training.metrics_file import parse_line
from lgd.training.options import ResumeOptions
from lgd.training.resume_from import go_back
from lgd.training.run import CHECKPOINTS, ERROR, METRICS, Run, changed_fields, save_changes
from lgd.training.side_files import read_message, repair, result_problem
from lgd.training.stop import StopOptions, last_checkpoint
from lgd.training.worker import TrainJob, train_worker

# How long Ray waits for the resources of a worker group before it checks again what is available. A node that has just
# died counts as available until Ray notices; with Ray's default, 60 s, training would stop for that long. The time that
# workers need to start does not count.
START_TIMEOUT_S = 5
STATUS_EVERY_S = 0.5  # between two checks of the workers by Ray Train's controller
RESIZE_EVERY_S = 30.0  # between two checks for resources for more workers
POLL_S = 0.5  # of the metrics of a local run
REMOTE_POLL_S = 10.0  # of the metrics of a run in an object store, which are uploaded from time to time
NODES_EVERY_S = 1.0
MAX_CPUS = 9  # per worker with a GPU: 8 threads that decode, and the training itself


@dataclass(frozen=True)
class TrainResult(CommandResult):
    """Result of `lgd train`. The JSON document has the fields of the accuracy only if the run was validated."""

    run: str
    """Run folder."""
    steps: int
    """Steps of the training."""
    val_top1: float | None = None
    """Top-1 accuracy on the validation split after the last step, a fraction of 1."""
    val_top5: float | None = None
    """Top-5 accuracy on the validation split after the last step, a fraction of 1."""
    val_videos: int | None = None
    """Videos of the validation split."""

    OPTIONAL: ClassVar[tuple[str, ...]] = ("val_top1", "val_top5", "val_videos")

    def lines(self) -> list[Line]:
        accuracy = "" if self.val_top1 is None else f"; validation top-1 {self.val_top1:.1%}"
        return [f"{self.run}: {self.steps} steps{accuracy}"]


def worker_range(numbers: tuple[int, ...] | None) -> tuple[int, int] | None:
    """Return the minimum and maximum of `--num-workers`, which takes one number or two; None if it was not given.

    Raises UsageError for other numbers."""
    if numbers is None:
        return None
    if len(numbers) not in (1, 2) or not 1 <= numbers[0] <= numbers[-1]:
        given = " ".join(map(str, numbers)) or "none"
        raise UsageError(f"--num-workers must be one number or a minimum and a maximum, 1 or more, not {given}")
    return numbers[0], numbers[-1]


def run_training(
    run: Run,
    dataset: Dataset,
    workers: tuple[int, int] | None,
    *,
    start_cluster: Callable[[], None],
    cache_config: CacheConfig = CacheConfig(),
    stop: StopOptions = StopOptions(),
    resume: ResumeOptions = ResumeOptions(),
) -> TrainResult:
    """Train a run to its last step on the cluster, holding its lock. A finished run is not changed.

    workers: minimum and maximum number; None: from 1 to one per GPU, or one per CPU on a cluster without GPUs.
    cache_config: cache of each worker's node, for a remote dataset. stop: what is done after a signal.
    resume: the checkpoint to go back to; a finished run is then trained again from there.
    Raises UserError for an error that the user can fix, if the workers failed too often, and if another command trains
    the run."""
    going_back = resume.resume_from is not None
    if not going_back and (finished := _finished(run, dataset)) is not None:
        return finished
    split = run.config.split
    videos, unlabelled = dataset.labeled(split), dataset.unlabelled(split)
    if not videos and unlabelled:
        raise UserError(
            f"{dataset.storage.display()}: none of the {unlabelled} videos of the split {split} has a label: "
            "preprocess videos with labels"
        )
    if not videos:
        raise missing_split(dataset, split)
    with locked(run.storage, "lgd train") as storage:
        # By a command that held the lock before.
        if not going_back and (finished := _finished(run, dataset)) is not None:
            return finished
        for folder in ("", CHECKPOINTS):
            storage.clean(folder)
        run = replace(run, storage=storage)
        repair(run, run.config.steps(videos))
        if resume.resume_from is not None:
            go_back(run, resume.resume_from, changed_fields(run))
        save_changes(run)
        if unlabelled:
            say(f"{unlabelled} of {videos + unlabelled} videos of the split {split} have no label and are left out")
        try:
            result = _train(
                run,
                dataset,
                workers,
                launch=storage.token,
                start_cluster=start_cluster,
                cache_config=cache_config,
                stop=stop,
            )
        except KeyboardInterrupt:
            _end_workers()
            for folder in ("", CHECKPOINTS):
                storage.clean(folder)
            raise
    return _train_result(run, result)


def _finished(run: Run, dataset: Dataset) -> TrainResult | None:
    """Return the result of a run that is finished already; None if it is damaged."""
    if result_problem(run, run.config.steps(dataset.labeled(run.config.split))) or (result := run.result()) is None:
        return None
    say(f"{run.storage.display()} is already finished ({result['steps']} steps); nothing to do")
    return _train_result(run, result)


def _train(
    run: Run,
    dataset: Dataset,
    workers: tuple[int, int] | None,
    *,
    launch: str,
    start_cluster: Callable[[], None],
    cache_config: CacheConfig,
    stop: StopOptions,
) -> dict[str, Any]:
    """Train a run whose lock this process holds and return the content of result.json. launch: token of the lock."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(START_TIMEOUT_S))
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(STATUS_EVERY_S))
    start_cluster()
    import ray.train
    from ray.train import TrainingFailedError

    from lgd.training.trainer import create_trainer

    nodes = cluster_nodes()
    needs = gpu_share(nodes, MAX_CPUS) or {"CPU": 1.0}
    min_workers, max_workers = workers or (1, max(count_gpus(nodes) or count_fitting(needs, nodes), 1))
    max_workers = min(max_workers, run.config.batch_size)
    total = run.config.steps(dataset.labeled(run.config.split))
    say(
        f"training {run.recipe} for {total} steps of {run.config.batch_size} clips on {min_workers} to {max_workers} "
        "workers"
    )

    job = TrainJob(run.storage.address, dataset.storage.address, launch, cache_config)
    # Ray Train may still write to it while it is removed.
    with tempfile.TemporaryDirectory(prefix="lgd-ray-train-", ignore_cleanup_errors=True) as scratch:
        signals.remove_if_killed(scratch)
        trainer = create_trainer(
            train_worker,
            vars(job),
            scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]  # mypy sees the one of Ray Train v1
                num_workers=max_workers if min_workers == max_workers else (min_workers, max_workers),  # type: ignore[arg-type]  # v1
                elastic_resize_monitor_interval_s=RESIZE_EVERY_S,
                use_gpu="GPU" in needs,
                resources_per_worker=needs,
            ),
            # Ray Train's own record of the run, which is not used: checkpoints and metrics are in the run folder.
            run_config=ray.train.RunConfig(
                name=launch,
                storage_path=scratch,
                failure_config=ray.train.FailureConfig(max_failures=-1),  # `check_progress` limits the restarts
            ),
        )
        watch = ShortageWatch("worker", needs, minimum=min_workers, advice="add nodes, or change --num-workers")
        with MetricsWatcher(run, total), NodeWatcher(watch):
            try:
                trainer.fit()
            except TrainingFailedError as error:
                run.storage.check_lock()
                _raise_user_error(run, launch)
                if (cause := _user_error(error)) is not None:
                    raise cause from error
                raise UserError(
                    f"training stopped ({_last_line(error)}): fix the cause, then rerun to resume from the last "
                    "checkpoint"
                ) from error
            except KeyboardInterrupt:
                signals.advise(last_checkpoint(run.storage, stop.grace_s))
                raise
    run.storage.check_lock()
    _raise_user_error(run, launch)
    result = run.result()
    if result is None:
        raise UserError("training ended before its last step: rerun to resume")
    return result


def _end_workers() -> None:
    """End the workers of a training that is stopped, so that they do not write any more."""
    import ray

    ray.shutdown()
    signals.kill_children()


def _train_result(run: Run, result: dict[str, Any]) -> TrainResult:
    """Return the TrainResult of a finished run from the content of result.json."""
    accuracy = {name: result.get(name) for name in ("val_top1", "val_top5", "val_videos")}
    return TrainResult(run.storage.display(), result["steps"], **accuracy)


def _raise_user_error(run: Run, launch: str) -> None:
    """Raise the UserError that a worker of this launch wrote to the run folder, if any."""
    if (error := read_message(run.storage, ERROR)) is not None and error.launch == launch:
        raise UserError(error.message)


def _user_error(error: Any) -> UserError | None:
    """Return the UserError that stopped Ray Train's controller, for example when a worker joined the others."""
    cause = getattr(getattr(error, "controller_failure", None), "cause", None)  # of a RayTaskError
    return UserError(str(cause)) if isinstance(cause, UserError) else None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class NodeWatcher:
    """Prints when nodes join or leave the cluster, and what is missing if too few workers fit; lets Ray Train know at
    once: by itself it checks every 20 s."""

    def __init__(self, watch: ShortageWatch) -> None:
        self._shortage = watch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        from lgd.training.trainer import update_resources

        known = None
        while not self._stop.wait(NODES_EVERY_S):
            nodes = cluster_nodes()
            self._shortage.count(nodes)
            alive = {node.id for node in nodes}
            if known is not None and alive != known:
                say(f"nodes of the cluster: {len(alive)} ({len(alive - known)} joined, {len(known - alive)} left)")
                update_resources()
            known = alive


class MetricsWatcher:
    """Reads the metrics of a run on the driver and shows them as a progress bar."""

    def __init__(self, run: Run, total: int):
        self._storage = run.storage
        self._progress = Progress("train", total, "steps")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._progress.__enter__()
        self._thread.start()

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self._thread.join()
        self._progress.__exit__(None, None, None)

    def _follow(self) -> None:
        position = self._storage.size(METRICS) or 0
        note = "waiting for workers"
        step, damaged = 0, False
        while not self._stop.wait(POLL_S if self._storage.local else REMOTE_POLL_S):
            self._progress.update(step, note)
            size = self._storage.size(METRICS) or 0
            if size <= position:
                continue
            new = self._storage.read_range(METRICS, position, size - position)
            new = new[: new.rfind(b"\n") + 1]  # without a last line that is not complete yet
            position += len(new)
            for line in map(parse_line, new.split(b"\n")[:-1]):
                if line is None:
                    if not damaged:
                        say(f"{self._storage.display(METRICS)} has a damaged line, which is left out")
                    damaged = True
                    continue
                step = line["step"]
                if "resumed" in line:
                    say(f"resuming from the checkpoint of step {step}" if step else "restarting: no checkpoint yet")
                elif "say" in line:
                    say(line["say"])
                elif "val_top1" in line:
                    say(f"step {step}: validation top-1 {line['val_top1']:.1%}, top-5 {line['val_top5']:.1%}")
                else:
                    note = (
                        f"loss {line['loss']:.3f}, {line['clips_per_s']:.0f} clips/s, "
                        f"waiting for data {line['data_wait']:.0%}, {line['workers']} workers"
                    )
