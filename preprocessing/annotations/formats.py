"""The formats of annotations, and how one file is recognized by its content."""

import csv
import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.official_lists import HMDB51_FILE, UCF101_FILE
from lgd.preprocessing.annotations.text_files import open_text
from lgd.preprocessing.video.files import EXTENSIONS

Format = Literal[
    "class folders",
    "csv",
    "kinetics",
    "ucf101",
    "hmdb51",
    "video list",
    "csv without header",
    "moments in time",
    "activitynet",
    "diving48",
    "ava",
]
# What the command prints, with the form of a line.
DESCRIPTIONS: dict[Format, str] = {
    "class folders": "class folders",
    "csv": "CSV (path,label)",
    "kinetics": "Kinetics CSV (label,youtube_id,time_start,time_end,split)",
    "ucf101": "UCF101 split lists (trainlist01.txt, testlist01.txt)",
    "hmdb51": "HMDB51 split lists (CLASS_test_split1.txt)",
    "video list": "mmaction2 or SlowFast video list (path label, separated by a space)",
    "csv without header": "CSV without a header (path,label)",
    "moments in time": "Moments in Time CSV (path,label,count,count)",
    "activitynet": "ActivityNet JSON (database, annotations, segment)",
    "diving48": "Diving48 JSON (vid_name, label)",
    "ava": "AVA-Kinetics CSV (video_id,timestamp,box,action_id)",
}
ACCEPTED = "CSV with the columns path,label; " + "; ".join(
    text.partition(" (")[0] for name, text in DESCRIPTIONS.items() if name not in ("class folders", "csv")
)

_EXTENSION = EXTENSIONS.pattern.removesuffix("$")
NUMBERED = re.compile(rf"(.+{_EXTENSION})" + r"((?:\s+-?\d{1,9})+)", re.IGNORECASE)  # groups 1 and 3: path, numbers
_LABELED = re.compile(rf"(.+{_EXTENSION})([\s;]+)(\S.*)", re.IGNORECASE)
_FRAMES = re.compile(r"\S.*\s\d+\s+\d+")
BARE = re.compile(r"(\S*/.*?)\s+(\d{1,9})")  # a path without extension and one number
_NUMBER = re.compile(r"-?\d+(\.\d*)?")
_SNIFFED_LINES, _SNIFFED_CHARACTERS = 20, 4096  # of a line
_SHOWN_CHARACTERS = 60


def recognize(file: Path) -> Format:
    """Return the format of one annotation file, by its content.

    The lists of UCF101 and HMDB51 also require their official names, which say what the lines do not: the split, and
    for HMDB51 the class.

    Raises UserError for a file of another format; for known formats that cannot be used, it says why."""
    with open_text(file) as text:
        first = islice((line.strip() for line in text if line.strip()), _SNIFFED_LINES)
        lines = [line[:_SNIFFED_CHARACTERS] for line in first]
    if any("\0" in line for line in lines):
        raise UserError(f"{file} is not UTF-8 text (it contains zero bytes): save the file as UTF-8")
    if official := _official_lists(file, lines):
        return official
    if not lines:
        raise UserError(f"{file} is empty: it lists no videos")
    if lines[0][0] in "{[":
        return _recognize_json(file, lines[0])
    return _recognize_table(file, lines)


def load_json(file: Path) -> Any:
    """Return the content of a JSON file. Raises UserError if it cannot be read or is not valid JSON."""
    with open_text(file) as text:
        try:
            return json.load(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{file} line {error.lineno}: not valid JSON ({error.msg})") from error
        except (RecursionError, ValueError) as error:
            raise UserError(f"{file}: not valid JSON (nested too deeply, or with a number that is too long)") from error


def unknown_format(file: Path, start: str) -> UserError:
    """Return the error for a file of none of the formats. start: what the file begins with."""
    shown = start if len(start) <= _SHOWN_CHARACTERS else f"{start[:_SHOWN_CHARACTERS]}..."
    return UserError(f"{file} is not in a known format (it begins with {shown!r}); accepted formats: {ACCEPTED}")


def _official_lists(file: Path, lines: Sequence[str]) -> Literal["ucf101", "hmdb51"] | None:
    """Return the format of a file with an official name, unless all lines are those of another list of videos."""
    numbered = [match for match in map(NUMBERED.fullmatch, lines) if match]
    other_list = bool(lines) and len(numbered) == len(lines)
    labels = {match[3].strip() for match in numbered}
    if UCF101_FILE.fullmatch(file.name):
        # Official train lists number the classes from 1, and every path begins with the folder of the class.
        other_list &= "0" in labels or not all("/" in match[1] for match in numbered)
        return None if other_list else "ucf101"
    if HMDB51_FILE.fullmatch(file.name):
        other_list &= not labels <= {"0", "1", "2"} or any("/" in match[1] for match in numbered)
        return None if other_list else "hmdb51"
    return None


def _recognize_table(file: Path, lines: Sequence[str]) -> Format:
    """Return the format of a file of lines, by the first one. Raises UserError as `recognize` does."""
    first = lines[0]
    try:
        row = [value.strip() for value in next(csv.reader([first]))]
    except csv.Error:
        return "csv"  # its reader says what is wrong in which line
    names = {value.lower() for value in row}
    if "youtube_id" in names:
        return "kinetics"
    if names & {"path", "label"}:
        return "csv"
    _check_separator(file, first)
    if numbered := NUMBERED.fullmatch(first):
        if len(numbers := numbered[3].split()) > 1:
            raise several_labels(file, 1, numbers)
        return "video list"
    if len(row) > 1 and EXTENSIONS.search(row[0]):
        return _recognize_row(file, row)
    if _is_ava_row(row):
        return "ava"
    if labeled := _LABELED.fullmatch(first):
        raise UserError(
            f"{file} line 1: the label {labeled[4]!r} is not a number: in a list separated by spaces, labels are "
            "numbers of classes; save it as CSV with the header path,label"
        )
    if _FRAMES.fullmatch(first):
        raise UserError(
            f"{file} lists folders of frames ({first!r}), which are not videos: give the list of the video files "
            "(path label)"
        )
    if BARE.fullmatch(first):
        return "video list"
    if all(re.fullmatch(r"[^,]+,\s*\d+", line) for line in lines):
        raise UserError(f"{file} is a list of classes, not of videos: give the list of videos, or the folder of both")
    if file.suffix.lower() == ".csv" and len(row) > 1:
        return "csv"  # its reader names the columns
    raise unknown_format(file, first)


def several_labels(file: Path, line: int, numbers: Sequence[str]) -> UserError:
    """Return the error for a line with several numbers after the path."""
    return UserError(
        f"{file} line {line}: {len(numbers)} numbers after the path ({' '.join(numbers)}): lists with several labels "
        "per video, or with numbers of frames, cannot be used; give one label per video"
    )


def _recognize_row(file: Path, row: Sequence[str]) -> Format:
    """Return the format of a CSV file without a header. row: its first row, which begins with the path of a video."""
    values = list(row[1:])
    while len(values) > 1 and not values[-1]:
        values.pop()
    if len(values) == 1:
        return "csv without header"
    numbers = [bool(re.fullmatch(r"-?\d+", value)) for value in values]
    if all(numbers):
        raise several_labels(file, 1, values)
    if numbers == [False, True, True]:
        return "moments in time"
    raise UserError(
        f"{file} has {len(row)} columns but no header: add a first line with their names, such as path,label,split"
    )


def _is_ava_row(row: Sequence[str]) -> bool:
    """Return whether a row is a key frame: video, timestamp, box of four, action, person; all but two may be empty."""
    if len(row) not in (2, 7, 8) or not _NUMBER.fullmatch(row[1]):
        return False
    if len(row) == 2:
        return bool(re.fullmatch(r"[\w-]{11}", row[0]))  # a YouTube id
    return all(not value or _NUMBER.fullmatch(value) for value in row[2:7])


def _check_separator(file: Path, first: str) -> None:
    """Raise UserError if the file is a CSV file with another separator than a comma."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        values = [value.strip().strip('"') for value in first.split(separator)]
        header = {value.lower() for value in values} & {"path", "label", "youtube_id"}
        row = EXTENSIONS.search(values[0]) and not (separator == "\t" and NUMBERED.fullmatch(first))
        if len(values) > 1 and (header or row):
            raise UserError(f"{file} is separated by {name}: save it with commas")


def _recognize_json(file: Path, start: str) -> Format:
    content = load_json(file)
    if isinstance(content, dict):
        database = content.get("database", content)
        videos = list(database.values()) if isinstance(database, dict) else []
        annotations = [video.get("annotations") for video in videos if isinstance(video, dict)]
        if any(isinstance(each, list) for each in annotations):
            return "activitynet"
        if any(isinstance(each, dict) for each in annotations):
            raise UserError(f"{file} is a JSON file of Kinetics: give its CSV file, which lists the same videos")
    elif isinstance(content, list) and content:
        first = content[0]
        if isinstance(first, dict) and "vid_name" in first:
            return "diving48"
        if isinstance(first, dict) and "id" in first and first.keys() <= {"id", "label", "template", "placeholders"}:
            raise UserError(
                f"{file} is a JSON file of Something-Something, which cannot be read: save it as CSV with the header "
                "path,label,split"
            )
        if isinstance(first, list) and all(isinstance(name, str) for name in first):
            raise UserError(f"{file} is a list of classes, not of videos: give the folder that also lists the videos")
    raise unknown_format(file, start)
