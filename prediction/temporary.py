"""Some video files -> the streams that a network was trained on, as datasets that last as long as they are needed.

The same bytes as `lgd preprocess` makes by the same recipe, without a cluster: a shard a file, made by threads, since
what costs time (ffmpeg, the solver of the flow, JPEG) does not hold on to the interpreter.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lgd.pipeline.console.progress import Progress, say
from lgd.pipeline.dataset.dataset import Dataset, StreamSpec, open_dataset
from lgd.pipeline.storage.storage import Storage, disk_errors
from lgd.preprocessing.annotations.manifest import Manifest, Video
from lgd.preprocessing.finalize import finalize_dataset
from lgd.preprocessing.plan import ShardPlan, plan_shards
from lgd.preprocessing.settings import Settings, settings_from_specs
from lgd.preprocessing.shard import make_shard
from lgd.preprocessing.video.rejections import Rejected

SPLIT = "given"  # of all files
UNLABELLED = -1


@dataclass(frozen=True)
class GivenFile:
    """A file as it was given, and its key in the datasets."""

    path: str
    key: str

    @property
    def shown(self) -> str:
        """The path as text that can be written: file names are bytes, and not always UTF-8."""
        return os.fsencode(self.path).decode("utf-8", "replace")


@dataclass(frozen=True)
class Made:
    """What was made of the files.

    datasets: by stream; streams of one rate and size share one. rejected: why, by key, for the files that are not in
    all of them."""

    datasets: Mapping[str, Dataset]
    rejected: Mapping[str, Rejected]

    def lengths(self) -> tuple[dict[str, int], float]:
        """Frames of each video as the first stream's dataset counts them, by key, and frames a second."""
        stream, dataset = next(iter(self.datasets.items()))
        table = dataset.videos(["key", "frames"])
        frames = dict(zip(*(table.column(name).to_pylist() for name in ("key", "frames")), strict=True))
        return frames, float(dataset.specs[stream].settings["fps"])


def given_files(paths: Sequence[str]) -> list[GivenFile]:
    """A key for each file, whatever its name: two may have the same, and one may be given twice."""
    return [GivenFile(path, f"{number:06d}") for number, path in enumerate(paths)]


@contextmanager
def temporary_datasets(
    files: Sequence[GivenFile], specs: Mapping[str, StreamSpec], classes: tuple[str, ...]
) -> Iterator[Made]:
    """The streams of `recipes`, made of the files in a temporary folder, which is gone after the block.

    Says so where the versions of this machine's programs are not those of a recipe: the pictures then may differ in
    the last bit. Raises UserError for a recipe that cannot be followed and for a full disk."""
    groups: dict[object, dict[str, StreamSpec]] = {}
    for stream, spec in specs.items():
        groups.setdefault((spec.settings.get("fps"), spec.settings.get("short_side")), {})[stream] = spec
    settings = [settings_from_specs(group) for group in groups.values()]
    for chosen, group in zip(settings, groups.values(), strict=True):
        for stream, spec in group.items():
            if differences := spec.differences(chosen.spec(stream)):
                say(f"the {stream} stream was made by other programs for training ({'; '.join(differences)})")
    full = disk_errors(f"in {tempfile.gettempdir()} (set TMPDIR for another folder)")
    with ExitStack() as stack:
        with full:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lgd-predict-"))
            videos = Storage(f"{folder}/videos")
            videos.make_folder()
            for file in files:  # under a name that no program can take for anything else
                os.symlink(os.path.abspath(file.path), videos.path(file.key))
        rejected = {file.key: Rejected("unreadable", _FOLDER) for file in files if os.path.isdir(file.path)}
        datasets: dict[str, Dataset] = {}
        for number, (chosen, group) in enumerate(zip(settings, groups.values(), strict=True)):
            keys = [file.key for file in files if file.key not in rejected]
            dataset, more = _make(
                Path(folder) / f"data-{number}", videos, keys, settings=chosen, streams=list(group), classes=classes
            )
            rejected |= more
            datasets |= dict.fromkeys(group, dataset)
        yield Made(datasets, rejected)


_FOLDER = "it is a folder: give the files in it"


def _make(
    folder: Path,
    videos: Storage,
    keys: Sequence[str],
    *,
    settings: Settings,
    streams: Sequence[str],
    classes: tuple[str, ...],
) -> tuple[Dataset, dict[str, Rejected]]:
    """The dataset of the files that have these names, and why it lacks some of them."""
    storage = Storage(folder)
    specs = {stream: settings.spec(stream) for stream in streams}
    for inside in ("", *streams, *(f"{stream}/.parts" for stream in streams)):
        storage.make_folder(inside)
    manifest = Manifest(tuple(Video(key, key, UNLABELLED, "", SPLIT) for key in keys), classes)
    plans = plan_shards(manifest, videos_per_shard=1)
    rejected: dict[str, Rejected] = {}
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        making: dict[Future[None], ShardPlan] = {
            pool.submit(_complete, storage, videos, plan, settings=settings, specs=specs): plan for plan in plans
        }
        with Progress(" and ".join(streams), len(keys), "videos") as progress:
            for number, done in enumerate(as_completed(making), 1):
                key = making[done].videos[0].key
                try:
                    done.result()
                except Rejected as rejection:
                    rejected[key] = rejection
                progress.update(number)
        manifest = replace(manifest, videos=tuple(video for video in manifest.videos if video.key not in rejected))
        plans = [plan for plan in plans if plan.videos[0].key not in rejected]
        finalize_dataset(Dataset(storage, "", classes, 1, specs), manifest, plans, pool=pool)
    finally:
        pool.shutdown(cancel_futures=True)
    dataset = open_dataset(storage)
    table = dataset.rejected().select(["key", "reason", "detail"]).to_pylist()
    return dataset, {**rejected, **{row["key"]: Rejected(row["reason"], row["detail"]) for row in table}}


def _complete(
    storage: Storage, videos: Storage, plan: ShardPlan, *, settings: Settings, specs: Mapping[str, StreamSpec]
) -> None:
    """Makes a shard. Raises Rejected for a file whose file system fails, which is not the other files' fault."""
    try:
        for _ in make_shard(storage, videos, plan, settings=settings, specs=specs):
            pass
    except OSError as error:
        raise Rejected("unreadable", error.strerror or str(error)) from error
