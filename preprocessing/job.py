"""The preprocessing job: plan the shards, create the missing ones, retry rejected videos, finalize the dataset."""

import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import (
    DESCRIPTION,
    Dataset,
    StreamSpec,
    describe_classes,
    describe_splits,
    index_name,
    open_dataset,
)
from lgd.pipeline.dataset.tables import REJECTED
from lgd.pipeline.storage.lock import locked
from lgd.pipeline.storage.storage import Storage
from lgd.pipeline.tasks import Task, run_tasks
from lgd.preprocessing.annotations.manifest import Manifest
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.finalize import finalize_dataset
from lgd.preprocessing.output import CompleteShards, open_complete, open_or_create, work_identity
from lgd.preprocessing.plan import (
    ShardPlan,
)
from lgd.preprocessing.settings import PreprocessResources, Settings
from lgd.preprocessing.shard import make_shard, retry_shard

CONNECTIONS = 16  # simultaneous requests to the storage, because of the latency of object stores


@dataclass(frozen=True)
class PreprocessResult(CommandResult):
    """Result of `lgd preprocess`: what the run did, and what the dataset contains after it."""

    out: str
    """Folder of the dataset."""
    streams: list[str]
    """Complete streams."""
    manifest: int
    """Number of listed videos: `videos` + `rejected`."""
    videos: int
    """Number of videos in the dataset."""
    splits: Mapping[str, int]
    """Number of videos in the dataset by split: those of the shards, then those of splits.parquet."""
    unlabelled: int
    """Number of videos in the dataset without a label."""
    rejected: int
    """Number of rejected videos."""
    reasons: Mapping[str, int]
    """Number of rejected videos by reason."""
    rejected_file: str | None
    """Table of the rejected videos; null if there are none."""
    classes: int
    """Number of classes."""
    class_names: list[str]
    """Class names, in the order of their labels."""
    annotations_format: str
    """Format of the annotations, as it was recognized."""
    shards_made: int
    """Number of shards that this run created."""
    shards_there: int
    """Number of shards that already existed."""
    tried_again: int
    """Number of rejected videos that this run retried."""
    recovered: int
    """Number of retried videos that are now in the dataset."""
    made: int
    """Number of videos that this run added to shards."""
    flow_pairs: int
    """Number of frame pairs whose flow this run computed."""
    seconds: Mapping[str, float]
    """Worker time by stage, seconds."""
    work_s: float
    """Time from the start of the first task to the end of the last step, seconds."""
    wall_s: float
    """Time of the run, seconds."""
    driver_mb: float
    """Peak memory of the process of the command, MB."""

    def lines(self) -> list[Line]:
        """Return the summary of the dataset and of the work of this run."""
        unlabelled = f" ({self.unlabelled} without a label)" if self.unlabelled else ""
        lines: list[Line] = [
            f"{self.out}: {self.videos} videos{unlabelled} in {describe_classes(self.class_names)}; "
            f"streams: {', '.join(self.streams)}",
            f"{self.manifest} listed videos = {self.videos} in the dataset + {self.rejected} rejected",
        ]
        if sum(self.splits.values()) > self.videos:  # some are of splits.parquet
            lines.append(f"videos by split: {describe_splits(self.splits, {})}")
        if self.rejected:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
            lines.append(f"rejected videos by reason: {reasons}; each video is listed in {self.rejected_file}")
        if self._internal_errors:
            videos = "1 video" if self._internal_errors == 1 else f"{self._internal_errors} videos"
            lines.append(
                f"{videos} rejected because of an internal error, a mistake in lgd or in a library: please report the "
                "detail in the issues of the repository; --retry-rejected retries, for instance after an update"
            )
        if self.tried_again:
            lines.append(f"rejected videos retried: {self.tried_again}; now in the dataset: {self.recovered}")
        if self.made:
            stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in self.seconds.items() if spent)
            lines.append(
                f"{self.made} videos in {self.work_s:.1f} s ({self.made / self.work_s:.1f} videos/s, "
                f"{self.flow_pairs / self.work_s:.0f} flow pairs/s); worker time in seconds: {stages}"
            )
        return lines

    @property
    def _internal_errors(self) -> int:
        return self.reasons.get("internal-error", 0)

    @property
    def failed(self) -> str:
        """Name the internal errors if they rejected more than half of the videos: too much of the
        dataset is missing."""
        if 2 * self._internal_errors <= self.manifest:
            return ""
        return (
            f"{self._internal_errors} of {self.manifest} videos failed with an internal error: see {self.rejected_file}"
        )


def preprocess(
    videos: Storage,
    out: str,
    manifest: Manifest,
    *,
    streams: Sequence[str],
    settings: Settings,
    resources: PreprocessResources,
    start_cluster: Callable[[], None],
    retry_rejected: bool = False,
) -> PreprocessResult:
    """Create the dataset `out` from a folder of videos, or only what is missing from it.

    start_cluster: called before the first task. retry_rejected: retry videos that an earlier run rejected, in all
    streams of the dataset.
    Raises UserError, naming what differs, if `out` was created from different videos or with different settings;
    UserError if a shard cannot be created or the disk is full, and if another command creates this dataset from other
    videos, with other options or with `retry_rejected`; StoreError if the storage is unreachable."""
    started = time.monotonic()
    per_task = resources.per_task(settings.flow.device)
    storage = Storage(out)
    if storage.exists(DESCRIPTION):
        settings = settings.of_dataset(open_dataset(storage).specs)
    specs = {stream: settings.spec(stream) for stream in streams}
    annotations_format = manifest.annotations_format
    with ExitStack() as stack:
        pool = ThreadPoolExecutor(CONNECTIONS)
        stack.callback(pool.shutdown, cancel_futures=True)
        opened = None if retry_rejected else open_complete(storage, manifest, settings, specs=specs, pool=pool)
        if opened is None:
            work = "" if retry_rejected else work_identity(manifest, specs, resources)
            storage = stack.enter_context(locked(storage, "lgd preprocess", work))
            opened = open_or_create(storage, manifest, settings, specs=specs, retry_rejected=retry_rejected, pool=pool)
        dataset, manifest, plans, complete = opened
        shared = {"storage": storage, "videos": videos, "settings": settings, "resources": resources}
        creating = _creating_tasks(plans, complete, specs, shared=shared)
        retrying = _retrying_tasks(plans, complete, dataset, new=specs, shared=shared) if retry_rejected else []
        created = retried = ShardCounters()
        working = time.monotonic()
        if not creating and not retrying and all(stream in dataset.streams for stream in streams):
            say(f"{storage.display()} is already complete: {len(plans)} shards of {', '.join(streams)}; nothing to do")
        else:
            say(manifest.describe())
            if len(creating) < len(plans):
                say(f"{len(plans) - len(creating)} of {len(plans)} shards already exist")
            if creating or retrying:
                start_cluster()
            working = time.monotonic()
            workers = resources.num_workers
            if creating:
                created = run_tasks("preprocess", creating, per_task, workers=workers, total=ShardCounters())
            if retrying:
                for stream in dataset.streams:  # their shards change: a stream without an index is not complete
                    storage.delete(index_name(stream), missing_ok=True)
                retried = run_tasks("retry rejected", retrying, per_task, workers=workers, total=ShardCounters())
            opened.remove_temporary_files()
            finalize_dataset(dataset, manifest, plans, pool=pool)
        work_s = time.monotonic() - working
    dataset = open_dataset(storage)
    total = ShardCounters()
    total.add(created)
    total.add(retried)
    rejected = dataset.summary["rejected"]
    return PreprocessResult(
        out=out,
        streams=list(dataset.streams),
        manifest=len(manifest.videos),
        videos=dataset.summary["videos"],
        splits={name: counts.videos for name, counts in dataset.splits.items()},
        unlabelled=sum(map(dataset.unlabelled, dataset.summary["splits"])),
        rejected=rejected,
        reasons=dataset.summary["reasons"],
        rejected_file=storage.display(REJECTED) if rejected else None,
        classes=len(dataset.classes),
        class_names=list(dataset.classes),
        annotations_format=annotations_format,
        shards_made=len(creating),
        shards_there=len(plans) - len(creating),
        tried_again=retried.videos + retried.rejected,
        recovered=retried.videos,
        made=total.videos,
        flow_pairs=total.flow_pairs,
        seconds=total.seconds,
        work_s=work_s,
        wall_s=time.monotonic() - started,
        driver_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _creating_tasks(
    plans: Sequence[ShardPlan],
    complete: CompleteShards,
    specs: Mapping[str, StreamSpec],
    *,
    shared: Mapping[str, object],
) -> list[Task]:
    """Return one task per shard that at least one of the streams in `specs` lacks."""
    tasks = []
    for plan, streams in zip(plans, complete, strict=True):
        missing = {stream: spec for stream, spec in specs.items() if stream not in streams}
        if missing:
            arguments = {**shared, "plan": plan, "specs": missing, "existing": next(iter(streams), None)}
            tasks.append(Task(f"shard {plan.name}", make_shard, arguments, len(plan.videos)))
    return tasks


def _retrying_tasks(
    plans: Sequence[ShardPlan],
    complete: CompleteShards,
    dataset: Dataset,
    *,
    new: Iterable[str],
    shared: Mapping[str, object],
) -> list[Task]:
    """Return one task per shard that exists and rejected videos. new: streams that this run creates."""
    tasks = []
    for plan, streams in zip(plans, complete, strict=True):
        if rejected := next(iter(streams.values()), None):
            specs = {stream: spec for stream, spec in dataset.specs.items() if stream in {*streams, *new}}
            arguments = {**shared, "plan": plan, "specs": specs}
            tasks.append(Task(f"shard {plan.name}", retry_shard, arguments, len(rejected)))
    return tasks
