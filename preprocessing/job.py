"""The preprocessing job: plan the shards, create the missing ones, retry rejected videos, finalize the dataset."""

import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from lgd.pipeline.console.command_line import CommandResult, Line
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import (
    DESCRIPTION,
    MANIFEST,
    STREAMS,
    Dataset,
    StreamSpec,
    describe_classes,
    index_name,
    open_dataset,
    read_table,
    write_table,
)
from lgd.pipeline.storage.storage import TEMPORARY, Storage
from lgd.pipeline.tasks import Task, run_tasks
from lgd.preprocessing.annotations.manifest import Manifest
from lgd.preprocessing.counters import ShardCounters
from lgd.preprocessing.finalize import REJECTED_FILE, finalize_dataset
from lgd.preprocessing.plan import (
    NEW_FOLDER,
    ShardPlan,
    default_videos_per_shard,
    find_complete_shards,
    plan_shards,
    update_manifest,
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
        lines: list[Line] = [
            f"{self.out}: {self.videos} videos in {describe_classes(self.class_names)}; "
            f"streams: {', '.join(self.streams)}",
            f"{self.manifest} listed videos = {self.videos} in the dataset + {self.rejected} rejected",
        ]
        if self.rejected:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
            lines.append(f"rejected videos by reason: {reasons}; each video is listed in {self.rejected_file}")
        if self.tried_again:
            lines.append(f"rejected videos retried: {self.tried_again}; now in the dataset: {self.recovered}")
        if self.made:
            stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in self.seconds.items() if spent)
            lines.append(
                f"{self.made} videos in {self.work_s:.1f} s ({self.made / self.work_s:.1f} videos/s, "
                f"{self.flow_pairs / self.work_s:.0f} flow pairs/s); worker time in seconds: {stages}"
            )
        return lines


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
    UserError if a shard cannot be created or the disk is full; StoreError if the storage is unreachable."""
    started = time.monotonic()
    per_task = resources.per_task(settings.flow.device)
    specs = {stream: settings.spec(stream) for stream in streams}
    dataset, manifest = _open_or_create(out, manifest, settings, specs=specs, retry_rejected=retry_rejected)
    storage = dataset.storage
    plans = plan_shards(manifest, dataset.videos_per_shard)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        complete = find_complete_shards(storage, dataset.specs, plans, pool=pool)
        shared = {"storage": storage, "videos": videos, "settings": settings}
        creating = _creating_tasks(plans, complete, specs, shared=shared)
        retrying = _retrying_tasks(plans, complete, dataset, new=specs, shared=shared) if retry_rejected else []
        created = retried = ShardCounters()
        working = time.monotonic()
        if not creating and not retrying and all(stream in dataset.streams for stream in streams):
            say(f"{storage.display()} is already complete: {len(plans)} shards of {', '.join(streams)}; nothing to do")
        else:
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
                    storage.delete(index_name(stream))
                retried = run_tasks("retry rejected", retrying, per_task, workers=workers, total=ShardCounters())
            _remove_temporary_files(dataset)
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
        rejected=rejected,
        reasons=dataset.summary["reasons"],
        rejected_file=storage.display(REJECTED_FILE) if rejected else None,
        classes=len(dataset.classes),
        class_names=list(dataset.classes),
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


CompleteShards = Sequence[Mapping[str, frozenset[str]]]  # per plan, as `find_complete_shards` returns them


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


def _open_or_create(
    out: str, manifest: Manifest, settings: Settings, *, specs: Mapping[str, StreamSpec], retry_rejected: bool
) -> tuple[Dataset, Manifest]:
    """Open the dataset, or create it with its plan; return it with the manifest that it is made from.

    Raises UserError if the dataset was created from different videos or with different settings."""
    storage = Storage(out)
    if storage.exists(DESCRIPTION):
        dataset = open_dataset(storage)
        manifest = _resume_manifest(dataset, manifest, settings, specs=specs, retry_rejected=retry_rejected)
    else:
        if any(name != MANIFEST and not name.startswith(TEMPORARY) for name in storage.names()):
            raise UserError(f"{storage.display()} contains other files and is not a dataset: choose a different --out")
        storage.make_folder()
        write_table(storage, MANIFEST, manifest.table())
        dataset = Dataset(storage, "", manifest.classes, default_videos_per_shard(len(manifest.videos)), {})
    if not set(specs) <= set(dataset.specs):
        known = {**dataset.specs, **specs}
        dataset = replace(dataset, specs={stream: known[stream] for stream in STREAMS if stream in known})
        dataset.save()
    for folder in _folders(dataset):
        storage.make_folder(folder)
    _remove_temporary_files(dataset)
    return dataset, manifest


def _folders(dataset: Dataset) -> list[str]:
    return ["", *(folder for stream in dataset.specs for folder in (stream, f"{stream}/.parts"))]


def _remove_temporary_files(dataset: Dataset) -> None:
    """Remove unfinished files of killed processes."""
    for folder in _folders(dataset):
        dataset.storage.clean(folder)


def _resume_manifest(
    dataset: Dataset, listed: Manifest, settings: Settings, *, specs: Mapping[str, StreamSpec], retry_rejected: bool
) -> Manifest:
    """Return the manifest of an existing dataset; with `retry_rejected`, including files that were missing before.

    listed: the manifest of this run. Raises UserError if it lists different videos or the settings differ."""
    storage = dataset.storage
    table = read_table(storage, MANIFEST)
    same = table.equals(listed.table(), check_metadata=True)  # the usual case, and much faster than row by row
    planned = listed if same else Manifest.from_table(table)
    updated = listed if same else update_manifest(planned, listed, storage.display())
    # A retry changes all streams: a video is in all of them or in none.
    for stream in (name for name in dataset.specs if retry_rejected or name in specs):
        if differences := dataset.specs[stream].differences(settings.spec(stream)):
            raise UserError(
                f"the {stream} stream of {storage.display()} was created with different settings "
                f"({'; '.join(differences)}): {NEW_FOLDER}"
            )
    found = sum(video.missing for video in planned.videos) - sum(video.missing for video in updated.videos)
    if found and not retry_rejected:
        what = "1 video that was missing now exists" if found == 1 else f"{found} videos that were missing now exist"
        say(f"{what}: use --retry-rejected to add {'it' if found == 1 else 'them'}")
        return planned
    if found:
        write_table(storage, MANIFEST, updated.table())
    return updated
