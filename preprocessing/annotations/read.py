"""Videos and annotations, in any of the formats that users have -> the manifest."""

import os
from pathlib import Path
from typing import Literal

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.class_folders import read_class_folders
from lgd.preprocessing.annotations.class_list import read_classes
from lgd.preprocessing.annotations.csv_lists import read_csv, read_csv_folder
from lgd.preprocessing.annotations.entries import Annotations, Entry
from lgd.preprocessing.annotations.manifest import Manifest, create_manifest
from lgd.preprocessing.annotations.official_lists import HMDB51_FILE, UCF101_FILE, read_hmdb51, read_ucf101
from lgd.preprocessing.annotations.validation_split import compile_group
from lgd.preprocessing.video.files import VideoFiles

Format = Literal["csv", "csv folder", "ucf101", "hmdb51"]


def read_manifest(
    videos: str | Path | Storage,
    annotations: Path | None = None,
    group: str | None = None,
    *,
    val_fraction: float = 0.2,
    classes: Path | None = None,
    split_number: int | None = None,
) -> Manifest:
    """Return every annotated video with its key, label and split.

    videos: the folder of videos, local or in an object store. annotations: the source of the labels; its content
    decides how it is read:

    - None: `videos` contains class folders (or train, val and test folders of class folders);
    - a CSV file with the columns `path,label` and optionally `split,key,start_s,end_s`; paths are relative to `videos`
      and stay inside it;
    - a Kinetics CSV file (`label,youtube_id,time_start,time_end` and usually `split`);
    - a folder of such CSV files, one per split, such as train.csv and val.csv;
    - one of UCF101's train or test lists, or their folder: both lists of that split are read, and classInd.txt;
    - one of HMDB51's split files, or their folder: all files of that split are read, without the videos it does not
      use.

    classes: a text file with one class per line, to set the labels if a list does not contain every class.
    split_number: number of the split of UCF101 or HMDB51, by default that of the given file, or 1.
    group, val_fraction: how validation videos are chosen if the annotations give no splits, see
    `choose_validation_keys`.

    Raises UserError or UsageError, one line that names the problem, the place, and what to do; StoreError if the
    storage is unreachable.
    """
    folder = videos if isinstance(videos, Storage) else Storage(videos)
    _check_folder(folder)
    files = VideoFiles(folder)
    if group is not None:
        compile_group(group)
    if annotations is None:
        listed = read_class_folders(files)
    else:
        listed = _read_annotations(files, annotations, split_number)
        _check_some_exist(files, listed.entries)
    if classes is not None:
        listed = listed._replace(classes=read_classes(classes))
    return create_manifest(listed, group, val_fraction)


def detect_format(annotations: Path) -> Format:
    """Return the format of the annotations, by the name of the file or by the names of the files in the folder."""
    names = os.listdir(annotations) if annotations.is_dir() else [annotations.name]
    if any(UCF101_FILE.fullmatch(name) for name in names):
        return "ucf101"
    if any(HMDB51_FILE.fullmatch(name) for name in names):
        return "hmdb51"
    return "csv folder" if annotations.is_dir() else "csv"


def _read_annotations(files: VideoFiles, annotations: Path, split_number: int | None) -> Annotations:
    """Read annotations of any format."""
    if not annotations.exists():
        raise UserError(f"the annotations {annotations} do not exist")
    kind = detect_format(annotations)
    if kind in ("ucf101", "hmdb51"):
        read = read_ucf101 if kind == "ucf101" else read_hmdb51
        folder = annotations if annotations.is_dir() else annotations.parent
        return read(files, folder, _choose_split(annotations, split_number))
    if split_number is not None:
        raise UsageError(f"--split-number applies only to the lists of UCF101 and HMDB51, not to {annotations}")
    return read_csv(files, annotations) if kind == "csv" else read_csv_folder(files, annotations)


def _choose_split(annotations: Path, split_number: int | None) -> int:
    """Return the number of the split of UCF101 or HMDB51. Raises UsageError if a single file is of another split."""
    match = UCF101_FILE.fullmatch(annotations.name) or HMDB51_FILE.fullmatch(annotations.name)
    if not match:
        return split_number or 1
    number = int(match[2])
    if split_number not in (None, number):
        raise UsageError(f"{annotations} belongs to split {number}, not {split_number}: give the folder of the lists")
    return number


def _check_folder(videos: Storage) -> None:
    if not videos.exists():
        raise UserError(f"{videos.display()} does not exist: give the folder of the videos")
    if videos.size("") is not None:
        raise UserError(f"{videos.display()} is not a folder: give the folder of the videos")
    if videos.local and not any(os.scandir(videos.path())):
        raise UserError(f"{videos.display()} is an empty folder: give a folder that contains videos")


def _check_some_exist(files: VideoFiles, entries: list[Entry]) -> None:
    """Some files of a list are always missing; if all of them are, it is the wrong folder."""
    if all(entry.missing for entry in entries):
        raise UserError(
            f"{files.folder.display()} contains none of the {len(entries)} listed videos, such as {entries[0].path}: "
            "give the folder that the paths in the list are relative to"
        )
