"""`lgd evaluate`: scores of a split, computed by Ray tasks that score one chunk of it each, then written as one file.

OUT.parts/<identity>-000012.parquet     score chunks, while the evaluation runs, under a lock of this folder
OUT                                     when all chunks are complete; then the chunks are deleted

The number of chunks depends on the work and on the cluster, see `lgd.training.scoring.chunk_plan`.
`identity` is a hash of everything that decides the scores: an existing chunk with this identity is not scored again,
and a finished score file with it is not changed. The numbers of workers and chunks and the batch size are not in it:
they change at most the rounding of float32.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import pyarrow as pa
import torch

from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.console.errors import StoreError, UsageError, UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.dataset.splits import check_has_split
from lgd.pipeline.loading.clip_order import rank_slice
from lgd.pipeline.placement import cluster_nodes, count_fitting, gpu_share
from lgd.pipeline.storage.cache import CacheConfig
from lgd.pipeline.storage.checked_arrow import damaged_if_invalid, read_parquet
from lgd.pipeline.storage.lock import LockedStorage, locked
from lgd.pipeline.storage.storage import Storage, folder_and_name, folder_beside
from lgd.pipeline.tasks import Task, run_tasks
from lgd.training import checkpoint
from lgd.training.config_file import RENAMED_FIELDS, to_flat_dict
from lgd.training.run import Run, open_run
from lgd.training.run_dataset import dataset_of, warn_if_trained_on
from lgd.training.scoring.chunk_plan import (
    CHUNK_FILE,
    begun_chunks,
    chunk_name,
    chunk_prefix,
    count_chunks,
    standard_chunks,
    video_work,
)
from lgd.training.scoring.class_table import check_output_files, write_class_table
from lgd.training.scoring.inference import check_dataset, load_checkpoint, load_network
from lgd.training.scoring.metrics import Metrics, accuracy_table, scores_summary
from lgd.training.scoring.protocol import CheckpointChoice, ScoringResources, TestProtocol
from lgd.training.scoring.score_chunk import ScoreCounters, ScoreJob, score_chunk
from lgd.training.scoring.scores import COLUMNS, identity_of, read_scores, rows_of, scores_writer, unlabelled_keys

VERSION = 1  # of the computation: part of the identity
MAX_CPUS = 8  # per task with a GPU, unless the user asks for more


@dataclass(frozen=True)
class EvaluateResult(CommandResult):
    """Result of `lgd evaluate`. The metrics (top1 to intervals) are those of the videos that have a label; if no video
    has one, the document has no metrics."""

    out: str
    """Score file."""
    protocol: str
    """How the videos were tested, in words."""
    videos: int
    """Videos of the split."""
    parts_made: int
    """Score chunks that this run computed."""
    parts_there: int
    """Score chunks that existed already."""
    wall_s: float
    """Seconds until the score file was complete."""
    unlabelled: int
    """Videos without a label."""
    top1: float | None = None
    """Fraction of the videos whose label is the most probable class."""
    top5: float | None = None
    """Fraction of the videos whose label is among the 5 most probable classes."""
    mean_class: float | None = None
    """Mean of the accuracies of the classes."""
    ece: float | None = None
    """Expected calibration error."""
    nll: float | None = None
    """Mean negative log likelihood, nats."""
    intervals: dict[str, list[float]] | None = None
    """95 % interval, [low, high], of top1 and top5 (Wilson score) and of mean_class (bootstrap)."""

    OPTIONAL: ClassVar[tuple[str, ...]] = ("top1", "top5", "mean_class", "ece", "nll", "intervals")

    def lines(self) -> list[Line]:
        summary = f"{self.out}: {self.videos} videos, {self.protocol}"
        unlabelled = f"{self.unlabelled} of {self.videos} videos have no label"
        if self.unlabelled == self.videos:
            return [summary, f"no accuracy: {unlabelled}"]
        metrics = {name: getattr(self, name) for name in Metrics.__annotations__}
        table = accuracy_table({self.out: cast(Metrics, {**metrics, "videos": self.videos - self.unlabelled})})
        return [summary, *([f"accuracy of the labeled videos: {unlabelled}"] if self.unlabelled else []), table]


def evaluate(
    folder: str,
    data: str,
    split: str,
    *,
    out: str,
    protocol: TestProtocol,
    which: CheckpointChoice,
    resources: ScoringResources,
    start_cluster: Callable[[], None],
    cache_config: CacheConfig = CacheConfig(),
    per_class: str | None = None,
) -> EvaluateResult:
    """Score a split of a dataset with a run's checkpoint, or its missing chunks, and write the score file `out`.

    folder: of the run. data: folder of the dataset. per_class: Parquet file for the accuracy of each class and the
    confusion matrix; not written if no video has a label. start_cluster: called only if a chunk is missing.
    Raises UsageError for an invalid `out` or `per_class`, and UserError for a run without a valid checkpoint, a dataset
    with different classes, with a different stream spec or without the split, a damaged frame, a full disk, an
    unreachable store and another evaluation that writes to `out` now; complete chunks are kept.
    """
    started = time.monotonic()
    check_output_files({"--out": out, "--per-class": per_class}, [])
    run = open_run(folder)
    dataset = dataset_of(run, open_dataset(data))
    check_dataset(run, dataset)
    check_has_split(dataset, split)
    videos = dataset.splits[split].videos
    warn_if_trained_on(run, dataset, split)
    if which == "best" and split == run.config.validation.split:
        say(
            f"the best checkpoint of {run.storage.display()} was chosen by its accuracy on the split {split}: this "
            "accuracy is too high; report the last checkpoint, or another split"
        )
    out_folder, out_name = folder_and_name(out)
    if out_folder.exists(out_name) and out_folder.size(out_name) is None:
        raise UsageError(f"--out {out} is a folder: give the name of a file in it")
    content = load_checkpoint(run, which)
    file = run.storage.display(checkpoint.checkpoint_name(content["step"]))
    load_network(run, content["model"], torch.device("cpu"), weights_name=file)  # fails here and not in a task
    metadata = _metadata(run, dataset, protocol, split=split, step=content["step"])
    fields, digest = _fields_of(run), _digest(content["model"])
    identity = _identity(VERSION, metadata, fields, digest, split, standard_chunks(videos), sorted(protocol.keep))
    chunk_folder = folder_beside(out, ".parts")
    missing, chunks = list[int](), 0
    complete = identity_of(out) == identity and _is_valid(out, videos)
    if complete:
        say(f"{out} is complete already ({videos} videos, {metadata['protocol']}): nothing to do")
    if not complete or chunk_folder.names():
        with locked(chunk_folder, "lgd evaluate") as locked_folder:
            if not complete:
                say(
                    f"scoring {videos} videos of the split {split} with step {content['step']} of "
                    f"{run.storage.display()}: {metadata['protocol']}"
                )
                begun = _begun_chunks(locked_folder, identity, videos)
                if begun is None:
                    start_cluster()
                    chunks = _plan(run, dataset, protocol, resources=resources, videos=videos)
                else:
                    chunks = begun
                prefix = chunk_prefix(identity, chunks, videos)
                existing = set(locked_folder.names())
                missing = [chunk for chunk in range(chunks) if chunk_name(prefix, chunk) not in existing]
                if len(missing) < chunks:
                    say(f"{chunks - len(missing)} of {chunks} score chunks already exist")
                if missing:
                    start_cluster()
                    needs = task_needs(resources)
                    on_gpus = "GPU" in needs
                    say(f"score chunks to compute: {len(missing)}, on {'GPUs' if on_gpus else 'CPUs'}")
                    job = ScoreJob(
                        run,
                        _shared(content["model"]),
                        dataset,
                        split,
                        protocol,
                        locked_folder,
                        prefix,
                        chunks,
                        resources.batch_size,
                        threads=max(int(needs.get("CPU", 1)), 1),
                        device="cuda" if on_gpus else "cpu",
                        cache_config=cache_config,
                    )
                    _score(job, missing, videos, needs=needs, num_workers=resources.num_workers)
                locked_folder.check_lock()
                with scores_writer(out, dataset.classes, split, metadata=metadata, identity=identity) as write:
                    for chunk in range(chunks):
                        size = _size(chunk, chunks, videos)
                        write(_read_chunk(locked_folder, chunk_name(prefix, chunk), size, classes=dataset.classes))
            _delete_chunks(locked_folder)
        if chunk_folder.local:
            with contextlib.suppress(OSError):  # it contains other files
                os.rmdir(chunk_folder.base)
    wall_s = time.monotonic() - started
    scores = read_scores(out)
    unlabelled = len(unlabelled_keys(scores))
    result = EvaluateResult(
        out, metadata["protocol"], videos, len(missing), chunks - len(missing), wall_s, unlabelled=unlabelled
    )
    if unlabelled == videos:
        return result
    if per_class:
        write_class_table(per_class, scores)
    return replace(result, **dict[str, Any]({**scores_summary(scores), "videos": videos}))


def task_needs(resources: ScoringResources) -> dict[str, float]:
    """Return the resources of one task by Ray's names: with a GPU, if a node of this process's cluster has one."""
    needs = gpu_share(cluster_nodes(), MAX_CPUS) or {"CPU": 1.0}
    return needs if resources.cpus_per_task is None else needs | {"CPU": resources.cpus_per_task}


def _plan(run: Run, dataset: Dataset, protocol: TestProtocol, *, resources: ScoringResources, videos: int) -> int:
    """Return the number of chunks for this process's cluster."""
    needs = task_needs(resources)
    tasks = min(count_fitting(needs, cluster_nodes()), resources.num_workers or 1 << 30)
    work = video_work(run.config, protocol, dataset.spec(run.config.stream))
    return count_chunks(videos, work, gpus=max(tasks, 1) if "GPU" in needs else 0)


def _metadata(run: Run, dataset: Dataset, protocol: TestProtocol, *, split: str, step: int) -> dict[str, Any]:
    """Return the `about` of the score file."""
    split_hash = dataset.split_hash(split)
    return {
        "stream": run.config.stream,
        "model": run.config.model.name,
        "recipe": run.recipe,
        "run": _public_address(run.storage),
        "step": step,
        "checkpoint": checkpoint.checkpoint_name(step),
        "protocol": protocol.describe(run.config),
        "clips": protocol.clips_of(run.config),
        "crops": protocol.crops,
        "frames": run.config.sampling.frames,
        "precision": protocol.precision,
        "data": _public_address(dataset.storage),
        "data_recipe": run.spec_hash,
        "fingerprint": dataset.fingerprint,
        **({} if split_hash is None else {"split_hash": split_hash}),
    }


def _fields_of(run: Run) -> dict[str, Any]:
    """Return the fields of the run's configuration by the names of version 0.1, without those that are newer than the
    run, so that evaluations that earlier versions began resume."""
    first_names = {new: old for old, new in RENAMED_FIELDS.items()}
    fields = {name: value for name, value in to_flat_dict(run.config).items() if name not in run.newer_fields}
    return {first_names.get(name, name): value for name, value in fields.items()}


def _identity(*decisive: Any) -> str:
    """Return a hash, 16 hexadecimal digits, of everything that decides the scores."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _begun_chunks(folder: LockedStorage, identity: str, videos: int) -> int | None:
    """Return the number of chunks with which this evaluation began, if it did."""
    folder.clean()
    names = folder.names()
    if others := sum(bool(CHUNK_FILE.fullmatch(name)) and not name.startswith(identity) for name in names):
        shown = folder.display()
        say(f"{shown} has {others} score chunks of a different evaluation: they are deleted when this one is complete")
    return begun_chunks(names, identity, videos)


def _shared(weights: Mapping[str, torch.Tensor]) -> Any:
    """Return Ray's reference to the weights."""
    import ray

    return ray.put({key: value.numpy() for key, value in weights.items()})


def _score(job: ScoreJob, missing: list[int], videos: int, *, needs: dict[str, float], num_workers: int | None) -> None:
    """Score the missing chunks on the cluster."""
    tasks = [
        Task(f"score chunk {chunk}", score_chunk, {"job": job, "chunk": chunk}, _size(chunk, job.chunks, videos))
        for chunk in missing
    ]
    run_tasks("evaluate", tasks, needs, workers=num_workers, total=ScoreCounters())


def _size(chunk: int, chunks: int, videos: int) -> int:
    """Return the number of videos of a chunk."""
    return len(rank_slice(0, videos, chunk, workers=chunks))


def _is_valid(out: str, videos: int) -> bool:
    """Return whether a score file has the scores of so many videos; prints a line if it does not."""
    try:
        if len(read_scores(out).keys) == videos:
            return True
        say(f"{out} does not have the scores of {videos} videos: it is written again")
    except StoreError:
        raise
    except UserError as error:
        say(f"{error}: it is written again")
    return False


def _read_chunk(folder: Storage, name: str, videos: int, *, classes: tuple[str, ...]) -> pa.Table:
    """Return the rows of a chunk. Raises UserError if it is missing, and if it is damaged, after deleting it."""
    shown = folder.display(name)
    try:
        with damaged_if_invalid(shown, "score it again"), folder.open_whole(name) as file:
            table = read_parquet(file, nullable=["label"])
            for column in COLUMNS:
                table.column(column)  # KeyError if it is missing
        rows_of(shown, table, classes, split="", metadata={})
        if table.num_rows == videos:
            return table
    except StoreError:
        raise
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UserError(
                f"{shown} is missing: its folder must be the same on every node of the cluster, and no other "
                "evaluation may write to the same --out; rerun to resume"
            ) from error
    folder.delete(name)
    raise UserError(f"{shown} was damaged and has been deleted: rerun to score it again")


def _delete_chunks(folder: LockedStorage) -> None:
    """Delete the chunks of finished evaluations."""
    folder.clean()
    for name in folder.names():
        if CHUNK_FILE.fullmatch(name):
            folder.delete(name, missing_ok=True)


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Return a hash of the weights and their names."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.numpy()).data)
    return digest.hexdigest()


def _public_address(storage: Storage) -> str:
    """Return the address that opens a folder from anywhere, without the password that it may contain."""
    return storage.base if storage.local else storage.display()
