"""What runs in every worker of a training. None of the modules that the driver and Ray Train's controller import needs
torch or DALI, so that both start seconds earlier."""

import json
import traceback
from dataclasses import dataclass, replace
from typing import Any

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.storage.cache import CacheConfig, opened_cache
from lgd.pipeline.storage.lock import LockedStorage, LockLost
from lgd.training.run import ERROR, FAILURE, STARTS, Run, open_run
from lgd.training.run_dataset import training_dataset
from lgd.training.side_files import read_message, read_starts
from lgd.training.steps.memory import is_memory_error, memory_advice

MAX_STARTS = 8  # of the workers without a new checkpoint


@dataclass(frozen=True)
class TrainJob:
    """Arguments of `train_worker`.

    run, data: folders. launch: id of the `lgd train` process: the token of its lock of the run, so that the workers
    write only as long as it is held, and an error of an earlier launch is not reported as an error of this one.
    cache_config: cache of the worker's node, for a remote dataset."""

    run: str
    data: str
    launch: str
    cache_config: CacheConfig = CacheConfig()


def train_worker(settings: dict[str, Any]) -> None:
    """Train as one worker; called by Ray Train. settings: fields of a TrainJob.

    A UserError is written to the run folder for the driver, and the workers do not start again, nor after the lock of
    the run was lost. After any other exception Ray Train restarts the workers from the last checkpoint."""
    import ray
    import ray.train

    job = TrainJob(**settings)
    run = replace(open_run(job.run), storage=LockedStorage(job.run, job.launch))
    try:
        run.storage.check_lock()
    except LockLost:
        return  # the driver reports it
    if (error := read_message(run.storage, ERROR)) is not None and error.launch == job.launch:
        return
    try:
        if ray.train.get_context().get_world_rank() == 0:
            check_progress(run, job.launch)
        from lgd.training.loop import train

        with opened_cache(job.cache_config) as cache:
            train(run, training_dataset(run, open_dataset(job.data, cache)))
    except LockLost:
        raise
    except UserError as error:
        run.storage.write(ERROR, json.dumps({"launch": job.launch, "message": str(error)}).encode())
        raise
    except Exception as error:
        if is_memory_error(error):  # a restart would not help
            workers = ray.train.get_context().get_world_size()
            on_gpu = bool(ray.get_gpu_ids())
            line = memory_advice(run.config, workers, on_gpu=on_gpu)
            run.storage.write(ERROR, json.dumps({"launch": job.launch, "message": line}).encode())
            raise UserError(line) from error
        message = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        run.storage.write(FAILURE, json.dumps({"launch": job.launch, "message": message}).encode())
        raise


def check_progress(run: Run, launch: str) -> None:
    """Count the starts of the workers since the newest checkpoint.

    Workers may restart any number of times as long as there are new checkpoints in between. Raises UserError after
    MAX_STARTS starts without a new checkpoint."""
    from lgd.training import checkpoint

    newest = (checkpoint.names(run) or ["the start"])[0]
    last = read_starts(run.storage)
    no_progress = last is not None and (last.launch, last.checkpoint) == (launch, newest)
    starts = last.starts + 1 if last is not None and no_progress else 1
    run.storage.write(STARTS, json.dumps({"launch": launch, "checkpoint": newest, "starts": starts}).encode())
    if starts > MAX_STARTS:
        failure = read_message(run.storage, FAILURE)
        reason = "workers died without an error message, see Ray's logs"
        if failure is not None and failure.launch == launch:
            reason = failure.message
        raise UserError(
            f"no progress past {newest} in {MAX_STARTS} restarts ({reason}): fix the cause, then rerun to resume from "
            "there"
        )
