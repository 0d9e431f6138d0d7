"""Videos and annotations, in any of the formats that users have -> the manifest."""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.console.progress import say
from lgd.pipeline.storage.storage import Storage
from lgd.preprocessing.annotations.activitynet import read_activitynet
from lgd.preprocessing.annotations.all_splits import read_all_splits
from lgd.preprocessing.annotations.ava_kinetics import read_ava
from lgd.preprocessing.annotations.class_folders import read_class_folders
from lgd.preprocessing.annotations.class_list import read_classes
from lgd.preprocessing.annotations.csv_lists import read_csv, read_csv_folder
from lgd.preprocessing.annotations.diving48 import VOCABULARY, read_diving48
from lgd.preprocessing.annotations.entries import Annotations, Entry
from lgd.preprocessing.annotations.formats import ACCEPTED, DESCRIPTIONS, Format, recognize
from lgd.preprocessing.annotations.manifest import Manifest, create_manifest
from lgd.preprocessing.annotations.moments import read_moments
from lgd.preprocessing.annotations.official_lists import HMDB51_FILE, UCF101_FILE, read_hmdb51, read_ucf101
from lgd.preprocessing.annotations.split_names import split_in_name
from lgd.preprocessing.annotations.text_files import and_more
from lgd.preprocessing.annotations.validation_split import compile_group
from lgd.preprocessing.annotations.video_lists import read_csv_without_header, read_video_list
from lgd.preprocessing.video.files import VideoFiles

READERS: dict[Format, Callable[[VideoFiles, Path, Path | None], Annotations]] = {
    "video list": read_video_list,
    "csv without header": read_csv_without_header,
    "moments in time": read_moments,
    "activitynet": read_activitynet,
    "diving48": read_diving48,
    "ava": read_ava,
}
NUMBERED_SPLIT = re.compile(r"split_?(\d+)")  # mmaction2: one list per split and part
LIST_EXTENSIONS = (".csv", ".json", ".txt")

log = logging.getLogger(__name__)


def read_manifest(
    videos: str | Path | Storage,
    annotations: Path | None = None,
    group: str | None = None,
    *,
    val_fraction: float = 0.2,
    classes: Path | None = None,
    split_number: int | None = None,
    unlabelled: bool = False,
) -> Manifest:
    """Return every annotated video with its key, label and split.

    videos: the folder of videos, local or in an object store. annotations: the source of the labels; its content
    decides how it is read:

    - None: `videos` contains class folders (or folders of splits that contain class folders);
    - a CSV file with the columns `path,label` and optionally others (`read_csv`), or one of Kinetics, or a folder of
      such files, one per split, such as train.csv and val.csv; paths are relative to `videos` and stay inside it;
    - one of UCF101's train or test lists, or their folder: both lists of that split are read, and classInd.txt;
    - one of HMDB51's split files, or their folder: all files of that split are read, without the videos it does not
      use;
    - a list of one of the formats in READERS, or a folder of such lists, one per split.

    A folder with the lists of several splits of UCF101 or HMDB51 (or of mmaction2's for them) is read completely,
    unless split_number is given: each video is listed once, in the split `all`, and `Manifest.members` has the splits.

    classes: a text file with one class per line, to set the labels if a list does not contain every class.
    split_number: number of the split of UCF101 or HMDB51, by default that of the given file, or all of the folder.
    group, val_fraction: how validation videos are chosen if the annotations give no splits, see
    `choose_validation_keys`. unlabelled: take videos without a label, see `read_csv` and `read_class_folders`.

    Raises UserError or UsageError, one line that names the problem, the place, and what to do; StoreError if the
    storage is unreachable.
    """
    folder = videos if isinstance(videos, Storage) else Storage(videos)
    _check_folder(folder)
    files = VideoFiles(folder)
    if group is not None:
        compile_group(group)
    kind: Format
    if annotations is None:
        kind, listed = "class folders", read_class_folders(files, unlabelled)
    else:
        kind, listed = read_annotations(files, annotations, split_number, classes=classes, unlabelled=unlabelled)
        _check_some_exist(files, annotations, listed.entries)
    if classes is not None and listed.classes_file != classes:
        listed = listed._replace(classes=read_classes(classes), classes_file=classes)
    manifest = create_manifest(listed, group, val_fraction)
    names = f"; classes of {listed.classes_file}" if listed.classes_file else ""
    if kind in READERS and listed.classes is None and all(name.isdecimal() for name in manifest.classes):
        names = "; classes are named by their numbers (--classes gives their names)"
    say(f"{annotations or folder.display()}: recognized as {DESCRIPTIONS[kind]}{names}")
    return replace(manifest, annotations_format=DESCRIPTIONS[kind])


def detect_format(annotations: Path) -> tuple[Format, tuple[Path, ...]]:
    """Return the format of a file, or of the files in a folder, by their content, and the files that have it.

    In a folder, files that cannot be read as annotations are ignored if there are others: label maps, notes, lists of
    frames. Raises UserError if no file can be read or if they are of several formats."""
    if not annotations.is_dir():
        return recognize(annotations), (annotations,)
    try:
        files = sorted(file for file in annotations.iterdir() if file.suffix.lower() in LIST_EXTENSIONS)
    except OSError as error:
        raise UserError(f"{annotations} cannot be read: {error.strerror}") from error
    by_format: dict[Format, list[Path]] = {}
    refused: dict[Path, UserError] = {}
    for file in files:
        if not file.name.startswith(".") and file.is_file():
            try:
                kind = recognize(file)
                if kind in ("csv", "kinetics") and file.suffix.lower() != ".csv":
                    raise UserError(f"{file} is a CSV file: give it the extension .csv, or give the file itself")
                by_format.setdefault(kind, []).append(file)
            except UserError as error:  # raised below if there is no other file
                refused[file] = error
    for official in ("ucf101", "hmdb51"):
        if official in by_format:
            return official, tuple(by_format[official])
    if by_format.keys() == {"csv", "kinetics"}:
        by_format = {"csv": sorted([*by_format["csv"], *by_format["kinetics"]])}
    if not by_format:
        # A JSON or CSV file was meant to be the list; a text file may be anything.
        for file in sorted(refused, key=lambda file: file.suffix.lower() == ".txt"):
            raise refused[file]
        raise UserError(f"{annotations} contains no annotations; accepted formats: {ACCEPTED}")
    if len(by_format) > 1:
        found = " and ".join(f"{paths[0].name}: {DESCRIPTIONS[kind]}" for kind, paths in by_format.items())
        raise UserError(f"{annotations} contains annotations of several formats ({found}): give one of the files")
    ((kind, paths),) = by_format.items()
    _check_ignored(refused, paths)
    newer = [path for path in paths if "_V2_" in path.name] if kind == "diving48" else []
    return kind, tuple(newer or paths)  # version 2 of the labels of Diving48 corrects version 1


def _check_ignored(refused: Mapping[Path, UserError], read: Sequence[Path]) -> None:
    """Log a warning for files that are not read but look like lists of videos.

    Raises the error of such a file if no other list has its split: the split would be missing without notice."""
    splits, extensions = {split_in_name(file.stem) for file in read}, {file.suffix.lower() for file in read}
    ignored = []
    for file, error in refused.items():
        split = split_in_name(file.stem)
        if split and split not in splits and file.suffix.lower() in extensions:
            raise error
        is_list = split or "list" in file.name.lower() or file.suffix.lower() != ".txt"
        if is_list and file.name != VOCABULARY:
            ignored.append(error)
    if ignored:
        log.warning("ignored%s: %s", and_more(len(ignored)), ignored[0])


def read_annotations(
    files: VideoFiles,
    annotations: Path,
    split_number: int | None,
    *,
    classes: Path | None = None,
    unlabelled: bool = False,
) -> tuple[Format, Annotations]:
    """Read annotations of any format. Return the format too."""
    if not annotations.exists():
        raise UserError(f"the annotations {annotations} do not exist")
    kind, lists = detect_format(annotations)
    all_numbers = _all_numbers(annotations, split_number, lists=lists)
    if kind in ("ucf101", "hmdb51"):
        folder = annotations if annotations.is_dir() else annotations.parent
        read_official = read_ucf101 if kind == "ucf101" else partial(read_hmdb51, unused=bool(all_numbers))
        if all_numbers:
            return kind, read_all_splits(partial(read_official, files, folder), all_numbers)
        return kind, read_official(files, folder, _choose_split(annotations, split_number, lists=lists))
    if kind in READERS and annotations.is_dir() and any(NUMBERED_SPLIT.search(file.name) for file in lists):
        if all_numbers and all(split_in_name(file.stem) for file in lists if _split_number(file) is not None):
            read = partial(_read_split, files, annotations, kind=kind, lists=lists, classes=classes)
            return kind, read_all_splits(read, all_numbers)
        lists = _lists_of_split(annotations, lists, _choose_split(annotations, split_number, lists=lists))
    elif split_number is not None:
        raise UsageError(f"--split-number applies only to the lists of UCF101 and HMDB51, not to {annotations}")
    if kind in READERS:
        return kind, _read_lists(files, lists, kind, classes=classes)
    read_lists = read_csv if lists == (annotations,) else read_csv_folder
    return kind, read_lists(files, annotations, unlabelled)


def _read_split(
    files: VideoFiles, folder: Path, number: int, *, kind: Format, lists: Sequence[Path], classes: Path | None
) -> Annotations:
    """Read the lists of one split."""
    return _read_lists(files, _lists_of_split(folder, lists, number), kind, classes=classes)


def _all_numbers(annotations: Path, split_number: int | None, *, lists: Sequence[Path]) -> list[int]:
    """Return the numbers of the splits that a folder lists; none if the user chose one, or if there is only one."""
    numbers = {number for number in map(_split_number, lists) if number is not None}
    return sorted(numbers) if annotations.is_dir() and split_number is None and len(numbers) > 1 else []


def _lists_of_split(folder: Path, lists: Sequence[Path], number: int) -> tuple[Path, ...]:
    """Return the lists without those whose names have the number of another split."""
    numbers = {file: _split_number(file) for file in lists}
    if number not in numbers.values():
        raise UserError(f"{folder} has no split {number}: it contains no list named so, such as {lists[0].name}")
    return tuple(file for file in lists if numbers[file] in (None, number))


def _read_lists(files: VideoFiles, lists: Sequence[Path], kind: Format, *, classes: Path | None) -> Annotations:
    """Read lists of one format. Raises UserError if two of them contain the same split, except for AVA, whose lists of
    movies and of Kinetics belong together."""
    results = [READERS[kind](files, file, classes) for file in lists]
    file_by_split: dict[str | None, Path] = {}
    for file, result in zip(lists, results, strict=True):
        for split in {entry.split for entry in result.entries} if kind != "ava" else ():
            if file_by_split.setdefault(split, file) is not file:
                content = f"videos of the split {split}" if split else "videos without a split"
                raise UserError(
                    f"{file_by_split[split].name} and {file.name} in {file.parent} both contain {content}: "
                    "give one of the files with --annotations"
                )
    entries = [entry for result in results for entry in result.entries]
    if not entries:
        raise UserError(f"{lists[0]}{and_more(len(lists))}: no video can be used, for the reasons above")
    return results[0]._replace(entries=entries)


def _split_number(file: Path) -> int | None:
    """Return the number of the split in the name of a list: UCF101's, HMDB51's or `ucf101_train_split_1_videos.txt`."""
    match = UCF101_FILE.fullmatch(file.name) or HMDB51_FILE.fullmatch(file.name)
    if match:
        return int(match[2])
    other = NUMBERED_SPLIT.search(file.name)
    return int(other[1]) if other else None


def _choose_split(annotations: Path, split_number: int | None, *, lists: Sequence[Path]) -> int:
    """Return the number of the split to read; print it if there are several and the user did not choose.

    Raises UsageError if a single file is of another split."""
    numbers = {number for number in map(_split_number, lists) if number is not None}
    if annotations.is_dir():
        if split_number is None and len(numbers) > 1:
            say(f"{annotations}: split 1 of {len(numbers)} (--split-number chooses another one)")
        return split_number or 1
    number = numbers.pop()
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


def _check_some_exist(files: VideoFiles, annotations: Path, entries: list[Entry]) -> None:
    """Some files of a list are always missing; if all of them are, it is the wrong folder."""
    if not entries:
        raise UserError(f"{annotations} lists no videos")
    if all(entry.missing for entry in entries):
        raise UserError(
            f"{files.folder.display()} contains none of the {len(entries)} listed videos, such as {entries[0].path}: "
            "give the folder that the paths in the list are relative to"
        )
