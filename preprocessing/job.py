"""The whole job on a cluster: plan the shards, keep tasks in flight, skip what is there, account for every video."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.dataset import DESCRIPTION, STREAMS, Dataset, Recipe, index_name, open_dataset, read_table, write_table
from pipeline.errors import UserError
from pipeline.index import build_index, read_part
from pipeline.progress import Progress, say
from pipeline.storage import Storage
from preprocessing.annotations import Manifest
from preprocessing.settings import Settings
from preprocessing.shard import ShardPlan, ShardResult, is_complete, make_shard

TASK_RETRIES = 3  # of a task whose worker died


@dataclass(frozen=True)
class Outcome:
    """What a run of the job did, and what the dataset holds after it.

    made: videos of the shards that this run made. seconds: of worker time by stage. wall_s: seconds of the run."""

    out: str
    streams: list[str]
    manifest: int
    videos: int
    rejected: int
    reasons: Mapping[str, int]
    shards_made: int
    shards_there: int
    made: int
    seconds: Mapping[str, float]
    wall_s: float


def plan_shards(manifest: Manifest, videos_per_shard: int) -> list[ShardPlan]:
    """Cuts the manifest, which is in order of split and key, into shards: in order of their names."""
    plans = []
    for split in sorted({video.split for video in manifest.videos}):
        videos = [video for video in manifest.videos if video.split == split]
        for number, first in enumerate(range(0, len(videos), videos_per_shard)):
            plans.append(ShardPlan(f"{split}-{number:06d}", tuple(videos[first : first + videos_per_shard])))
    return plans


def default_videos_per_shard(videos: int) -> int:
    """About 64 shards of a small dataset, so that there is work for every core; 128 videos a shard (about 150 MB of
    Kinetics) of a large one."""
    return min(max(videos // 64, 4), 128)


def preprocess(
    folder: Storage,
    out: str,
    manifest: Manifest,
    streams: Sequence[str],
    settings: Settings,
    workers: int | None,
    start_cluster: Callable[[], None],
) -> Outcome:
    """Makes the dataset `out` from the videos of `folder`, or what is missing of it.

    workers: tasks at once; by default as many as the cluster has CPUs.
    Raises UserError when `out` was made from other videos or by another recipe, naming what differs; when a shard
    cannot be made; and when the disk is full."""
    started = time.monotonic()
    recipes = {stream: settings.recipe(stream) for stream in streams}
    dataset = _prepare(out, manifest, recipes)
    storage = dataset.storage
    plans = plan_shards(manifest, dataset.videos_per_shard)
    for stream in streams:
        storage.make_folder(f"{stream}/.parts")
        storage.clean(stream)
        storage.clean(f"{stream}/.parts")

    with ThreadPoolExecutor(16) as pool:  # latency of an object store, not computing
        there = {
            stream: list(pool.map(partial(is_complete, storage, recipe), plans))
            for stream, recipe in dataset.recipes.items()
        }
    todo = []
    for number, plan in enumerate(plans):
        lacking = {stream: recipes[stream] for stream in streams if not there[stream][number]}
        if lacking:
            have = [stream for stream in dataset.recipes if there[stream][number]]
            todo.append((plan, lacking, have[0] if have else None))
    if not todo and all(stream in dataset.streams for stream in streams):
        say(f"{out} is complete already: {len(plans)} shards of {', '.join(streams)}; nothing to do")
        results: list[ShardResult] = []
    else:
        if len(todo) < len(plans):
            say(f"{len(plans) - len(todo)} of {len(plans)} shards are there already")
        results = _run(storage, folder, todo, settings, workers, start_cluster)
        _account(dataset, manifest, plans)
    dataset = open_dataset(storage)
    rejected = dataset.rejected()
    reasons = rejected.column("reason").to_pylist()
    seconds: dict[str, float] = {}
    for result in results:
        for stage, spent in result.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    return Outcome(
        out=out,
        streams=dataset.streams,
        manifest=len(manifest.videos),
        videos=dataset.videos(["key"]).num_rows,
        rejected=len(reasons),
        reasons={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        shards_made=len(todo),
        shards_there=len(plans) - len(todo),
        made=sum(result.videos for result in results),
        seconds=seconds,
        wall_s=time.monotonic() - started,
    )


def _prepare(out: str, manifest: Manifest, recipes: Mapping[str, Recipe]) -> Dataset:
    """Opens the dataset or begins it; writes its plan. Refuses one made from other videos or by another recipe."""
    storage = Storage(out)
    if not storage.exists(DESCRIPTION):
        if storage.names():
            raise UserError(f"{out} holds other files and is not a dataset: choose another --out")
        storage.make_folder()
        write_table(storage, "manifest.parquet", manifest.table())
        dataset = Dataset(
            storage, manifest.fingerprint(), manifest.classes, default_videos_per_shard(len(manifest.videos)), {}
        )
    else:
        dataset = open_dataset(storage)
        if dataset.fingerprint != manifest.fingerprint():
            raise UserError(f"{out} was made from another list of videos ({_changes(storage, manifest)}): {NEW_FOLDER}")
    for stream, recipe in recipes.items():
        if stream in dataset.recipes and (differences := dataset.recipes[stream].differences(recipe)):
            raise UserError(
                f"the {stream} stream of {out} was made by another recipe ({'; '.join(differences)}): {NEW_FOLDER}"
            )
    if not set(recipes) <= set(dataset.recipes):
        known = {**dataset.recipes, **recipes}
        dataset = replace(dataset, recipes={stream: known[stream] for stream in STREAMS if stream in known})
        dataset.save()
    return dataset


NEW_FOLDER = "give the same options and videos as before, or preprocess into a new folder with --out"


def _changes(storage: Storage, manifest: Manifest) -> str:
    """How a list of videos differs from the one that a dataset was planned from."""
    before = set(read_table(storage, "manifest.parquet", ["key"]).column("key").to_pylist())
    now = {video.key for video in manifest.videos}
    added, gone = sorted(now - before), sorted(before - now)
    parts = [
        f"{len(keys)} {what}, such as {keys[0]}" for keys, what in ((added, "are new"), (gone, "are gone")) if keys
    ]
    return "; ".join(parts) or "labels, splits or times differ"


def _run(
    storage: Storage,
    folder: Storage,
    todo: list[tuple[ShardPlan, dict[str, Recipe], str | None]],
    settings: Settings,
    workers: int | None,
    start_cluster: Callable[[], None],
) -> list[ShardResult]:
    """Makes shards, at most `workers` at once. A dead worker's shard is made again."""
    if not todo:
        return []
    start_cluster()
    import ray  # not before the cluster's settings are in the environment
    from ray.exceptions import RayTaskError

    # A store that falters or an ffmpeg that somebody kills says nothing about the video: the shard is made again.
    transient: Any = [OSError, RuntimeError]
    task: Any = ray.remote(num_cpus=1, max_retries=TASK_RETRIES, retry_exceptions=transient)(make_shard)
    at_once = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
    waiting, results = list(reversed(todo)), list[ShardResult]()
    running: list[Any] = []
    total = sum(len(plan.videos) for plan, _, _ in todo)
    started = time.monotonic()
    with Progress("preprocess", total, "videos") as progress:
        while waiting or running:
            while waiting and len(running) < at_once:
                plan, recipes, other = waiting.pop()
                running.append(task.remote(storage, folder, plan, settings, recipes, other))
            done, running = ray.wait(running, num_returns=1)
            try:
                results += ray.get(done)
            except RayTaskError as error:
                for reference in running:
                    ray.cancel(reference)
                if isinstance(error.cause, UserError):
                    raise type(error.cause)(str(error.cause)) from error
                raise
            made = sum(result.videos for result in results)
            rejected = sum(result.rejected for result in results)
            rate = (made + rejected) / (time.monotonic() - started)
            pairs = sum(result.flow_pairs for result in results) / (time.monotonic() - started)
            note = f"{rejected} rejected, {rate:.1f} videos/s" + (f", {pairs:.0f} flow pairs/s" if pairs else "")
            progress.update(made + rejected, note)
    return results


def _account(dataset: Dataset, manifest: Manifest, plans: Sequence[ShardPlan]) -> None:
    """Writes videos.parquet, rejected.parquet, the summary and, last, each stream's index.

    Asserts that videos + rejected = manifest."""
    storage = dataset.storage
    planned = {video.key: video for video in manifest.videos}
    rows: dict[str, dict[str, Any]] = {}
    rejected: dict[str, dict[str, Any]] = {}
    finished = [
        name for name in dataset.recipes if all(is_complete(storage, dataset.recipes[name], plan) for plan in plans)
    ]
    for stream in finished:
        for plan in plans:
            part, record = read_part(storage, stream, plan.name)
            for row in record["rejected"]:
                rejected[row["key"]] = {**_about(planned[row["key"]]), **row}
            columns = part.select(["key", "width", "height", "shard"]).to_pylist()
            for row, ends, about in zip(columns, part.column("ends"), record["videos"], strict=True):
                video = rows.setdefault(row["key"], _about(planned[row["key"]]))
                video["frames"] = len(ends) + STREAMS[stream].lost_frames
                video["width"] = row["width"] // max(STREAMS[stream].planes, 1)
                video["height"] = row["height"]
                video["shard"] = row["shard"]
                video |= {f"{stream}_{name}": value for name, value in about.items() if name != "bound"}
    if len(rows) + len(rejected) != len(planned) or rows.keys() & rejected.keys():
        raise RuntimeError(f"{len(rows)} videos + {len(rejected)} rejected are not the {len(planned)} of the manifest")
    videos = pa.Table.from_pylist([rows[key] for key in planned if key in rows] or [], schema=_videos_schema(finished))
    write_table(storage, "videos.parquet", videos)
    write_table(
        storage,
        "rejected.parquet",
        pa.Table.from_pylist([rejected[key] for key in planned if key in rejected], schema=REJECTED_SCHEMA),
    )
    splits = sorted({plan.name.rpartition("-")[0] for plan in plans})
    summary = {
        "videos": len(rows),
        "rejected": len(rejected),
        "frames": sum(row["frames"] for row in rows.values()),
        "splits": {split: sum(row["split"] == split for row in rows.values()) for split in splits},
    }
    replace(dataset, summary=summary).save()
    for stream in finished:
        build_index(storage, dataset.recipes[stream], (plan.name for plan in plans))
    for stream in set(dataset.recipes) - set(finished):
        if storage.exists(index_name(stream)):
            storage.delete(index_name(stream))


_ABOUT_SCHEMA = [
    ("key", pa.string()),
    ("path", pa.string()),
    ("label", pa.int32()),
    ("class", pa.string()),
    ("split", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
]
REJECTED_SCHEMA = pa.schema([*_ABOUT_SCHEMA, ("reason", pa.string()), ("detail", pa.string())])


def _about(video: Any) -> dict[str, Any]:
    about = asdict(video)
    del about["missing"]
    about["class"] = about.pop("class_name")
    return about


def _videos_schema(streams: Sequence[str]) -> pa.Schema:
    columns = [
        *_ABOUT_SCHEMA,
        ("frames", pa.int32()),  # of the rgb stream; flow has one less
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("shard", pa.string()),
    ]
    columns += [(f"{stream}_bytes", pa.int64()) for stream in streams]
    if "flow" in streams:
        columns.append(("flow_saturated", pa.float64()))  # fraction of vectors beyond the bound
    return pa.schema(columns)
