"""Lists of several splits of the same videos, such as the three of UCF101 and HMDB51, read as one list of videos."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.entries import Annotations, Entry
from lgd.preprocessing.annotations.text_files import and_more

OWN_SPLIT = "all"  # of the shards, if the splits are rows of a table
_SIDES = ("train", "val", "test")  # order of the splits of one number
SHOWN_CLASSES = 3  # in a warning

log = logging.getLogger(__name__)


def read_all_splits(read: Callable[[int], Annotations], numbers: Iterable[int]) -> Annotations:
    """Read the lists of every split number; return one entry per video, with its splits.

    read: returns the annotations of one number; entries without a split are not used by it. The splits get the names
    train1, test1, train2, and so on; every video is in OWN_SPLIT of the shards. Logs a warning for a split without a
    class that another one has.
    Raises UserError for a video that is in two splits of one number, and for one of several classes."""
    by_video: dict[str, Entry] = {}
    splits: dict[str, list[str]] = {}
    parts = [(number, read(number)) for number in sorted(numbers)]
    for number, part in parts:
        places: dict[str, tuple[Entry, str]] = {}
        for entry in part.entries:
            video, name = entry.key or entry.path, f"{entry.split}{number}" if entry.split else f"unused by {number}"
            first = by_video.setdefault(video, entry)
            _check_class(first, entry)
            earlier, other = places.setdefault(video, (entry, name))
            if earlier is not entry:
                raise UserError(
                    f"{entry.where}: {entry.path} is in {name}, but in {other} in {earlier.where}: list each video "
                    "once per split number"
                )
            splits.setdefault(video, []).extend([name] if entry.split else [])
    entries = [replace(entry, split=OWN_SPLIT, splits=tuple(splits[video])) for video, entry in by_video.items()]
    classes: dict[str, set[str | None]] = {}
    for entry in entries:
        for name in entry.splits or ():
            classes.setdefault(name, set()).add(entry.class_name)
    warn_of_missing_classes(classes)
    return parts[0][1]._replace(entries=entries)


def split_order(name: str) -> tuple[int, int, str]:
    """Return by what the names of such splits are sorted: train1, test1, train2, test2, others."""
    side = name.rstrip("0123456789")
    number = name[len(side) :]
    return (int(number) if number and side in _SIDES else 1 << 30, _SIDES.index(side) if side in _SIDES else 0, name)


def warn_of_missing_classes(classes: Mapping[str, set[str | None]]) -> None:
    """Log a warning for each split without a class that another one has. classes: of the videos, by split."""
    everywhere = {name for names in classes.values() for name in names if name is not None}
    for split, names in classes.items():
        if missing := sorted(everywhere - names):
            shown = ", ".join(missing[:SHOWN_CLASSES])
            more = and_more(len(missing) - SHOWN_CLASSES + 1) if len(missing) > SHOWN_CLASSES else ""
            log.warning("the split %s has no video of the class %s%s, which other splits have", split, shown, more)


def members(entries: Sequence[Entry], keys: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the name and the sorted keys of each split of the table, in the order of `split_order`. keys: of the
    entries."""
    by_split: dict[str, list[str]] = {}
    for entry, key in zip(entries, keys, strict=True):
        for name in entry.splits or ():
            by_split.setdefault(name, []).append(key)
    return tuple((name, tuple(sorted(by_split[name]))) for name in sorted(by_split, key=split_order))


def _check_class(first: Entry, entry: Entry) -> None:
    if first.class_name != entry.class_name:
        raise UserError(
            f"{entry.where}: {entry.path} is of the class {entry.class_name}, but of {first.class_name} in "
            f"{first.where}: correct one of them"
        )
