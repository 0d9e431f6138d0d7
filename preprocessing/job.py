"""The whole job: plan the shards, make what is missing, try again what was rejected, account for every video."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from pipeline.dataset import (
    DESCRIPTION,
    MANIFEST,
    STREAMS,
    Dataset,
    Recipe,
    index_name,
    open_dataset,
    read_table,
    write_table,
)
from pipeline.errors import UserError
from pipeline.progress import say
from pipeline.storage import TEMPORARY, Storage
from pipeline.tasks import Task, run_tasks
from preprocessing.account import account
from preprocessing.manifest import Manifest
from preprocessing.plan import NEW_FOLDER, continued, default_videos_per_shard, plan_shards, survey
from preprocessing.settings import Resources, Settings
from preprocessing.shard import Work, make_shard, retry_shard

CONNECTIONS = 16  # to the store at once: latency of an object store, not computing


@dataclass(frozen=True)
class Outcome:
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
    streams: Sequence[str],
    settings: Settings,
    resources: Resources,
    start_cluster: Callable[[], None],
    retry_rejected: bool = False,
) -> Outcome:
    """Makes the dataset `out` from the videos of a folder, or what is missing of it.

    retry_rejected: videos that an earlier run rejected are tried again, in all streams of the dataset.
    Raises UserError when `out` was made from other videos or by another recipe, naming what differs; when a shard
    cannot be made; and when the disk is full or the store does not answer."""
    started = time.monotonic()
    needs = resources.of_task(settings.device)
    recipes = {stream: settings.recipe(stream) for stream in streams}
    dataset, manifest = _prepare(out, manifest, settings, recipes, retry_rejected)
    storage = dataset.storage
    plans = plan_shards(manifest, dataset.videos_per_shard)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        there = survey(storage, dataset.recipes, plans, pool)
        lacking = [
            (plan, {stream: recipes[stream] for stream in streams if stream not in have}, next(iter(have), None))
            for plan, have in zip(plans, there, strict=True)
        ]
        make = [
            Task(f"shard {plan.name}", make_shard, (storage, videos, plan, settings, missing, other), len(plan.videos))
            for plan, missing, other in lacking
            if missing
        ]
        retry = [
            Task(
                f"shard {plan.name}",
                retry_shard,
                (storage, videos, plan, settings, _both(dataset, have, new)),
                len(rejected),
            )
            for (plan, new, _), have in zip(lacking, there, strict=True)
            if retry_rejected and (rejected := next(iter(have.values()), None))
        ]
        work = again = Work()
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
                work = run_tasks("preprocess", make, needs, resources.workers, Work())
            if retry:
                for stream in dataset.streams:  # their shards change: without an index they do not count as whole
                    storage.delete(index_name(stream))
                again = run_tasks("retry rejected", retry, needs, resources.workers, Work())
            _clean(dataset)
            account(dataset, manifest, plans, pool)
        work_s = time.monotonic() - working
    dataset = open_dataset(storage)
    total = Work()
    total.add(work)
    total.add(again)
    return Outcome(
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


def _both(dataset: Dataset, there: Mapping[str, object], made: Mapping[str, object]) -> dict[str, Recipe]:
    """The streams that have a shard once this run's are made."""
    return {stream: recipe for stream, recipe in dataset.recipes.items() if stream in there or stream in made}


def _prepare(
    out: str, manifest: Manifest, settings: Settings, recipes: Mapping[str, Recipe], retry_rejected: bool
) -> tuple[Dataset, Manifest]:
    """Opens the dataset or begins it, and writes its plan: the dataset and the manifest to go on with.

    Refuses one made from other videos or by another recipe."""
    storage = Storage(out)
    if storage.exists(DESCRIPTION):
        dataset = open_dataset(storage)
        manifest = _to_go_on_with(dataset, manifest, settings, recipes, retry_rejected)
    else:
        if any(name != MANIFEST and not name.startswith(TEMPORARY) for name in storage.names()):
            raise UserError(f"{out} holds other files and is not a dataset: choose another --out")
        storage.make_folder()
        write_table(storage, MANIFEST, manifest.table())
        dataset = Dataset(storage, "", manifest.classes, default_videos_per_shard(len(manifest.videos)), {})
    if not set(recipes) <= set(dataset.recipes):
        known = {**dataset.recipes, **recipes}
        dataset = replace(dataset, recipes={stream: known[stream] for stream in STREAMS if stream in known})
        dataset.save()
    for folder in _folders(dataset):
        storage.make_folder(folder)
    _clean(dataset)
    return dataset, manifest


def _folders(dataset: Dataset) -> list[str]:
    return ["", *(folder for stream in dataset.recipes for folder in (stream, f"{stream}/.parts"))]


def _clean(dataset: Dataset) -> None:
    """Removes what killed drivers and workers were writing."""
    for folder in _folders(dataset):
        dataset.storage.clean(folder)


def _to_go_on_with(
    dataset: Dataset, asked: Manifest, settings: Settings, recipes: Mapping[str, Recipe], retry_rejected: bool
) -> Manifest:
    """The manifest of a dataset that exists: with `retry_rejected`, files that were missing and have turned up."""
    storage = dataset.storage
    planned = read_table(storage, MANIFEST)
    same = planned.equals(asked.table(), check_metadata=True)  # mostly so, and much quicker than row by row
    before = asked if same else Manifest.from_table(planned)
    now = asked if same else continued(before, asked, storage.root)
    # What is retried changes all streams: they have a video, or none has it.
    for stream in dataset.recipes if retry_rejected else dataset.recipes.keys() & recipes.keys():
        if differences := dataset.recipes[stream].differences(settings.recipe(stream)):
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
