"""The official split files of UCF101 and HMDB51."""

import re
from pathlib import Path

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.manifest import Entry, safe_key
from lgd.preprocessing.video.files import VideoFiles, stem_of

UCF101_FILE = re.compile(r"(train|test)list(\d+)\.txt")
HMDB51_FILE = re.compile(r"(.+)_test_split(\d+)\.txt")
HMDB51_SPLITS = {"1": "train", "2": "test"}  # 0: not used in this split


def read_ucf101(files: VideoFiles, folder: Path, number: int) -> tuple[list[Entry], tuple[str, ...] | None]:
    """The rows of trainlistNN and testlistNN, and the classes in the order of classInd.txt (None without it).

    Lines are `Class/v_Class_gNN_cNN.avi`, in the train lists followed by the number of the class, from 1. Videos lie
    in class folders or flat, with any extension. Raises UserError for lines of another form and unknown classes.
    """
    classes = read_classes(folder / "classInd.txt") if (folder / "classInd.txt").exists() else None
    entries = []
    lists = [(split, folder / f"{split}list{number:02d}.txt") for split in ("train", "test")]
    if not any(file.exists() for _, file in lists):
        raise UserError(f"{folder} has no split {number}: there is no trainlist{number:02d}.txt or testlist")
    for split, file in lists:
        for line, text in _lines(file) if file.exists() else ():
            match = re.fullmatch(r"([^/]+)/(\S+\.\w+)(?: (\d+))?", text)
            if not match:
                raise UserError(f"{file} line {line}: {text!r} is not a line like Archery/v_Archery_g01_c01.avi 3")
            name, label = match[1], match[3]
            if classes and label and (int(label) > len(classes) or classes[int(label) - 1] != name):
                raise UserError(f"{file} line {line}: class {label} is not {name} in {folder / 'classInd.txt'}")
            entries.append(_entry(files, f"{name}/{match[2]}", name, split=split, file=file, line=line))
    return entries, classes


def read_hmdb51(files: VideoFiles, folder: Path, number: int) -> list[Entry]:
    """The rows of all `<class>_test_splitN.txt` that are used in split N. Lines are `<video>.avi <0, 1 or 2>`.

    Videos lie in class folders or flat, with any extension. Raises UserError for lines of another form.
    """
    entries = []
    for file in sorted(folder.iterdir()):
        match = HMDB51_FILE.fullmatch(file.name)
        if not match or int(match[2]) != number:
            continue
        for line, text in _lines(file):
            parts = text.rsplit(maxsplit=1)
            if len(parts) != 2 or parts[1] not in ("0", "1", "2"):
                raise UserError(f"{file} line {line}: {text!r} is not a video and 0, 1 or 2")
            if parts[1] != "0":
                path = f"{match[1]}/{parts[0]}"
                entries.append(_entry(files, path, match[1], split=HMDB51_SPLITS[parts[1]], file=file, line=line))
    if not entries:
        raise UserError(f"{folder} has no split {number}: there are no *_test_split{number}.txt")
    return entries


def read_classes(file: Path) -> tuple[str, ...]:
    """Class names, one a line, in the order of their labels; lines may be numbered (`1 ApplyEyeMakeup`).

    Raises UserError for a file that cannot be read, is empty, or names a class twice.
    """
    names = [text for _, text in _lines(file)]
    numbered = [re.fullmatch(r"(\d+)\s+(.+)", name) for name in names]
    numbers = [int(match[1]) for match in numbered if match]
    if numbers in (list(range(len(names))), list(range(1, len(names) + 1))):
        names = [match[2] for match in numbered if match]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not names:
        raise UserError(f"{file} {f'names the class {repeated[0]} twice' if repeated else 'names no classes'}")
    return tuple(names)


def _entry(files: VideoFiles, path: str, class_name: str, *, split: str, file: Path, line: int) -> Entry:
    stem = stem_of(path)
    found = files.find(stem, class_name, split)
    return Entry(found or path, class_name, file, line, split, safe_key(stem), missing=found is None)


def _lines(file: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are not empty."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
