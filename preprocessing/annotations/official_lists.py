"""Annotations in the official split files of UCF101 and HMDB51."""

import re
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.class_list import read_classes
from lgd.preprocessing.annotations.entries import Annotations, Entry, safe_key
from lgd.preprocessing.annotations.text_files import read_lines
from lgd.preprocessing.video.files import VideoFiles, stem_of

UCF101_FILE = re.compile(r"(train|test)list(\d+)\.txt")
HMDB51_FILE = re.compile(r"(.+)_test_split(\d+)\.txt")
HMDB51_SPLITS = {"1": "train", "2": "test"}  # 0: not used in this split


def read_ucf101(files: VideoFiles, folder: Path, number: int) -> Annotations:
    """Read trainlistNN and testlistNN of split `number`, with the classes in the order of classInd.txt if it exists.

    Lines are `Class/v_Class_gNN_cNN.avi`, in the train lists followed by the number of the class, from 1. The videos
    are in class folders or in one folder, with any extension.
    Raises UserError for a split that does not exist, lines of a different form and unknown classes."""
    class_file = folder / "classInd.txt"
    classes = read_classes(class_file) if class_file.exists() else None
    entries = []
    lists = [(split, folder / f"{split}list{number:02d}.txt") for split in ("train", "test")]
    if not any(file.exists() for _, file in lists):
        names = " nor ".join(file.name for _, file in lists)
        raise UserError(f"{folder} has no split {number}: it contains neither {names}")
    for split, file in lists:
        for line, text in read_lines(file) if file.exists() else ():
            match = re.fullmatch(r"([^/]+)/(\S+\.\w+)(?:\s+(\d{1,9}))?", text)
            if not match:
                raise UserError(
                    f"{file} line {line}: expected a line such as Archery/v_Archery_g01_c01.avi 3, not {text!r}"
                )
            name, label = match[1], match[3]
            if classes and label and (not 0 < int(label) <= len(classes) or classes[int(label) - 1] != name):
                raise UserError(f"{file} line {line}: class {label} is not {name} in {class_file}")
            entries.append(_find_video(files, f"{name}/{match[2]}", name, split=split, file=file, line=line))
    return Annotations(entries, classes, class_file if classes else None)


def read_hmdb51(files: VideoFiles, folder: Path, number: int, *, unused: bool = False) -> Annotations:
    """Read the videos that the files `<class>_test_splitN.txt` use in split N, the split `number`.

    Lines are `<video>.avi <0, 1 or 2>`: 1 for train, 2 for test, 0 for videos that the split does not use. The videos
    are in class folders or in one folder, with any extension. unused: read those of 0 as well, without a split.
    Raises UserError for a split that does not exist and lines of a different form."""
    entries = []
    for file in sorted(folder.iterdir()):
        match = HMDB51_FILE.fullmatch(file.name)
        if not match or int(match[2]) != number:
            continue
        for line, text in read_lines(file):
            parts = text.rsplit(maxsplit=1)
            if len(parts) != 2 or parts[1] not in ("0", "1", "2"):
                raise UserError(f"{file} line {line}: expected the name of a video and 0, 1 or 2, not {text!r}")
            if parts[1] != "0" or unused:
                path, split = f"{match[1]}/{parts[0]}", HMDB51_SPLITS.get(parts[1])
                entries.append(_find_video(files, path, match[1], split=split, file=file, line=line))
    if not entries:
        raise UserError(f"{folder} has no split {number}: it contains no videos in *_test_split{number}.txt")
    return Annotations(entries)


def _find_video(files: VideoFiles, path: str, class_name: str, *, split: str | None, file: Path, line: int) -> Entry:
    """Return the entry of a listed video, with the path of its file if it exists."""
    stem = stem_of(path)
    found = files.find(stem, class_name, split)
    return Entry(found or path, class_name, file, line, split, safe_key(stem), missing=found is None)
