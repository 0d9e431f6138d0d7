"""Folds and held-out parts of a dataset: videos of one group, such as one person or one source, stay together."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from lgd.pipeline.console.errors import UsageError, UserError


def assign_groups(
    classes_by_group: Mapping[str, Sequence[str | None]], fractions: Sequence[float], seed: int
) -> dict[str, int]:
    """Return for every group the number of its part.

    classes_by_group: the class of each video, by group. fractions: of the videos that each part gets, of sum 1; each
    class is divided in the same way, as far as complete groups allow. Depends on the groups and the seed alone: not on
    their order.

    The groups are taken from the largest to the smallest, those of one size in the order of their hash, and each goes
    to the part for which the sum over parts p and classes c of n(p, c)^2 / (fraction(p) n(c)) grows least, in which all
    videos together count as one more class. Raises UserError if there are fewer groups than parts."""
    if len(classes_by_group) < len(fractions):
        raise UserError(
            f"{len(classes_by_group)} groups cannot be divided into {len(fractions)} parts: each needs at least one"
        )
    totals = Counter(name for classes in classes_by_group.values() for name in _counted(classes))
    parts = [Counter[str]() for _ in fractions]
    groups: list[list[str]] = [[] for _ in fractions]

    def cost(part: int, added: Counter[str]) -> float:
        """Return how much the sum grows if a part gets these videos."""
        growth = sum(number * (2 * parts[part][name] + number) / totals[name] for name, number in added.items())
        return growth / fractions[part]

    def order(group: str) -> tuple[int, bytes]:
        text = f"{seed} {group}".encode()
        return -len(classes_by_group[group]), hashlib.blake2b(text, digest_size=16).digest()

    for group in sorted(classes_by_group, key=order):
        added = Counter(_counted(classes_by_group[group]))
        best = min(range(len(parts)), key=lambda part: (round(cost(part, added), 12), sum(parts[part].values()), part))
        parts[best].update(added)
        groups[best].append(group)
    for empty in (part for part in groups if not part):  # few groups of very different sizes
        empty.append(max(groups, key=len).pop())
    return {group: part for part, names in enumerate(groups) for group in names}


def fold_splits(
    classes_by_group: Mapping[str, Sequence[str | None]],
    keys_by_group: Mapping[str, Sequence[str]],
    folds: int,
    *,
    seed: int,
    name: str = "fold",
) -> dict[str, list[str]]:
    """Return the keys of the splits fold1-train, fold1-test, fold2-train, and so on; `name` stands for fold.

    The test splits are disjoint and together have all videos. Raises UsageError for fewer than 2 folds."""
    if folds < 2:
        raise UsageError(f"--folds must be 2 or more, not {folds}")
    part_of = assign_groups(classes_by_group, [1 / folds] * folds, seed)
    splits: dict[str, list[str]] = {}
    for fold in range(folds):
        for side, tested in (("train", False), ("test", True)):
            splits[f"{name}{fold + 1}-{side}"] = sorted(
                key for group, keys in keys_by_group.items() if (part_of[group] == fold) == tested for key in keys
            )
    return splits


def hold_out_splits(
    classes_by_group: Mapping[str, Sequence[str | None]],
    keys_by_group: Mapping[str, Sequence[str]],
    split: str,
    *,
    fraction: float,
    seed: int,
) -> dict[str, list[str]]:
    """Return the keys of the splits `<split>-fit` and `<split>-held`, which has about this fraction of the videos.

    Raises UsageError for a fraction that is not between 0 and 1."""
    if not 0 < fraction < 1:
        raise UsageError(f"--fraction must be between 0 and 1, not {fraction:g}")
    part_of = assign_groups(classes_by_group, [1 - fraction, fraction], seed)
    return {
        f"{split}-{side}": sorted(
            key for group, keys in keys_by_group.items() if part_of[group] == part for key in keys
        )
        for part, side in enumerate(("fit", "held"))
    }


def _counted(classes: Sequence[str | None]) -> list[str]:
    """Return the classes of videos, and a name that no class has for each video, labeled or not."""
    return [f"class {name}" for name in classes if name is not None] + ["all videos"] * len(classes)
