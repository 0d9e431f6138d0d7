"""What a report is about: runs, scores, and the datasets that they belong to."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.storage.storage import Storage
from lgd.training.report.history import History, read_history
from lgd.training.run import CONFIG, RESULT, Run, open_run
from lgd.training.scoring.scores import Scores, read_scores


@dataclass(frozen=True)
class NamedRun:
    """A run, its history, and its result (None while it is not finished). name: short, unique in the report."""

    name: str
    run: Run
    history: History
    result: dict[str, Any] | None


@dataclass(frozen=True)
class NamedDataset:
    """An opened dataset, at the address by which scores know it ("" for the one that --data gives)."""

    address: str
    dataset: Dataset


@dataclass(frozen=True)
class Inputs:
    """Everything that was read.

    score_names: short, unique, one a file. notes: what could not be had and how to get it, for the reader."""

    runs: list[NamedRun]
    scores: list[Scores]
    score_names: list[str]
    datasets: list[NamedDataset]
    notes: list[str]

    def dataset_of(self, scores: Scores) -> Dataset | None:
        """The dataset that holds the videos of scores: that of --data, or the one that they name."""
        address = scores.about.get("data")
        for named in self.datasets:
            if named.address in ("", address):
                return named.dataset
        return None

    def series(self) -> list[int]:
        """For each score file the number that decides how it is drawn: its run's (they are 0, 1, ...), if that is here
        and no file has it yet, and else one of its own."""
        waiting = dict(enumerate(self.runs))
        free = itertools.count(len(self.runs))
        numbers: list[int] = []
        for scores in self.scores:
            number = _run_of(scores, {number: named.run for number, named in waiting.items()})
            waiting.pop(number, None)
            numbers.append(next(free) if number < 0 else number)
        return numbers


def _run_of(scores: Scores, runs: Mapping[int, Run]) -> int:
    """Which of the runs scores are of, -1 for none. A run that was moved since is known by its recipe and data."""
    about = scores.about
    same = [number for number, run in runs.items() if about.get("run") in (run.storage.root, run.storage.address)]
    made = (about.get("recipe"), about.get("fingerprint"))
    alike = [number for number, run in runs.items() if made == (run.recipe, run.fingerprint)]
    return [*same, *(alike if len(alike) == 1 else []), -1][0]


def read_inputs(things: Sequence[str], data: str | None) -> Inputs:
    """Opens what the command line names, each told apart by what it is.

    data: address of the dataset, in place of those that the scores name.
    Raises UsageError for nothing at all or what is neither, and UserError for what is damaged."""
    if not things:
        raise UsageError("a report is about run folders, score files or both: name one or more after the report's file")
    runs, scores = [], []
    for thing in dict.fromkeys(thing.rstrip("/") for thing in things):
        if thing.endswith(".parquet"):
            scores.append(read_scores(thing))
        elif Storage(thing).exists(CONFIG):
            runs.append(thing)
        else:
            kinds = f"a run is a folder with {CONFIG}, scores are a .parquet file"
            there = "is neither a run nor scores" if Storage(thing).exists() else "is not there"
            raise UsageError(f"{thing} {there}: {kinds}")
    datasets, notes = _datasets(scores, data)
    names = short_names(runs)
    opened = [_open(name, folder) for name, folder in zip(names, runs, strict=True)]
    score_names = [name.removesuffix(".parquet") for name in short_names([each.name for each in scores])]
    return Inputs(opened, scores, score_names, datasets, notes)


def _open(name: str, folder: str) -> NamedRun:
    run = open_run(folder)
    try:
        result = run.result()
    except ValueError as error:
        raise UserError(
            f"{run.storage.display(RESULT)} is damaged ({error}): delete it and train again to its end"
        ) from error
    return NamedRun(name, run, read_history(run.storage), result)


def _datasets(scores: Sequence[Scores], data: str | None) -> tuple[list[NamedDataset], list[str]]:
    """The datasets, and a note for what the scores name but is not there any more."""
    if data is not None:
        return [NamedDataset("", open_dataset(data))], []
    datasets, notes = [], []
    addresses = dict.fromkeys(address for each in scores if (address := each.about.get("data")))
    for address in addresses:
        try:
            datasets.append(NamedDataset(str(address), open_dataset(str(address))))
        except UserError as error:
            notes.append(f"The dataset of these scores cannot be opened, so nothing of it is shown: {error}.")
    if not addresses:
        notes.append(
            "Nothing here says where the dataset is, so it is not described and the examples have no pictures: "
            "add --data DATASET to the command."
        )
    return datasets, notes


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of paths, as few as tell them apart."""
    parts = [path.rstrip("/").split("/") for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def fingerprint_of(scores: Scores) -> str | None:
    """Of the dataset whose videos were scored; a fusion has its first input's."""
    about: Any = scores.about
    while "fingerprint" not in about and about.get("inputs"):
        about = about["inputs"][0]
    return about.get("fingerprint")


def as_text(value: Any) -> str:
    """A setting as a person reads it."""
    if isinstance(value, str) or value is None:
        return value or "none"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
