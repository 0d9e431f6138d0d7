"""Videos and annotations as users have them -> the manifest."""

import logging
import os
import re
from pathlib import Path

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.csv_lists import read_csv
from lgd.preprocessing.annotations.manifest import Entry, Manifest, Video, make_manifest
from lgd.preprocessing.annotations.official_lists import (
    HMDB51_FILE,
    UCF101_FILE,
    read_classes,
    read_hmdb51,
    read_ucf101,
)
from lgd.preprocessing.annotations.validation_split import compile_group
from lgd.preprocessing.video.files import VideoFiles

__all__ = ["Manifest", "Video", "read_manifest"]

# Folders of these names on top, and no others, hold the class folders of one split each.
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

log = logging.getLogger(__name__)


def read_manifest(
    videos: str | Path | Storage,
    annotations: Path | None = None,
    group: str | None = None,
    *,
    val_fraction: float = 0.2,
    classes: Path | None = None,
    split_number: int | None = None,
) -> Manifest:
    """Every annotated video with its key, label and split.

    videos: the folder of videos, local or in a store. annotations: what says their labels, told apart by its content:

    - None: `videos` holds class folders (or train, val and test folders of class folders);
    - a csv with the columns `path,label` and optionally `split,key,start_s,end_s`; paths are relative to `videos`
      and stay inside it;
    - a Kinetics csv (`label,youtube_id,time_start,time_end`, mostly `split`);
    - a folder of such csv files, one a split, such as train.csv and val.csv;
    - one of UCF101's train or test lists, or their folder: both lists of that split are read, and classInd.txt;
    - one of HMDB51's split files, or their folder: all files of that split are read, without the videos it leaves out.

    classes: a text file with one class a line, to fix the labels where a list does not hold every class.
    split_number: which split of a folder of UCF101's or HMDB51's lists, 1 if not given.
    group, val_fraction: how videos are held out where the annotations give no splits, see `choose_val`.

    Raises UserError or UsageError, one line that says what is wrong, where, and what to do; StoreError for a store that
    does not answer or refuses.
    """
    folder = videos if isinstance(videos, Storage) else Storage(videos)
    if not folder.exists():
        raise UserError(f"{folder.display()} is not there: give the folder of videos")
    if folder.size("") is not None:
        raise UserError(f"{folder.display()} is not a folder: give the folder of videos")
    if folder.local and not any(os.scandir(folder.path())):
        raise UserError(f"{folder.display()} is an empty folder: it should hold videos")
    files = VideoFiles(folder)
    if group is not None:
        compile_group(group)
    order = None
    if annotations is None:
        entries = _class_folders(files)
    else:
        entries, order = _annotated(files, annotations, split_number)
        _refuse_all_missing(files, entries)
    if classes is not None:
        order = read_classes(classes)
    return make_manifest(entries, order, group, val_fraction=val_fraction)


def _annotated(files: VideoFiles, file: Path, split_number: int | None) -> tuple[list[Entry], tuple[str, ...] | None]:
    """The rows of whatever kind of annotations `file` is, and the order of the classes if it gives one."""
    if not file.exists():
        raise UserError(f"there are no annotations {file}")
    folder, number = (file, 0) if file.is_dir() else (file.parent, 0)
    if match := UCF101_FILE.fullmatch(file.name) or HMDB51_FILE.fullmatch(file.name):
        number = int(match[2])
        if split_number not in (None, number):
            raise UsageError(f"{file} belongs to split {number}, not {split_number}: give the folder of the lists")
    number = number or split_number or 1
    names = [file.name] if file.is_file() else sorted(os.listdir(folder))
    if any(UCF101_FILE.fullmatch(name) for name in names):
        return read_ucf101(files, folder, number)
    if any(HMDB51_FILE.fullmatch(name) for name in names):
        return read_hmdb51(files, folder, number), None
    if split_number is not None:
        raise UsageError(f"{file}: only UCF101's and HMDB51's lists have split numbers")
    if file.is_dir():
        return _csv_folder(files, file), None
    return read_csv(files, file), None


def _csv_folder(files: VideoFiles, folder: Path) -> list[Entry]:
    """Csv files with one split each; where they have no column for it, their name ends with it."""
    lists = sorted(folder.glob("*.csv"))
    if not lists:
        raise UserError(f"{folder} holds no annotations: neither csv files nor UCF101's or HMDB51's lists")
    entries: list[Entry] = []
    file_of: dict[str | None, Path] = {}
    for file in lists:
        named = SPLIT_FOLDERS.get(re.split(r"[_-]", file.stem)[-1])
        rows = read_csv(files, file)
        for entry in rows:
            entry.split = entry.split or named
        for split in sorted({entry.split or "" for entry in rows}):
            if file_of.setdefault(split, file) is not file:
                what = f"the split {split}" if split else "no split"
                raise UserError(f"{file_of[split].name} and {file.name} in {folder} both give {what}: give one file")
        entries += rows
    return entries


def _class_folders(files: VideoFiles) -> list[Entry]:
    """One folder a class with videos at any depth, or `train` and `val` (and `test`) folders of such folders."""
    videos = files.folder.display()
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
    if files.other_files:
        log.warning("%s: %d files are not videos by their names (%s, ...)", videos, len(files.other_files), files.other_files[0])
    entries = []
    for path in files.paths:
        parts = path.split("/")
        split = SPLIT_FOLDERS[parts[0]] if by_split else None
        entries.append(Entry(path, parts[depth], files.folder.display(path), 0, split))
    return entries


def _refuse_all_missing(files: VideoFiles, entries: list[Entry]) -> None:
    """Some files of a list are always missing; all of them means another folder."""
    if all(entry.missing for entry in entries):
        where = f"{files.folder.display()} (looked for {entries[0].path}, ...)"
        raise UserError(
            f"none of the {len(entries)} videos listed is in {where}: give the folder that the list's paths start from"
        )
