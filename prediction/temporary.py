"""Temporary datasets: the streams that a network was trained on, made of video files and deleted after use.

They have the same bytes as the datasets of `lgd preprocess` with the same stream specs, but need no cluster: one shard
per file, made by threads, since the slow parts (ffmpeg, flow solver, JPEG) release Python's global interpreter lock.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from lgd.pipeline.console import signals
from lgd.pipeline.console.errors import NodeError
from lgd.pipeline.console.progress import Progress, say
from lgd.pipeline.dataset.dataset import Dataset, StreamSpec, open_dataset
from lgd.pipeline.storage.storage import Storage, disk_errors
from lgd.prediction.long_videos import FramesOfClips, encode_for_clips
from lgd.preprocessing.annotations.manifest import Manifest, Video
from lgd.preprocessing.finalize import finalize_dataset
from lgd.preprocessing.isolation import Encode
from lgd.preprocessing.plan import ShardPlan, plan_shards
from lgd.preprocessing.settings import Settings, settings_from_specs
from lgd.preprocessing.shard import make_shard
from lgd.preprocessing.video.rejections import Rejected

SPLIT = "given"  # of all files
END_S = 3.0  # after a signal, for threads to remove their temporary files


@dataclass(frozen=True)
class GivenFile:
    """A file as the user gave it, and its key in the temporary datasets."""

    path: str
    key: str

    @property
    def text(self) -> str:
        """The path as text that can be printed: file names are bytes, and not always valid UTF-8."""
        return os.fsencode(self.path).decode("utf-8", "replace")


@dataclass(frozen=True)
class TemporaryDatasets:
    """The datasets of the files.

    datasets: by stream; streams with the same frame rate and size share one. rejected: the reason, by key, for each
    file that is missing in one of them."""

    datasets: Mapping[str, Dataset]
    rejected: Mapping[str, Rejected]

    def lengths(self) -> tuple[dict[str, int], float]:
        """Return the frames of each video in the first stream's dataset, by key, and its frames per second."""
        stream, dataset = next(iter(self.datasets.items()))
        table = dataset.videos(["key", "frames"])
        frames = dict(zip(*(table.column(name).to_pylist() for name in ("key", "frames")), strict=True))
        return frames, float(dataset.specs[stream].settings["fps"])


def given_files(paths: Sequence[str]) -> list[GivenFile]:
    """Return the files with a key each. The key does not depend on the name: two files may have the same name, and one
    file may be given twice."""
    return [GivenFile(os.path.expanduser(path), f"{number:06d}") for number, path in enumerate(paths)]


@contextmanager
def temporary_datasets(
    files: Sequence[GivenFile],
    specs: Mapping[str, StreamSpec],
    classes: tuple[str, ...],
    *,
    clip_frames: Mapping[str, FramesOfClips] = MappingProxyType({}),
) -> Iterator[TemporaryDatasets]:
    """Make the streams of `specs` from the files, in a temporary folder that is deleted after the block.

    clip_frames: by stream, the frames that clips contain; a video over the limit on frames has only these. Without it,
    such a video is rejected.
    Prints a line if the installed versions of ffmpeg and the libraries differ from those of a spec: the last bit of the
    pictures may then differ. Raises UserError for a spec that this version cannot reproduce and for a full disk."""
    groups: dict[object, dict[str, StreamSpec]] = {}
    for stream, spec in specs.items():
        decoding = tuple(spec.settings.get(name) for name in ("fps", "short_side", "untagged_matrix"))
        groups.setdefault(decoding, {})[stream] = spec
    settings = [settings_from_specs(group) for group in groups.values()]
    for chosen, group in zip(settings, groups.values(), strict=True):
        for stream, spec in group.items():
            if differences := spec.differences(chosen.spec(stream)):
                versions = "; ".join(differences)
                say(f"the training data of the {stream} stream was made with different versions: {versions}")
    with ExitStack() as stack:
        with disk_errors(f"in {tempfile.gettempdir()} (set TMPDIR to use a different folder)"):
            # After a signal, threads may still write to it.
            temporary = tempfile.TemporaryDirectory(prefix="lgd-predict-", ignore_cleanup_errors=True)
            folder = stack.enter_context(temporary)
            signals.remove_if_killed(folder)
            videos = Storage(f"{folder}/videos")
            videos.make_folder()
            for file in files:  # under names that no program can take for an option
                os.symlink(os.path.abspath(file.path), videos.path(file.key))
        rejected = {
            file.key: Rejected("unreadable", "it is a folder: give the files in it")
            for file in files
            if os.path.isdir(file.path)
        }
        datasets: dict[str, Dataset] = {}
        for number, (chosen, group) in enumerate(zip(settings, groups.values(), strict=True)):
            keys = [file.key for file in files if file.key not in rejected]
            dataset, more = _make_dataset(
                Path(folder) / f"data-{number}",
                videos,
                keys,
                settings=chosen,
                streams=list(group),
                classes=classes,
                clip_frames=clip_frames,
            )
            rejected |= more
            datasets |= dict.fromkeys(group, dataset)
        yield TemporaryDatasets(datasets, rejected)


def _make_dataset(
    folder: Path,
    videos: Storage,
    keys: Sequence[str],
    *,
    settings: Settings,
    streams: Sequence[str],
    classes: tuple[str, ...],
    clip_frames: Mapping[str, FramesOfClips],
) -> tuple[Dataset, dict[str, Rejected]]:
    """Make the dataset of the files with these keys. Returns it and the rejected files, by key."""
    storage = Storage(folder)
    specs = {stream: settings.spec(stream) for stream in streams}
    for subfolder in ("", *streams, *(f"{stream}/.parts" for stream in streams)):
        storage.make_folder(subfolder)
    manifest = Manifest(tuple(Video(key, key, None, None, SPLIT) for key in keys), classes)
    plans = plan_shards(manifest, videos_per_shard=1)
    rejected: dict[str, Rejected] = {}
    encode = partial(encode_for_clips, clip_frames=clip_frames)
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    running: dict[Future[None], ShardPlan] = {}
    try:
        running = {
            pool.submit(_make_shard, storage, videos, plan, settings=settings, specs=specs, encode=encode): plan
            for plan in plans
        }
        with Progress(" and ".join(streams), len(keys), "videos") as progress:
            for number, done in enumerate(as_completed(running), 1):
                key = running[done].videos[0].key
                try:
                    done.result()
                except Rejected as rejection:
                    rejected[key] = rejection
                progress.update(number)
        manifest = replace(manifest, videos=tuple(video for video in manifest.videos if video.key not in rejected))
        plans = [plan for plan in plans if plan.videos[0].key not in rejected]
        finalize_dataset(Dataset(storage, "", classes, 1, specs), manifest, plans, pool=pool)
    finally:
        pool.shutdown(wait=not signals.interrupted(), cancel_futures=True)
        if signals.interrupted():  # the process ends, whatever its threads do
            signals.kill_children()
            wait([future for future in running if future.running()], timeout=END_S)
    dataset = open_dataset(storage)
    table = dataset.rejected().select(["key", "reason", "detail"]).to_pylist()
    return dataset, {**rejected, **{row["key"]: Rejected(row["reason"], row["detail"]) for row in table}}


def _make_shard(
    storage: Storage,
    videos: Storage,
    plan: ShardPlan,
    *,
    settings: Settings,
    specs: Mapping[str, StreamSpec],
    encode: Encode,
) -> None:
    """Make a shard. Raises Rejected for a file whose file system fails, or that needs too much memory: the other files
    may still be readable."""
    try:
        for _ in make_shard(storage, videos, plan, settings=settings, specs=specs, encode=encode):
            pass
    except NodeError as error:
        raise Rejected("unreadable", str(error)) from error
    except OSError as error:
        raise Rejected("unreadable", error.strerror or str(error)) from error
