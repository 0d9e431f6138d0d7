"""Choice of the validation videos if the annotations give no splits: the same videos on every machine."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.preprocessing.annotations.text_files import and_more


def choose_validation_keys(
    videos_by_class: Mapping[str, Sequence[tuple[str, str]]], fraction: float, group: str | None
) -> set[str]:
    """Return the keys of the validation videos.

    videos_by_class: for each class the (key, file name) of its videos. fraction: of the videos, between 0 and 1.
    group: None to choose that fraction of each class (at least one video, and not all, if there are two). Otherwise a
    regular expression that is searched for in the file names: videos in which its group 1 (without a group, the
    complete match) is the same text stay in the same split, across all classes; complete groups are chosen until the
    fraction is reached.
    Videos or groups are taken in the order of their hash, so that a longer list changes the split of few of them.

    Raises UsageError for an invalid expression or fraction, UserError if the expression does not match all names or
    gives only one group.
    """
    _check_fraction(fraction)
    if group is not None:
        return choose_validation_groups(_group_keys(videos_by_class, group), fraction, source=f"--group {group!r}")
    val: set[str] = set()
    for videos in videos_by_class.values():
        keys = sorted((key for key, _ in videos), key=_hash)
        if len(keys) > 1:
            val.update(keys[: min(max(1, round(fraction * len(keys))), len(keys) - 1)])
    all_keys = [key for videos in videos_by_class.values() for key, _ in videos]
    if not val and len(all_keys) > 1:
        val.add(min(all_keys, key=_hash))  # every class has one video
    return val


def compile_group(group: str) -> re.Pattern[str]:
    """Compile the expression of --group. Raises UsageError if it is not a valid regular expression."""
    try:
        return re.compile(group)
    except re.error as error:
        raise UsageError(f"--group {group!r} is not a valid regular expression: {error}") from error


def _group_keys(videos_by_class: Mapping[str, Sequence[tuple[str, str]]], group: str) -> dict[str, list[str]]:
    """Return the keys of the videos by the text that the expression gives for their names."""
    names = {key: name for videos in videos_by_class.values() for key, name in videos}
    keys_by_text: defaultdict[str, list[str]] = defaultdict(list)
    for key, text in group_texts(names, group).items():
        keys_by_text[text].append(key)
    return keys_by_text


def group_texts(names: Mapping[str, str], group: str) -> dict[str, str]:
    """Return the text that the expression of --group gives for the file name of each key.

    Raises UsageError for an invalid expression, and UserError unless it matches all names."""
    expression = compile_group(group)
    texts: dict[str, str] = {}
    unmatched = []
    for key, name in names.items():
        match = expression.search(name)
        text = match and match[1 if expression.groups else 0]
        if text:
            texts[key] = text
        else:
            unmatched.append(name)
    if unmatched:
        shown = "any file name" if not texts else min(unmatched)
        more = and_more(len(unmatched)) if texts else ""
        raise UserError(f"--group {group!r} does not match {shown}{more}: it must match the name of every video")
    return texts


def choose_validation_groups(keys_by_text: Mapping[str, Sequence[str]], fraction: float, *, source: str) -> set[str]:
    """Return the keys of the validation videos: complete groups until the fraction of the videos is reached.

    keys_by_text: of the videos of each group, by its name. source: what names the groups, for messages.
    Raises UsageError for an invalid fraction and UserError if there is only one group."""
    _check_fraction(fraction)
    if len(keys_by_text) == 1 and sum(map(len, keys_by_text.values())) > 1:
        raise UserError(
            f"{source} gives {next(iter(keys_by_text))!r} for every video: at least two groups are required, one for "
            "train and one for val"
        )
    count = fraction * sum(map(len, keys_by_text.values()))
    val: set[str] = set()
    for text in sorted(keys_by_text, key=_hash)[:-1]:  # the last group always stays in train
        if len(val) >= count:
            break
        val.update(keys_by_text[text])
    return val


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise UsageError(f"--val-fraction must be between 0 and 1, not {fraction:g}")


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest() + text.encode()
