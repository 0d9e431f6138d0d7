"""Which videos are held out for validation, where the annotations do not say: the same ones on every machine."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from lgd.pipeline.console.errors import UsageError, UserError


def choose_val(of_class: Mapping[str, Sequence[tuple[str, str]]], fraction: float, group: str | None) -> set[str]:
    """The keys of the videos to hold out.

    of_class: for each class its videos' (key, file name). fraction: of the videos, between 0 and 1.
    group: None to hold out that fraction of each class (at least one and not all, where there are two). Else a regular
    expression searched for in the file names: videos in which its group 1 (without one, the whole match) is the same
    text stay on one side, in all classes together; whole groups are held out until the fraction is reached.
    Both take videos or groups in the order of their hash, so that a longer list moves few of them.

    Raises UsageError for a bad expression or fraction, UserError where it matches not all names or only one group.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the fraction of validation videos is {fraction:g}: give a number between 0 and 1")
    if group is not None:
        return _whole_groups(_groups(of_class, group), fraction)
    val: set[str] = set()
    for videos in of_class.values():
        keys = sorted((key for key, _ in videos), key=_hash)
        if len(keys) > 1:
            val.update(keys[: min(max(1, round(fraction * len(keys))), len(keys) - 1)])
    everything = [key for videos in of_class.values() for key, _ in videos]
    if not val and len(everything) > 1:
        val.add(min(everything, key=_hash))  # one video a class
    return val


def compile_group(group: str) -> re.Pattern[str]:
    """The expression; UsageError if it is not one."""
    try:
        return re.compile(group)
    except re.error as error:
        raise UsageError(f"--group {group!r} is not a regular expression: {error}") from error


def _groups(of_class: Mapping[str, Sequence[tuple[str, str]]], group: str) -> dict[str, list[str]]:
    expression = compile_group(group)
    keys_of_group: defaultdict[str, list[str]] = defaultdict(list)
    unmatched = []
    for videos in of_class.values():
        for key, name in videos:
            match = expression.search(name)
            text = match and match[1 if expression.groups else 0]
            if text:
                keys_of_group[text].append(key)
            else:
                unmatched.append(name)
    if unmatched:
        which = "no file name" if not keys_of_group else f"not {sorted(unmatched)[0]}"
        count = "" if not keys_of_group or len(unmatched) == 1 else f" and {len(unmatched) - 1} other file names"
        raise UserError(f"--group {group!r} matches {which}{count}: it must match the name of every video")
    if len(keys_of_group) == 1 and sum(map(len, keys_of_group.values())) > 1:
        raise UserError(
            f"--group {group!r} matches {next(iter(keys_of_group))!r} in every name: nothing can be held out"
        )
    return keys_of_group


def _whole_groups(keys_of_group: Mapping[str, Sequence[str]], fraction: float) -> set[str]:
    wanted = fraction * sum(map(len, keys_of_group.values()))
    val: set[str] = set()
    for text in sorted(keys_of_group, key=_hash)[:-1]:  # the last one always stays in train
        if len(val) >= wanted:
            break
        val.update(keys_of_group[text])
    return val


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest() + text.encode()
