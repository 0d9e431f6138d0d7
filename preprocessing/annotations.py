"""Videos and annotations as users have them -> the manifest."""

import logging
import os
from pathlib import Path

from pipeline.errors import UserError
from preprocessing.annotation_csv import read_csv
from preprocessing.manifest import Entry, Manifest, Video, make_manifest
from preprocessing.splits import compile_group
from preprocessing.video_files import VideoFiles

__all__ = ["Manifest", "Video", "read_manifest"]

# Folders of these names on top, and no others, hold the class folders of one split each.
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

log = logging.getLogger(__name__)


def read_manifest(
    videos: Path,
    annotations: Path | None = None,
    group: str | None = None,
    val_fraction: float = 0.2,
) -> Manifest:
    """Every annotated video with its key, label and split.

    videos: the folder of videos. annotations: None if it holds class folders; else a csv with the columns `path,label`
    and optionally `split,key,start_s,end_s`. Paths are relative to `videos` and stay inside it.
    group, val_fraction: how videos are held out where the annotations give no splits, see `choose_val`.

    Raises UserError or UsageError, one line that says what is wrong, where, and what to do.
    """
    if not videos.is_dir():
        raise UserError(f"{videos} is {'not a folder' if videos.exists() else 'not there'}: give the folder of videos")
    if not any(os.scandir(videos)):
        raise UserError(f"{videos} is an empty folder: it should hold videos")
    if group is not None:
        compile_group(group)
    if annotations is None:
        entries = _class_folders(videos)
    else:
        entries = read_csv(videos, annotations)
        _refuse_all_missing(videos, entries)
    return make_manifest(entries, None, group, val_fraction)


def _class_folders(videos: Path) -> list[Entry]:
    """One folder a class with videos at any depth, or `train` and `val` (and `test`) folders of such folders."""
    files = VideoFiles(videos)
    tops = {path.split("/")[0] for path in files.paths if "/" in path}
    by_split = "train" in tops and tops <= SPLIT_FOLDERS.keys() and all(path.count("/") > 1 for path in files.paths)
    depth = 1 if by_split else 0
    loose = [path for path in files.paths if path.count("/") <= depth]
    if loose:
        raise UserError(
            f"{videos}: {len(loose)} videos ({loose[0]}, ...) lie outside class folders: "
            "put them into a folder named after their class, or give a csv with --annotations"
        )
    if not files.paths:
        raise UserError(f"{videos} holds no videos in class folders (known by extensions such as .mp4, .avi, .webm)")
    if files.others:
        log.warning("%s: %d files are not videos by their names (%s, ...)", videos, len(files.others), files.others[0])
    entries = []
    for path in files.paths:
        parts = path.split("/")
        split = SPLIT_FOLDERS[parts[0]] if by_split else None
        entries.append(Entry(path, parts[depth], str(videos / path), split))
    return entries


def _refuse_all_missing(videos: Path, entries: list[Entry]) -> None:
    """Some files of a list are always missing; all of them means another folder."""
    if all(entry.missing for entry in entries):
        raise UserError(
            f"none of the {len(entries)} videos listed is in {videos} (looked for {entries[0].path}, ...): "
            "give the folder that the list's paths start from"
        )
