"""Ray Train around the loop: as many workers as there are resources for, between a minimum and a maximum."""

import contextlib
import json
import os
import tempfile
import threading
import uuid
from collections.abc import Callable
from typing import Any

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import Progress, say
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.storage.cache import CacheConfig
from lgd.training.run import ERROR, METRICS, Run
from lgd.training.worker import TrainJob, train_worker

# Ray waits so long for the room for a worker group before it looks again how much there is. A node that has just died
# counts until it is missed; with Ray's own choice, 60 s, a run would stand still meanwhile. How long workers take to
# start does not count.
ROOM_TIMEOUT_S = 5
STATUS_EVERY_S = 0.5  # between two looks of Ray Train's controller at its workers: whether they died or are done
RESIZE_EVERY_S = 30.0  # between two looks whether there is room for more workers
POLL_S = 0.5
REMOTE_POLL_S = 10.0  # where metrics come now and then
NODES_EVERY_S = 1.0


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
) -> dict[str, Any]:
    """Trains a run to its end on the cluster and returns its result; a finished run does nothing.

    workers: fewest and most; by default from 1 to one a GPU, or one a CPU where there is no GPU.
    cache_config: of each worker's machine, for a remote dataset.
    Raises UserError for what the user can mend, and when the workers failed too often."""
    if (finished := run.result()) is not None:
        say(f"{run.storage.root} is finished already ({finished['steps']} steps); nothing to do")
        return finished
    videos = dataset.summary["splits"].get("train", 0)
    if not videos:
        raise UserError(f"{dataset.storage.display()} has no training split: preprocess it with one")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(ROOM_TIMEOUT_S))
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(STATUS_EVERY_S))
    start_cluster()
    import ray
    import ray.train
    from ray.train import TrainingFailedError

    from lgd.training.trainer import NodeTorchConfig, Trainer

    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    min_workers, max_workers = workers or (1, max(gpus or cpus, 1))
    max_workers = min(max_workers, run.config.batch_size)
    total = run.config.steps(videos)
    say(
        f"training {run.recipe} for {total} steps of {run.config.batch_size} clips on {min_workers} to {max_workers} "
        "workers"
    )

    launch = uuid.uuid4().hex
    job = TrainJob(run.storage.address, dataset.storage.address, launch, cache_config)
    with tempfile.TemporaryDirectory(prefix="lgd-ray-train-") as scratch:
        trainer = Trainer(
            train_worker,
            train_loop_config=vars(job),
            backend_config=NodeTorchConfig(),
            scaling_config=ray.train.ScalingConfig(
                num_workers=max_workers if min_workers == max_workers else (min_workers, max_workers),  # type: ignore[arg-type]  # (since 2.55)
                elastic_resize_monitor_interval_s=RESIZE_EVERY_S,  # type: ignore[call-arg]
                use_gpu=gpus > 0,
                resources_per_worker={"GPU": 1, "CPU": max(cpus // max(gpus, 1) // 2, 1)} if gpus else {"CPU": 1},
            ),
            # Ray Train's own record of the run; ours, in the run folder, is the one that counts.
            run_config=ray.train.RunConfig(
                name=launch,
                storage_path=scratch,
                failure_config=ray.train.FailureConfig(max_failures=-1),  # the workers see to it that it ends
            ),
        )
        with Watcher(run, total), NodeWatch():
            try:
                trainer.fit()
            except TrainingFailedError as error:
                _raise_user_error(run, launch)
                raise UserError(
                    f"training stopped ({_last_line(error)}): mend that, and run the same command again to go on from "
                    "the last checkpoint"
                ) from error
    _raise_user_error(run, launch)
    result = run.result()
    if result is None:
        raise UserError("training ended before its last step: run the same command again to go on")
    return result


def _raise_user_error(run: Run, launch: str) -> None:
    """Raises what a worker of this launch found that the user can mend."""
    if run.storage.exists(ERROR):
        error = json.loads(run.storage.read(ERROR))
        if error["launch"] == launch:
            raise UserError(error["message"])


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class NodeWatch:
    """Has Ray Train learn of nodes that came and went when Ray itself does: by itself it looks every 20 s."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import ray

        seen = None
        while not self._stop.wait(NODES_EVERY_S):
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            if seen is not None and alive != seen:
                say(f"the cluster has {len(alive)} nodes now, {len(alive - seen)} new and {len(seen - alive)} gone")
                _renew_room()
            seen = alive


def _renew_room() -> None:
    """Has Ray Train's coordinator look anew at what the cluster has. A run of a fixed number of workers has none, and
    one that is about to end may be gone: nothing has to be told then."""
    import ray

    with contextlib.suppress(ValueError, ray.exceptions.RayError):
        coordinator = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
        ray.get(coordinator.get_reserved_resources.remote("lgd", recompute=True))


class Watcher:
    """Follows the run's metrics on the driver and shows them as a progress bar."""

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
        step = 0
        while not self._stop.wait(POLL_S if self._storage.local else REMOTE_POLL_S):
            self._progress.update(step, note)
            size = self._storage.size(METRICS) or 0
            if size <= position:
                continue
            new = self._storage.read_range(METRICS, position, size - position).decode()
            lines = new[: new.rfind("\n") + 1].splitlines()  # the last one may still be being written
            position += sum(len(line.encode()) + 1 for line in lines)
            for line in map(json.loads, lines):
                step = line["step"]
                if "resumed" in line:
                    say(
                        f"going on from the checkpoint after step {step}"
                        if step
                        else "beginning again: no checkpoint yet"
                    )
                elif "say" in line:
                    say(line["say"])
                elif "val_top1" in line:
                    say(f"step {step}: validation top-1 {line['val_top1']:.1%}, top-5 {line['val_top5']:.1%}")
                else:
                    note = (
                        f"loss {line['loss']:.3f}, {line['clips_per_s']:.0f} clips/s, "
                        f"waiting for data {line['data_wait']:.0%}, {line['workers']} workers"
                    )
