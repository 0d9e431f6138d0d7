"""Annotations of ActivityNet, and of others with the same JSON structure, such as HACS segments."""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.entries import Annotations, Entry, safe_key
from lgd.preprocessing.annotations.formats import load_json
from lgd.preprocessing.annotations.split_names import split_in_name
from lgd.preprocessing.video.files import VideoFiles, stem_of

log = logging.getLogger(__name__)


def read_activitynet(files: VideoFiles, file: Path, classes: Path | None) -> Annotations:
    """Read `{"database": {id: {"subset": ..., "annotations": [{"segment": [start, end], "label": ...}]}}}`.

    Every annotated segment is one clip of the video, which is found as `v_{id}.*` or `{id}.*`. Segments may overlap.
    A segment that ends before it starts, or that has two labels, is left out; one that is listed twice is read once;
    their numbers are logged. Without `subset`, the split is the one that the name of the file says. Videos without
    annotations have no label in the split test, and are left out in the others.
    Raises UserError for other structures and unknown subsets."""
    content = load_json(file)
    database = content.get("database", content)
    labels: dict[tuple[str, float, float], set[str]] = defaultdict(set)
    splits: dict[str, str | None] = {}
    unlabelled: list[Entry] = []
    problems: Counter[str] = Counter()
    for name, video in database.items():
        where = f"{file}: video {name}"
        annotations = video.get("annotations", []) if isinstance(video, dict) else None
        if not isinstance(annotations, list):
            raise UserError(f"{where}: expected a list of annotations")
        splits[name] = _split(video, where) if "subset" in video else split_in_name(file.stem)
        if not annotations and splits[name] == "test":
            unlabelled.append(_entry(files, name, None, interval=(None, None), split="test", file=file))
        elif not annotations:
            problems["videos without annotations are left out"] += 1
        for annotation in annotations:
            label, start_s, end_s = _segment(annotation, where)
            segment = (name, start_s, end_s)
            if end_s <= start_s:
                problems["segments that end before they start are left out"] += 1
            elif label in labels.get(segment, ()):
                problems["segments that are listed twice are read once"] += 1
            else:
                labels[segment].add(label)
    entries = unlabelled
    for (name, start_s, end_s), names in labels.items():
        if len(names) > 1:
            problems["segments with several labels are left out"] += 1
            continue
        entries.append(_entry(files, name, names.pop(), interval=(start_s, end_s), split=splits[name], file=file))
    if without_label := sum(entry.class_name is None for entry in entries):
        log.warning("%s: videos of the split test without annotations have no label: %d", file, without_label)
    for problem, count in problems.items():
        log.warning("%s: %s: %d", file, problem, count)
    return Annotations(entries)


def _entry(
    files: VideoFiles,
    name: str,
    label: str | None,
    *,
    interval: tuple[float, float] | tuple[None, None],
    split: str | None,
    file: Path,
) -> Entry:
    stem = stem_of(name)
    prefixed = stem if stem.startswith("v_") else f"v_{stem}"
    path = files.find(prefixed, label or "", split) or files.find(stem, label or "", split)
    times = "".join(f"_{round(time_s * 1000):07d}" for time_s in interval if time_s is not None)
    key, (start_s, end_s) = safe_key(f"{stem}{times}"), interval
    missing = path is None
    return Entry(path or f"{prefixed}.mp4", label, file, 0, split, key, start_s, end_s, missing)


def _split(video: Mapping[str, Any], where: str) -> str:
    subset = video["subset"]
    split = split_in_name(subset) if isinstance(subset, str) else None
    if split is None:
        raise UserError(f"{where}: the subset is {subset!r}: expected training, validation or testing")
    return split


def _segment(annotation: Any, where: str) -> tuple[str, float, float]:
    """Return the label, start and end (seconds, rounded to milliseconds) of one annotation."""
    match annotation:
        case {"label": str(label), "segment": [int() | float() as start_s, int() | float() as end_s]}:
            if label.strip() and math.isfinite(start_s) and math.isfinite(end_s) and start_s >= 0:
                return label.strip(), round(float(start_s), 3), round(float(end_s), 3)
    raise UserError(f'{where}: expected {{"segment": [start, end], "label": name}} in seconds, not {annotation!r}')
