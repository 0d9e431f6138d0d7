"""Folds: the pairs of a training split and a test split, and the checks before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.dataset.splits import check_has_split, check_separate, missing_split

FIT, HELD = "-fit", "-held"  # of the parts of a training split that `lgd splits --hold-out` makes


@dataclass(frozen=True)
class Fold:
    """A network is trained on the videos of the split `train` and tested on those of `test`."""

    name: str
    train: str
    test: str

    @property
    def fit(self) -> str:
        """Split of the part of `train` on which the networks are trained whose fusion weights are fitted."""
        return self.train + FIT

    @property
    def held(self) -> str:
        """Split of the rest of `train`, on which these weights are fitted."""
        return self.train + HELD


def official_folds(splits: Sequence[int]) -> list[Fold]:
    """Return the folds of official splits by number: trainN and testN. Raises UsageError for a number given twice."""
    if not splits:
        raise UsageError("--splits needs at least one number")
    if len(set(splits)) < len(splits):
        raise UsageError(f"--splits {' '.join(map(str, splits))}: give each split once")
    return [Fold(str(number), f"train{number}", f"test{number}") for number in splits]


def named_folds(dataset: Dataset, names: Sequence[str]) -> list[Fold]:
    """Return the folds with these names.

    NAME stands for the splits NAME-train and NAME-test, which `lgd splits --folds` makes; a number also for those of
    official lists, trainN and testN; TRAIN:TEST for two splits with any names.
    Raises UsageError for a name given twice, and UserError, which names the splits, if the dataset lacks them."""
    if len(names) < 2:
        raise UsageError("cross-validation needs two or more folds: --folds NAME NAME ...")
    folds = [_named_fold(dataset, name) for name in names]
    for number, fold in enumerate(folds):
        if (fold.train, fold.test) in [(each.train, each.test) for each in folds[:number]]:
            raise UsageError(f"--folds has {names[number]} twice: give each fold once")
    return folds


def _named_fold(dataset: Dataset, name: str) -> Fold:
    train, separator, test = name.partition(":")
    if separator:
        return Fold(f"{train}-{test}", train, test)
    fold, official = Fold(name, f"{name}-train", f"{name}-test"), Fold(name, f"train{name}", f"test{name}")
    if official.train in dataset.splits and official.test in dataset.splits:
        return official
    if fold.train not in dataset.splits and fold.test not in dataset.splits:
        where = dataset.storage.display()
        raise UserError(
            f"{where} has no fold {name!r}, that is the splits {fold.train} and {fold.test}: `lgd splits {where}` "
            "lists the splits and adds folds; TRAIN:TEST names any two splits"
        )
    return fold


def check_folds(dataset: Dataset, folds: Sequence[Fold], *, fit_fusion: bool) -> None:
    """Check the splits of all folds before the first one is trained.

    fit_fusion: the parts of the training splits must exist, too. Raises UserError for a split that the dataset lacks,
    for one without labels, and for videos that are both trained on and scored."""
    for fold in folds:
        for split in (fold.train, fold.test):
            check_has_split(dataset, split)
            if not dataset.labeled(split):
                raise UserError(
                    f"{dataset.storage.display()}: no video of the split {split} has a label: preprocess the videos "
                    "with labels"
                )
        check_separate(dataset, fold.train, fold.test)
        if fit_fusion:
            _check_hold_out(dataset, fold)


def _check_hold_out(dataset: Dataset, fold: Fold) -> None:
    """Raise UserError, with the command that makes them, if a training split has no held-out part."""
    where = dataset.storage.display()
    if fold.fit not in dataset.splits or fold.held not in dataset.splits:
        raise UserError(
            f"--fit-fusion fits the weights on a held-out part of {fold.train}: make {fold.fit} and {fold.held} with "
            f"`lgd splits {where} --hold-out {fold.train} --group REGEX --fraction 0.2`"
        )
    for split in (fold.fit, fold.held):
        if not dataset.labeled(split):
            raise missing_split(dataset, split)
    check_separate(dataset, fold.fit, fold.held)
    for split in (fold.fit, fold.held):
        check_separate(dataset, split, fold.test)
