"""Names of splits as users write them: one table for the columns of lists and for the names of files and folders."""

import re
from typing import NamedTuple

SPLITS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# Names of folders for the split val. In a list, they may be splits of their own in addition to val.
FOLDER_SPLITS = {**SPLITS, "dev": "val", "eval": "val", "evaluation": "val"}

# Words that people add to the name of a split: videos_train, val_256, kinetics400_test_clips.
PLAIN_WORDS = {
    "all", "avi", "challenge", "clip", "clips", "compressed", "crop", "cropped", "data", "dataset", "download",
    "downloaded", "files", "final", "folder", "fps", "frames", "full", "hmdb", "images", "k", "kinetics", "labeled",
    "labelled", "list", "mini", "mp", "new", "original", "p", "part", "processed", "px", "raw", "resized", "rgb",
    "set", "short", "side", "small", "split", "subset", "tiny", "trimmed", "ucf", "unlabeled", "unlabelled", "v",
    "video", "videos", "x",
}  # fmt: skip
PARTS = {"fold", "part", "partition", "set", "split", "subset"}  # with a number: folders of neither splits nor classes

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")  # trainingSet2 has three words
_COMPOUND = re.compile(rf"({'|'.join(sorted(SPLITS, key=len, reverse=True))})(set|data|list|split|videos?|clips?)")


class SplitName(NamedTuple):
    """What the name of a folder says, if one word of it is that of a split.

    rest: the name with * in place of that word. plain: whether all other words are in PLAIN_WORDS or numbers."""

    split: str
    rest: str
    plain: bool


def standard_split(name: str) -> str:
    """Return train, val or test for one of the usual names, in any case, such as `Training` or `valid`; other names are
    returned unchanged."""
    return SPLITS.get(name.casefold(), name)


def parse_split_name(name: str) -> SplitName | None:
    """Return the split that the name of a folder says; None if no word or more than one is that of a split."""
    words = _words(name)
    found = [place for place, word in enumerate(words) if word in FOLDER_SPLITS]
    if len(found) != 1:
        return None
    (place,) = found
    others = words[:place] + words[place + 1 :]
    rest = " ".join([*words[:place], "*", *words[place + 1 :]])
    return SplitName(FOLDER_SPLITS[words[place]], rest, all(word in PLAIN_WORDS or word.isdecimal() for word in others))


def names_a_part(name: str) -> bool:
    """Return whether a folder is named like one of several parts of a dataset: `split01`, `fold_2`, `trainval`."""
    words = _words(name)
    splits = [word for word in words if word in FOLDER_SPLITS or word == "trainval"]
    numbered = not PARTS.isdisjoint(words) and any(word.isdecimal() for word in words)
    known = all(word in PLAIN_WORDS or word in PARTS or word in splits or word.isdecimal() for word in words)
    return known and (numbered or len(splits) > 1 or "trainval" in splits)


def split_in_name(name: str) -> str | None:
    """Return the split that a word of the name of a file says, such as val for `kinetics400_val_list_videos.txt`; None
    if no word or several different ones do."""
    splits = {SPLITS[word] for word in _words(name) if word in SPLITS}
    return splits.pop() if len(splits) == 1 else None


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case; `trainset` is two words."""
    words: list[str] = []
    for word in _WORD.findall(name):
        compound = _COMPOUND.fullmatch(word.lower())
        words += compound.groups() if compound else [word.casefold()]
    return words
