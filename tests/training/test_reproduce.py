"""`lgd reproduce`: which commands a chain of recipes becomes."""

from pathlib import Path
from typing import Annotated, Any

import pytest
from tyro.conf import Positional

from lgd.pipeline.console.command_line import CommandResult, Commands, CommandSequence, Line
from lgd.training.chains import REPRODUCTIONS
from lgd.training.reproduce import run_chain


class Recorded(CommandResult):
    """The result of a command that does nothing. content: its JSON document."""

    def __init__(self, content: Any = None):
        self.content = content

    def document(self) -> Any:
        return self.content

    def lines(self) -> list[Line]:
        return []


METRICS = {
    name: {"top1": top1, "top5": 1.0, "mean_class": top1, "ece": 0.1, "nll": 1.0, "videos": 8}
    | {"intervals": {accuracy: [0.0, 1.0] for accuracy in ("top1", "top5", "mean_class")}}
    for name, top1 in (("rgb", 0.25), ("flow", 0.5), ("fused", 0.75))
}


@pytest.fixture
def calls() -> list[tuple[str, ...]]:
    """The calls of commands, filled by `sequence`."""
    return []


@pytest.fixture
def sequence(calls: list[tuple[str, ...]]) -> CommandSequence:
    """Commands that only record how they are called. `fuse` returns METRICS, by the names of its score files."""

    def train(
        recipe: Annotated[str, Positional], data: str, run: Path, epochs: str = "", init_from: Path = Path()
    ) -> Recorded:
        calls.append(("train", recipe, data, run.name, epochs, init_from.name))
        return Recorded()

    def evaluate(run: Annotated[Path, Positional], data: str, split: str, out: Path) -> Recorded:
        calls.append(("evaluate", run.name, data, split, out.name))
        return Recorded()

    def fuse(scores: Annotated[tuple[Path, ...], Positional], out: Path) -> Recorded:
        calls.append(("fuse", *(file.name for file in scores), out.name))
        inputs = {str(file): METRICS[file.name.split("-")[0]] for file in scores}
        return Recorded({"inputs": inputs, "fused": METRICS["fused"]})

    def report(
        out: Annotated[Path, Positional], sources: Annotated[tuple[Path, ...], Positional], data: str
    ) -> Recorded:
        calls.append(("report", out.name, *(source.name for source in sources), data))
        return Recorded()

    commands: Commands = {"train": train, "evaluate": evaluate, "fuse": fuse, "report": report}
    return CommandSequence(commands, lambda name, words: {})


def test_each_recipe_starts_from_the_one_before_and_the_last_run_of_each_stream_is_evaluated(
    sequence: CommandSequence, calls: list[tuple[str, ...]], tmp_path: Path
):
    chain = REPRODUCTIONS["nano-com"]
    result = run_chain(sequence, chain, "data", out=tmp_path, split="val", epochs=None)
    assert calls == [
        ("train", "nano-rgb", "data", "nano-rgb", "", ""),
        ("train", "nano-rgb-com", "data", "nano-rgb-com", "", "nano-rgb"),
        ("evaluate", "nano-rgb-com", "data", "val", "rgb-val.parquet"),
        ("train", "nano-flow", "data", "nano-flow", "", ""),
        ("train", "nano-flow-com", "data", "nano-flow-com", "", "nano-flow"),
        ("evaluate", "nano-flow-com", "data", "val", "flow-val.parquet"),
        ("fuse", "rgb-val.parquet", "flow-val.parquet", "fused-val.parquet"),
        (
            *("report", "report.html", "nano-rgb", "nano-rgb-com", "nano-flow", "nano-flow-com"),
            *("rgb-val.parquet", "flow-val.parquet", "fused-val.parquet", "data"),
        ),
    ]
    document = result.document()
    assert {name: document[name] for name in METRICS} == METRICS
    assert (document["out"], document["report"]) == (str(tmp_path), str(tmp_path / "report.html"))
    assert list(document["seconds"])[:2] == ["train nano-rgb", "train nano-rgb-com"]
    assert len(document["seconds"]) == 8


def test_the_epochs_of_every_recipe_can_be_replaced(
    sequence: CommandSequence, calls: list[tuple[str, ...]], tmp_path: Path
):
    run_chain(sequence, REPRODUCTIONS["nano"], "data", out=tmp_path, split="test", epochs=0.5)
    assert [call[4] for call in calls if call[0] == "train"] == ["0.5", "0.5"]
    assert [call[3:] for call in calls if call[0] == "evaluate"] == [
        ("test", "rgb-test.parquet"),
        ("test", "flow-test.parquet"),
    ]


def test_the_lines_name_the_report_and_have_tables_of_accuracies_and_seconds(sequence: CommandSequence, tmp_path: Path):
    result = run_chain(sequence, REPRODUCTIONS["nano"], "data", out=tmp_path, split="val", epochs=None)
    _, accuracies, seconds, last = result.lines()
    assert [column.header for column in seconds.columns] == ["stage", "seconds"]  # type: ignore[union-attr]
    assert list(accuracies.columns[0].cells) == ["rgb", "flow", "fused"]  # type: ignore[union-attr]
    assert str(last).endswith(f"report for a browser: {tmp_path / 'report.html'}")
