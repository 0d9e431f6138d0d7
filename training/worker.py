"""What Ray Train runs in every worker. Of the modules that the driver and Ray Train's controller import, none needs
torch or DALI: they start seconds sooner without."""

import json
import traceback
from dataclasses import dataclass
from typing import Any

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.storage.cache import CacheConfig, opened_cache
from lgd.training.run import ERROR, FAILURE, STARTS, Run, open_run

MAX_STARTS = 8  # of the workers without a new checkpoint


@dataclass(frozen=True)
class TrainJob:
    """What a worker is told. launch: which start of the run this is, so that an old start's error is not taken for
    this one's. cache_config: of the worker's machine, for a remote dataset."""

    run: str
    data: str
    launch: str
    cache_config: CacheConfig = CacheConfig()


def train_worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs in every worker. An error that is the user's to mend is written to the run folder for the
    driver, and is not tried again; any other lets Ray Train start the workers anew from the last checkpoint."""
    import ray.train

    job = TrainJob(**settings)
    run = open_run(job.run)
    if run.storage.exists(ERROR) and json.loads(run.storage.read(ERROR))["launch"] == job.launch:
        return
    try:
        if ray.train.get_context().get_world_rank() == 0:
            _refuse_standstill(run, job.launch)
        from lgd.training.loop import train

        with opened_cache(job.cache_config) as cache:
            train(run, open_dataset(job.data, cache))
    except UserError as error:
        run.storage.write(ERROR, json.dumps({"launch": job.launch, "message": str(error)}).encode())
        raise
    except Exception as error:
        said = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        run.storage.write(FAILURE, json.dumps({"launch": job.launch, "said": said}).encode())
        raise


def _refuse_standstill(run: Run, launch: str) -> None:
    """Counts the starts of workers since the newest checkpoint; nodes may come and go for weeks, as long as there is
    progress. Raises UserError after MOST_STARTS without."""
    from lgd.training import checkpoint

    newest = (checkpoint.names(run) or ["the start"])[0]
    before = json.loads(run.storage.read(STARTS)) if run.storage.exists(STARTS) else {}
    same = (before.get("launch"), before.get("checkpoint")) == (launch, newest)
    starts = before["starts"] + 1 if same else 1
    run.storage.write(STARTS, json.dumps({"launch": launch, "checkpoint": newest, "starts": starts}).encode())
    if starts > MAX_STARTS:
        failure = json.loads(run.storage.read(FAILURE)) if run.storage.exists(FAILURE) else {}
        said = failure["said"] if failure.get("launch") == launch else "workers died without a word, see Ray's log"
        raise UserError(
            f"training has come no further than {newest} in {MAX_STARTS} starts ({said}): mend that, and run the same "
            "command again to go on from there"
        )
