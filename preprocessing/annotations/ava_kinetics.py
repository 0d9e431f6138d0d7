"""Annotations of AVA-Kinetics: boxes of persons in key frames, of which one clip per key frame is made."""

import logging
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.class_list import read_classes
from lgd.preprocessing.annotations.entries import Annotations, Entry, safe_key
from lgd.preprocessing.annotations.split_names import split_in_name
from lgd.preprocessing.annotations.text_files import open_text
from lgd.preprocessing.video.files import VideoFiles

CLIP_S = 3.0  # seconds around a key frame that the annotators saw (Gu et al., AVA, section 3)
_ACTION = re.compile(r'name:\s*"([^"]*)"\s*(?:label_id|id):\s*(\d+)')
_TRIMMED = re.compile(r"(.+)_(\d{6})_(\d{6})")

log = logging.getLogger(__name__)


class _KeyFrame(NamedTuple):
    video: str
    time_s: float


class _Clips:
    """The files of the videos: complete, or trimmed as `{video}_{start:06d}_{end:06d}` like those of Kinetics."""

    def __init__(self, files: VideoFiles) -> None:
        self._files = files
        self._trimmed: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for stem in files.by_stem:
            if match := _TRIMMED.fullmatch(stem):
                self._trimmed[match[1]].append((int(match[2]), int(match[3]), stem))

    def find(self, frame: _KeyFrame, split: str | None) -> tuple[str, float, float] | None:
        """Return the path of the file with the key frame and the times at which it starts and ends, seconds."""
        for start_s, end_s, stem in self._trimmed.get(frame.video, ()):
            path = self._files.find(stem, "", split) if start_s <= frame.time_s <= end_s else None
            if path:
                return path, float(start_s), float(end_s)
        path = self._files.find(frame.video, "", split)
        return (path, 0.0, math.inf) if path else None


def read_ava(files: VideoFiles, file: Path, classes: Path | None) -> Annotations:
    """Read rows `video_id,timestamp,x1,y1,x2,y2,action_id` (and optionally a person), without a header.

    A key frame whose persons all do the same one action becomes a clip of 3 seconds around it, labeled with the action.
    Key frames with several actions are left out, since a clip has one label, and so are those with none, except in the
    split test, where they have no label; the numbers are logged.
    The names of the actions are those of `classes` (the file of --classes, action 1 first) or of the .pbtxt file in the
    folder of the list; without them, the numbers are the classes. The split is the one that the name of the file says.
    Raises UserError for a row of a different form."""
    actions: dict[_KeyFrame, set[int]] = defaultdict(set)
    lines: dict[_KeyFrame, int] = {}
    with open_text(file) as text:
        for line, values in enumerate(text, 1):
            if values.strip():
                frame, action = _parse(values.split(","), f"{file} line {line}")
                lines.setdefault(frame, line)
                actions[frame].update({action} - {0})
    source = classes or _action_list(file.parent)
    names = _action_names(source) if source else None
    split, clips, entries = split_in_name(file.stem), _Clips(files), []
    for frame, line in lines.items():
        name = None
        if len(actions[frame]) == 1:
            (action,) = actions[frame]
            if names is not None and action not in names:
                raise UserError(f"{file} line {line}: action {action} is not in {source}")
            name = names[action] if names else str(action)
        if name or (not actions[frame] and split == "test"):
            entries.append(_entry(clips, frame, Entry("", name, file, line, split)))
    several = sum(len(each) > 1 for each in actions.values())
    none = sum(not each for each in actions.values())
    without_action = "with no action have no label" if split == "test" else "with no action are left out"
    for count, what in ((several, "with several actions are left out"), (none, without_action)):
        if count:
            log.warning("%s: key frames %s: %d of %d", file, what, count, len(lines))
    ordered = tuple(names[action] for action in sorted(names)) if names else None
    return Annotations(entries, ordered, source)


def _parse(row: list[str], where: str) -> tuple[_KeyFrame, int]:
    """Return the key frame of a row and its action, 0 if there is none."""
    values = [value.strip() for value in row]
    try:
        time_s, action = float(values[1]), int(values[6]) if len(values) > 6 and values[6] else 0
        if len(values) not in (2, 7, 8) or not values[0] or not (math.isfinite(time_s) and time_s >= 0) or action < 0:
            raise ValueError
    except (ValueError, IndexError):
        raise UserError(
            f"{where}: expected video_id,timestamp,x1,y1,x2,y2,action_id, not {','.join(values)!r}"
        ) from None
    return _KeyFrame(values[0], time_s), action


def _entry(clips: _Clips, frame: _KeyFrame, entry: Entry) -> Entry:
    """Return the entry with its file, its interval, which a trimmed file may shorten, and its key."""
    path, file_start_s, file_end_s = clips.find(frame, entry.split) or (None, 0.0, math.inf)
    entry.start_s = max(frame.time_s - CLIP_S / 2, file_start_s) - file_start_s
    entry.end_s = min(frame.time_s + CLIP_S / 2, file_end_s) - file_start_s
    entry.key = safe_key(f"{frame.video}_{round(frame.time_s * 1000):07d}")
    entry.path, entry.missing = path or f"{frame.video}.mp4", path is None
    return entry


def _action_list(folder: Path) -> Path | None:
    """Return the list of all actions; the shorter ones, for the ActivityNet challenge, lack the rare actions."""
    found = sorted(folder.glob("*.pbtxt"), key=lambda file: ("activitynet" in file.name.lower(), file.name))
    return found[0] if found else None


def _action_names(file: Path) -> dict[int, str]:
    if file.suffix.lower() != ".pbtxt":
        return dict(enumerate(read_classes(file), 1))
    with open_text(file) as text:
        names = {int(number): name for name, number in _ACTION.findall(text.read())}
    if not names or len(set(names.values())) < len(names):
        raise UserError(f'{file}: expected a list of actions such as name: "sit" label_id: 11, each once')
    return names
