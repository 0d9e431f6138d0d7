"""What the folders of a folder of videos are: classes, splits of classes, or neither.

A wrong guess gives wrong labels that no later step can notice. So folders that look like splits are refused unless all
of them are understood, and folders that could be either are classes only if most of the others cannot be splits.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.entries import UNLABELLED_SPLIT
from lgd.preprocessing.annotations.split_names import SPLITS, SplitName, names_a_part, parse_split_name
from lgd.preprocessing.annotations.text_files import and_more

MOVE = "move each video into a folder named after its class, or give a CSV file with --annotations"

log = logging.getLogger(__name__)


@dataclass
class _Folder:
    """A folder in the folder of videos. videos: directly in it. inside: names of its folders that contain videos."""

    videos: list[str] = field(default_factory=list)
    inside: set[str] = field(default_factory=set)

    @property
    def flat(self) -> bool:
        return not self.inside

    @property
    def nested(self) -> bool:
        return not self.videos


@dataclass(frozen=True)
class Layout:
    """Where the split and the class of a video are in its path.

    splits: split by folder, of the first level, or of the second one if `below`. unlabelled: folders of the first level
    whose videos have no label."""

    splits: Mapping[str, str] = field(default_factory=dict)
    below: bool = False
    unlabelled: Collection[str] = ()

    def place(self, path: str) -> tuple[str | None, str | None]:
        """Return the split and the class of a video in a folder, None where the path says nothing."""
        first, second, *_ = path.split("/")
        if first in self.unlabelled:
            return self.splits.get(first, UNLABELLED_SPLIT), None
        if self.below:
            return self.splits[second], first
        return (self.splits[first], second) if self.splits else (None, first)


def find_layout(videos: str, paths: Sequence[str], unlabelled: bool = False) -> Layout:
    """Return the layout of a folder of videos.

    videos: its name, for messages. paths: of the videos. unlabelled: videos outside of class folders are expected.
    Raises UserError for folders that look like splits but are not understood."""
    folders = _folders(paths)
    names = {name: parsed for name in folders if (parsed := parse_split_name(name))}
    rests = [parsed.rest for parsed in names.values()]
    names = {name: parsed for name, parsed in names.items() if parsed.plain or rests.count(parsed.rest) > 1}
    if folders and len(names) == len(folders):
        layout = _split_layout(videos, folders, names, unlabelled=unlabelled)
    else:
        _check_parts(videos, folders, names)
        _check_not_splits(videos, folders, names)
        layout = _class_layout(videos, folders, names, unlabelled=unlabelled)
    _check_one_class(videos, paths, layout)
    return layout


def _folders(paths: Sequence[str]) -> dict[str, _Folder]:
    folders: dict[str, _Folder] = {}
    for path in paths:
        first, *others = path.split("/")
        if others:
            folder = folders.setdefault(first, _Folder())
            if len(others) == 1:
                folder.videos.append(path)
            else:
                folder.inside.add(others[0])
    return folders


def _split_layout(
    videos: str, folders: Mapping[str, _Folder], names: Mapping[str, SplitName], *, unlabelled: bool
) -> Layout:
    """Return the layout if all folders are named like splits."""
    first: dict[str, str] = {}
    for name, parsed in names.items():
        if (other := first.setdefault(parsed.split, name)) != name:
            raise UserError(
                f"{videos}: {other} and {name} both look like the split {parsed.split}: keep one folder per split "
                "(train, val, test), or give a CSV file with --annotations"
            )
    some_classes = any(folder.nested for folder in folders.values())
    without_labels = []
    for name, folder in folders.items():
        split = names[name].split
        if folder.flat and (unlabelled or (split == "test" and some_classes)):
            without_labels.append(name)
        elif folder.videos:
            advice = f"{MOVE}; if they have no labels, add --unlabelled" if folder.flat else MOVE
            raise UserError(
                f"{videos}: {name} looks like the split {split}, but {folder.videos[0]}{and_more(len(folder.videos))} "
                f"is not in a class folder: {advice}"
            )
    for name in without_labels:
        log.warning("%s: %s has no class folders: its %d videos have no label", videos, name, len(folders[name].videos))
    return Layout({name: parsed.split for name, parsed in names.items()}, unlabelled=without_labels)


def _class_layout(
    videos: str, folders: Mapping[str, _Folder], names: Mapping[str, SplitName], *, unlabelled: bool
) -> Layout:
    """Return the layout if the folders are classes, with or without a folder per split in each of them."""
    below = {name: parse_split_name(name) for folder in folders.values() for name in folder.inside}
    splits = {name: parsed.split for name, parsed in below.items() if parsed and parsed.plain}
    divided = [name for name, each in folders.items() if len(each.inside) > 1 and each.inside <= splits.keys()]
    only_splits = all(folder.nested and folder.inside <= splits.keys() for folder in folders.values())
    if len(folders) > 1 and only_splits and len(set(splits.values())) == len(splits) > 1:
        return Layout(splits, below=True)
    if len(folders) > 1 and 2 * len(divided) >= len(folders):
        inside = [f"{divided[0]}/{name}" for name in sorted(folders[divided[0]].inside)]
        _refuse_splits(videos, inside, "other folders do not")
    flat_tests = [name for name, parsed in names.items() if parsed.split == "test" and folders[name].flat]
    if unlabelled:
        return Layout(unlabelled=flat_tests)
    for name in (name for name in folders if name.casefold() in SPLITS):
        advice = "; if its videos have no labels, add --unlabelled" if name in flat_tests else ""
        log.warning("%s: %s is the name of a class, because the other folders are not splits%s", videos, name, advice)
    return Layout()


def _check_parts(videos: str, folders: Mapping[str, _Folder], names: Mapping[str, SplitName]) -> None:
    """Raise UserError if the folders are named like parts of a dataset."""
    parts = [name for name in folders if name not in names and names_a_part(name)]
    if parts and len(parts) + len(names) == len(folders):
        raise UserError(
            f"{videos}: {parts[0]}{and_more(len(parts))} looks like a part of a dataset, not like a class: give the "
            "folder that contains the class folders, name the folders of splits train, val and test, or give a CSV "
            "file with --annotations"
        )


def _check_not_splits(videos: str, folders: Mapping[str, _Folder], names: Mapping[str, SplitName]) -> None:
    """Raise UserError if some folders look like splits and the others do not.

    A class may be named like a split. Then most folders are not named so, its folder contains videos or folders that
    are not classes, and the other folders are built like it."""
    others = [name for name in folders if name not in names]
    rest = f"{others[0]}{and_more(len(others))} does not"
    nested = [name for name in names if folders[name].nested]
    contain_classes = any(folders[name].inside & folders.keys() for name in nested)
    unlike_others = all(folders[name].flat for name in others) and len({names[name].split for name in nested}) > 1
    if nested and (2 * len(nested) >= len(folders) or contain_classes or unlike_others):
        _refuse_splits(videos, nested, rest)
    flat = [name for name in names if folders[name].flat]
    if len({names[name].split for name in flat}) > 1 and 2 * len(flat) >= len(folders):
        _refuse_splits(videos, flat, rest)


def _refuse_splits(videos: str, splits: Sequence[str], rest: str) -> NoReturn:
    look = "look like splits" if len(splits) > 1 else "looks like a split"
    raise UserError(
        f"{videos}: {' and '.join(splits[:2])} {look}, but {rest}: move the class folders "
        "into folders named train, val and test, or give a CSV file with --annotations"
    )


def _check_one_class(videos: str, paths: Sequence[str], layout: Layout) -> None:
    """Raise UserError if the only class is a folder of folders: it is then the folder of the classes."""
    labeled = [path for path in paths if "/" in path and layout.place(path)[1] is not None]
    classes = {layout.place(path)[1] for path in labeled}
    if len(classes) != 1:
        return
    depth = 2 if layout.splits and not layout.below else 1
    parents = {tuple(path.split("/")[:-1]) for path in labeled}
    while True:  # down to the folder where the paths differ
        inside = {parts[depth] if len(parts) > depth else None for parts in parents}
        if len(inside) != 1 or None in inside:
            break
        depth += 1
    if None in inside:
        return
    folder = "/".join(min(parents)[:depth])
    if depth > 1 and layout.splits and not layout.below:
        raise UserError(
            f"{videos}: {folder} contains {len(inside)} folders, but every class folder must be directly in the folder "
            "of its split: move them there, or give a CSV file with --annotations"
        )
    raise UserError(
        f"{videos} contains only the folder {folder}, which contains {len(inside)} folders with videos: give "
        f"{videos.rstrip('/')}/{folder} if these are the classes or splits"
    )
