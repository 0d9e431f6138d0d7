"""The inputs of a report: runs, scores, and the datasets that they belong to."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import STREAMS, Dataset, open_dataset
from lgd.pipeline.storage.checked_json import DamagedFile
from lgd.pipeline.storage.storage import Storage
from lgd.training.metrics_file import read_metrics
from lgd.training.models import zoo
from lgd.training.report.history import History, read_history
from lgd.training.run import CONFIG, METRICS, Run, open_run
from lgd.training.scoring.scores import Scores, read_scores

MAX_LINES = 5  # damaged lines whose numbers are listed


@dataclass(frozen=True)
class NamedRun:
    """A run, its history, and its result (None until it is finished). name: short, unique in the report."""

    name: str
    run: Run
    history: History
    result: dict[str, Any] | None


@dataclass(frozen=True)
class NamedDataset:
    """An opened dataset. address: the one in the metadata of the scores; "" for the dataset of --data."""

    address: str
    dataset: Dataset


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the report reads.

    score_names: short, unique, one per score file. notes: what could not be read and what to do about it."""

    runs: list[NamedRun]
    scores: list[Scores]
    score_names: list[str]
    datasets: list[NamedDataset]
    notes: list[str]

    def dataset_of(self, scores: Scores) -> Dataset | None:
        """Return the dataset of the scored videos: that of --data, else the one that the scores name."""
        address = scores.metadata.get("data")
        for named in self.datasets:
            if named.address in ("", address):
                return named.dataset
        return None

    def series(self) -> list[int]:
        """Return for each score file the number that decides its color and line style.

        Runs have the numbers 0, 1, ...; a score file has the number of its run if the report includes the run and no
        earlier file has that number, else a new one."""
        free_runs = dict(enumerate(self.runs))
        new_numbers = itertools.count(len(self.runs))
        numbers: list[int] = []
        for scores in self.scores:
            number = _run_of(scores, {number: named.run for number, named in free_runs.items()})
            if number is not None:
                del free_runs[number]
            numbers.append(next(new_numbers) if number is None else number)
        return numbers


def _run_of(scores: Scores, runs: Mapping[int, Run]) -> int | None:
    """Return which of the runs made the scores. A run that was moved is recognized by its recipe and fingerprint."""
    metadata = scores.metadata
    for number, run in runs.items():
        if metadata.get("run") in (run.storage.root, run.storage.address):
            return number
    origin = (metadata.get("recipe"), metadata.get("fingerprint"))
    similar = [number for number, run in runs.items() if origin == (run.recipe, run.fingerprint)]
    return similar[0] if len(similar) == 1 else None


def read_inputs(paths: Sequence[str], data: str | None) -> ReportInputs:
    """Open the run folders and score files of a command line.

    data: address of the dataset, instead of those that the scores name. Raises UsageError if there are no paths or a
    path is neither a run nor a score file, and UserError for damaged files."""
    if not paths:
        raise UsageError("name one or more run folders or score files after the report's file")
    runs, scores = [], []
    for path in dict.fromkeys(path.rstrip("/") for path in paths):
        if path.endswith(".parquet"):
            scores.append(read_scores(path))
        elif Storage(path).exists(CONFIG):
            runs.append(path)
        else:
            problem = "is neither a run nor a score file" if Storage(path).exists() else "does not exist"
            raise UsageError(f"{path} {problem}: a run is a folder with {CONFIG}, a score file ends in .parquet")
    datasets, notes = _datasets(scores, data)
    opened = [_open(name, folder, notes) for name, folder in zip(short_names(runs), runs, strict=True)]
    score_names = [name.removesuffix(".parquet") for name in short_names([each.name for each in scores])]
    return ReportInputs(opened, scores, score_names, datasets, notes)


def _open(name: str, folder: str, notes: list[str]) -> NamedRun:
    """Open a run. What is damaged in its result and metrics is left out, with a note."""
    run, result = open_run(folder), None
    try:
        result = run.result()
    except DamagedFile as error:
        notes.append(f"The result of {name} is left out: {error}; rerun `lgd train`, which writes it again.")
    if damaged := read_metrics(run.storage).damaged:
        lines = ", ".join(map(str, damaged[:MAX_LINES])) + (", ..." if len(damaged) > MAX_LINES else "")
        notes.append(f"{run.storage.display(METRICS)} has {len(damaged)} damaged lines, which are left out: {lines}.")
    try:
        zoo.count(run.config.model, len(run.classes), STREAMS[run.config.stream].channels)
    except (UsageError, RuntimeError, OverflowError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{run.storage.display(CONFIG)} describes an impossible network ({reason})") from error
    return NamedRun(name, run, read_history(run.storage), result)


def _datasets(scores: Sequence[Scores], data: str | None) -> tuple[list[NamedDataset], list[str]]:
    """Return the datasets, and a note for each one that cannot be opened."""
    if data is not None:
        return [NamedDataset("", open_dataset(data))], []
    datasets, notes = [], []
    addresses = dict.fromkeys(address for each in scores if (address := each.metadata.get("data")))
    for address in addresses:
        try:
            datasets.append(NamedDataset(str(address), open_dataset(str(address))))
        except UserError as error:
            notes.append(f"The dataset of these scores cannot be opened, so the report does not describe it: {error}.")
    if not addresses:
        notes.append(
            "The location of the dataset is not known, so the report does not describe it and the examples have no "
            "pictures: add --data DATASET to the command."
        )
    return datasets, notes


def short_names(paths: Sequence[str]) -> list[str]:
    """Return the last parts of paths, as few as make the names unique."""
    parts = [path.rstrip("/").split("/") for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def fingerprint_of(scores: Scores) -> str | None:
    """Return the fingerprint of the dataset whose videos were scored; for fused scores that of the first input."""
    metadata: Any = scores.metadata
    while "fingerprint" not in metadata and metadata.get("inputs"):
        metadata = metadata["inputs"][0]
    fingerprint = metadata.get("fingerprint")
    return None if fingerprint is None else str(fingerprint)


def setting_text(value: Any) -> str:
    """Return the value of a setting as people read it."""
    if isinstance(value, str) or value is None:
        return value or "none"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
