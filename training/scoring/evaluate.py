"""Scores of a split on a cluster: Ray tasks that score a part of it each, and one table of them all in the end.

OUT.parts/<identity>-000012.parquet     while it goes on
OUT                                     when all parts are in; then they are removed

The split alone decides the parts, so that they are the same whatever the cluster. `identity` is a hash of all that
decides the scores: a part that is there under it is not computed again, and finished scores that have it are left
alone. Neither the number of workers nor the batch is in it: they change float32's rounding at most.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import open_dataset
from lgd.pipeline.loading.clip_order import rank_slice
from lgd.pipeline.storage.cache import CacheConfig
from lgd.pipeline.storage.storage import Storage, folder_and_name, folder_beside
from lgd.pipeline.tasks import Task, run_tasks
from lgd.training import checkpoint
from lgd.training.recipes import flatten
from lgd.training.run import Run
from lgd.training.scoring.inference import check_stream_spec, chosen_checkpoint, trained_network
from lgd.training.scoring.protocol import CheckpointChoice, ScoringResources, TestProtocol
from lgd.training.scoring.score_task import ScoreCounters, ScoreJob, part_name, score_part
from lgd.training.scoring.scores import identity_of, scores_writer

VERSION = 1  # of what is computed: another one makes other identities
MIN_PARTS = 16  # of a split, where it has so many videos: something for every worker, and little lost with one
MAX_VIDEOS = 64  # in a part
MAX_CPUS = 8  # that a task with a GPU takes unless it is told otherwise
PART = re.compile(r"[0-9a-f]{16}-\d{6}\.parquet")


@dataclass(frozen=True)
class EvaluateResult:
    """protocol: in words. parts_made, parts_there: that this run made, and found."""

    out: str
    protocol: str
    videos: int
    parts_made: int
    parts_there: int
    wall_s: float


def evaluate(
    run: Run,
    data: str,
    split: str,
    *,
    out: str,
    protocol: TestProtocol,
    which: CheckpointChoice,
    resources: ScoringResources,
    start_cluster: Callable[[], None],
    cache_config: CacheConfig = CacheConfig(),
) -> EvaluateResult:
    """Scores a split of a dataset with a run's checkpoint, or what is missing of it, and writes the table `out`.

    Raises UserError for a run without a sound checkpoint, a dataset with other classes, another recipe or without the
    split, a damaged frame, a full disk and a store that does not answer; what was scored before that stays."""
    started = time.monotonic()
    dataset = open_dataset(data)
    recipe = check_stream_spec(run, dataset)
    splits = dataset.summary["splits"]
    if not (videos := splits.get(split)):
        has = ", ".join(sorted(name for name, count in splits.items() if count)) or "none"
        raise UserError(f"{dataset.storage.display()} has no split {split!r}: it has {has}")
    above, name = folder_and_name(out)
    if above.exists(name) and above.size(name) is None:
        raise UsageError(f"--out {out} is a folder: give the name of a file in it")
    content = chosen_checkpoint(run, which)
    file = checkpoint.name_of(content["step"])
    trained_network(
        run, content["model"], torch.device("cpu"), shown=run.storage.display(file)
    )  # or one line says why not
    about = {
        "stream": run.config.stream,
        "model": run.config.model.name,
        "recipe": run.recipe,
        "run": _public(run.storage),
        "step": content["step"],
        "checkpoint": file,
        "protocol": protocol.describe(run.config),
        "clips": protocol.clips_of(run.config),
        "crops": protocol.crops,
        "frames": run.config.sampling.frames,
        "precision": protocol.precision,
        "data": _public(dataset.storage),
        "data_recipe": recipe.hash,
        "fingerprint": dataset.fingerprint,
    }
    count = parts_of(videos)
    decides = [VERSION, about, flatten(run.config), _digest(content["model"]), split, count, sorted(protocol.keep)]
    identity = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    folder = folder_beside(out, ".parts")
    if identity_of(out) == identity:
        say(f"{out} is finished already: {about['protocol']} of {videos} videos; nothing to do")
        _discard(folder)
        return EvaluateResult(out, about["protocol"], videos, 0, count, time.monotonic() - started)

    folder.make_folder()
    folder.clean()
    there = set(folder.names())
    missing = [part for part in range(count) if part_name(identity, part) not in there]
    say(f"scoring {videos} videos of {split} by step {content['step']} of {run.storage.display()}: {about['protocol']}")
    if len(missing) < count:
        say(f"{count - len(missing)} of {count} parts are there already")
    if others := sum(bool(PART.fullmatch(name)) and not name.startswith(identity) for name in there):
        say(f"{folder.display()} has {others} parts of another evaluation, which go when this one is finished")
    if missing:
        start_cluster()
        import ray

        needs = needs_of(resources)
        weights = ray.put({key: value.numpy() for key, value in content["model"].items()})
        threads, device = max(int(needs["CPU"]), 1), "cuda" if "GPU" in needs else "cpu"
        job = ScoreJob(
            run,
            weights,
            dataset,
            split,
            protocol,
            folder,
            identity,
            count,
            resources.batch,
            threads,
            device,
            cache_config,
        )
        tasks = [
            Task(
                f"part {part}", score_part, {"job": job, "part": part}, len(rank_slice(0, videos, part, workers=count))
            )
            for part in missing
        ]
        run_tasks("evaluate", tasks, needs, workers=resources.workers, total=ScoreCounters())
    with scores_writer(out, dataset.classes, split, about=about, identity=identity) as write:
        for part in range(count):
            write(_read_part(folder, part_name(identity, part), len(rank_slice(0, videos, part, workers=count))))
    _discard(folder)
    return EvaluateResult(
        out, about["protocol"], videos, len(missing), count - len(missing), time.monotonic() - started
    )


def needs_of(resources: ScoringResources) -> dict[str, float]:
    """What one task takes, by Ray's names, of the cluster that this process is in: a GPU, if it has any."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for_each_gpu = [node.get("CPU", 1) // node["GPU"] for node in nodes if node.get("GPU", 0) >= 1]
    if not for_each_gpu:
        return {"CPU": resources.cpus_per_task or 1}
    return {"CPU": resources.cpus_per_task or min(max(min(for_each_gpu), 1), MAX_CPUS), "GPU": 1}


def parts_of(videos: int) -> int:
    """How many parts a split of so many videos is cut into."""
    return min(videos, max(MIN_PARTS, -(-videos // MAX_VIDEOS)))


def _read_part(folder: Storage, name: str, videos: int) -> pa.Table:
    """The rows of a part. Raises UserError where it is gone or damaged, and then removes it."""
    shown = folder.display(name)
    try:
        with folder.open_whole(name) as file:
            table = pq.read_table(file, page_checksum_verification=True)
        if table.num_rows == videos:
            return table
    except FileNotFoundError as error:
        raise UserError(
            f"{shown} is gone: its folder must be the same on every node of the cluster, and no other evaluation may "
            "write the same --out; run the same command again to go on"
        ) from error
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
    folder.delete(name)
    raise UserError(f"{shown} was damaged and is removed: run the same command again to have it scored anew")


def _discard(folder: Storage) -> None:
    """Removes the parts of finished evaluations, and their folder if there is nothing else in it."""
    folder.clean()
    for name in folder.names():
        if PART.fullmatch(name):
            with contextlib.suppress(FileNotFoundError):
                folder.delete(name)
    if folder.local:
        with contextlib.suppress(OSError):
            os.rmdir(folder.base)


def _digest(weights: dict[str, torch.Tensor]) -> str:
    """Of the weights by name: other ones have another."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.numpy()).data)
    return digest.hexdigest()


def _public(storage: Storage) -> str:
    """What opens a folder from anywhere, without the password that its address may hold."""
    return storage.base if storage.local else storage.display()
