"""The whole job: plan the shards, make what is missing, try again what was rejected, account for every video."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.dataset.dataset import (
    DESCRIPTION,
    MANIFEST,
    STREAMS,
    Dataset,
    StreamSpec,
    index_name,
    open_dataset,
    read_table,
    write_table,
)
from lgd.pipeline.storage.storage import TEMPORARY, Storage
from lgd.pipeline.tasks import Task, run_tasks
from lgd.preprocessing.annotations.manifest import Manifest
from lgd.preprocessing.finalize import finalize_dataset
from lgd.preprocessing.plan import NEW_FOLDER, continued, default_videos_per_shard, plan_shards, survey
from lgd.preprocessing.settings import PreprocessResources, Settings
from lgd.preprocessing.shard import ShardCounters, make_shard, retry_shard

CONNECTIONS = 16  # to the store at once: latency of an object store, not computing


@dataclass(frozen=True)
class PreprocessResult:
    """What a run of the job did, and what the dataset holds after it.

    shards_made, shards_there: that this run made, and found complete. tried_again, recovered: videos that were
    rejected before. made: videos that this run put into shards; flow_pairs: that it computed. seconds: of worker time
    by stage. work_s: from the first task to the last. wall_s: of the run. driver_mb: the most memory that this process
    had, MB."""

    out: str
    streams: list[str]
    manifest: int
    videos: int
    rejected: int
    reasons: Mapping[str, int]
    shards_made: int
    shards_there: int
    tried_again: int
    recovered: int
    made: int
    flow_pairs: int
    seconds: Mapping[str, float]
    work_s: float
    wall_s: float
    driver_mb: float


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
    """Makes the dataset `out` from the videos of a folder, or what is missing of it.

    retry_rejected: videos that an earlier run rejected are tried again, in all streams of the dataset.
    Raises UserError when `out` was made from other videos or by another recipe, naming what differs; when a shard
    cannot be made; and when the disk is full or the store does not answer."""
    started = time.monotonic()
    needs = resources.per_task(settings.flow.device)
    specs = {stream: settings.spec(stream) for stream in streams}
    dataset, manifest = _prepare(out, manifest, settings, specs=specs, retry_rejected=retry_rejected)
    storage = dataset.storage
    common = {"storage": storage, "videos": videos, "settings": settings}
    plans = plan_shards(manifest, dataset.videos_per_shard)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        there = survey(storage, dataset.specs, plans, pool=pool)
        lacking = [
            (plan, {stream: specs[stream] for stream in streams if stream not in have}, next(iter(have), None))
            for plan, have in zip(plans, there, strict=True)
        ]
        make = [
            Task(
                f"shard {plan.name}",
                make_shard,
                {**common, "plan": plan, "specs": missing, "other": other},
                len(plan.videos),
            )
            for plan, missing, other in lacking
            if missing
        ]
        retry = [
            Task(
                f"shard {plan.name}",
                retry_shard,
                {**common, "plan": plan, "specs": _both(dataset, have, new)},
                len(rejected),
            )
            for (plan, new, _), have in zip(lacking, there, strict=True)
            if retry_rejected and (rejected := next(iter(have.values()), None))
        ]
        work = again = ShardCounters()
        working = time.monotonic()
        if not make and not retry and all(stream in dataset.streams for stream in streams):
            say(f"{out} is complete already: {len(plans)} shards of {', '.join(streams)}; nothing to do")
        else:
            if len(make) < len(plans):
                say(f"{len(plans) - len(make)} of {len(plans)} shards are there already")
            if make or retry:
                start_cluster()
            working = time.monotonic()
            if make:
                work = run_tasks("preprocess", make, needs, workers=resources.num_workers, total=ShardCounters())
            if retry:
                for stream in dataset.streams:  # their shards change: without an index they do not count as whole
                    storage.delete(index_name(stream))
                again = run_tasks("retry rejected", retry, needs, workers=resources.num_workers, total=ShardCounters())
            _clean(dataset)
            finalize_dataset(dataset, manifest, plans, pool=pool)
        work_s = time.monotonic() - working
    dataset = open_dataset(storage)
    total = ShardCounters()
    total.add(work)
    total.add(again)
    return PreprocessResult(
        out=out,
        streams=dataset.streams,
        manifest=len(manifest.videos),
        videos=dataset.summary["videos"],
        rejected=dataset.summary["rejected"],
        reasons=dataset.summary["reasons"],
        shards_made=len(make),
        shards_there=len(plans) - len(make),
        tried_again=again.videos + again.rejected,
        recovered=again.videos,
        made=total.videos,
        flow_pairs=total.flow_pairs,
        seconds=total.seconds,
        work_s=work_s,
        wall_s=time.monotonic() - started,
        driver_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _both(dataset: Dataset, there: Mapping[str, object], made: Mapping[str, object]) -> dict[str, StreamSpec]:
    """The streams that have a shard once this run's are made."""
    return {stream: spec for stream, spec in dataset.specs.items() if stream in there or stream in made}


def _prepare(
    out: str, manifest: Manifest, settings: Settings, *, specs: Mapping[str, StreamSpec], retry_rejected: bool
) -> tuple[Dataset, Manifest]:
    """Opens the dataset or begins it, and writes its plan: the dataset and the manifest to go on with.

    Refuses one made from other videos or by another recipe."""
    storage = Storage(out)
    if storage.exists(DESCRIPTION):
        dataset = open_dataset(storage)
        manifest = _resumed_manifest(dataset, manifest, settings, specs=specs, retry_rejected=retry_rejected)
    else:
        if any(name != MANIFEST and not name.startswith(TEMPORARY) for name in storage.names()):
            raise UserError(f"{out} holds other files and is not a dataset: choose another --out")
        storage.make_folder()
        write_table(storage, MANIFEST, manifest.table())
        dataset = Dataset(storage, "", manifest.classes, default_videos_per_shard(len(manifest.videos)), {})
    if not set(specs) <= set(dataset.specs):
        known = {**dataset.specs, **specs}
        dataset = replace(dataset, specs={stream: known[stream] for stream in STREAMS if stream in known})
        dataset.save()
    for folder in _folders(dataset):
        storage.make_folder(folder)
    _clean(dataset)
    return dataset, manifest


def _folders(dataset: Dataset) -> list[str]:
    return ["", *(folder for stream in dataset.specs for folder in (stream, f"{stream}/.parts"))]


def _clean(dataset: Dataset) -> None:
    """Removes what killed drivers and workers were writing."""
    for folder in _folders(dataset):
        dataset.storage.clean(folder)


def _resumed_manifest(
    dataset: Dataset, asked: Manifest, settings: Settings, *, specs: Mapping[str, StreamSpec], retry_rejected: bool
) -> Manifest:
    """The manifest of a dataset that exists: with `retry_rejected`, files that were missing and have turned up."""
    storage = dataset.storage
    planned = read_table(storage, MANIFEST)
    same = planned.equals(asked.table(), check_metadata=True)  # mostly so, and much quicker than row by row
    before = asked if same else Manifest.from_table(planned)
    now = asked if same else continued(before, asked, storage.root)
    # What is retried changes all streams: they have a video, or none has it.
    for stream in dataset.specs if retry_rejected else dataset.specs.keys() & specs.keys():
        if differences := dataset.specs[stream].differences(settings.spec(stream)):
            raise UserError(
                f"the {stream} stream of {storage.root} was made by another recipe ({'; '.join(differences)}): "
                f"{NEW_FOLDER}"
            )
    found = sum(video.missing for video in before.videos) - sum(video.missing for video in now.videos)
    if found and not retry_rejected:
        say(f"{found} videos that were missing are there now: --retry-rejected takes them in")
        return before
    if found:
        write_table(storage, MANIFEST, now.table())
    return now
