"""A dataset with folds, and commands that train and score without a cluster, in milliseconds."""

import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from tyro.conf import Positional, arg

from lgd.pipeline.console.command_line import CommandResult, CommandSequence, Line
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.dataset.splits import change_splits, listed_videos, split_keys
from lgd.pipeline.storage.storage import Storage
from lgd.training.recipes import TrainConfig, recipe_defaults
from lgd.training.run import begin_run, open_run
from lgd.training.scoring.scores import Scores, write_scores


@pytest.fixture(scope="package")
def folded(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The 18 rendered videos with three folds of one video per class, as trainN and testN, and as fN-train and fN-test;
    the official form has held-out parts, too. overlap-train and overlap-test share a video of f1-test."""
    folder = tmp_path_factory.mktemp("folded") / "data"
    shutil.copytree(dataset_folder, folder)
    dataset = open_dataset(folder)
    table = dataset.videos(["key", "class"]).to_pylist()
    classes = sorted({row["class"] for row in table})
    parts = [[], [], []]  # type: list[list[str]]
    for name in classes:
        for part, row in zip(parts, sorted(r["key"] for r in table if r["class"] == name), strict=True):
            part.append(row)
    splits: dict[str, list[str]] = {}
    for number, part in enumerate(parts, 1):
        others = [key for other in parts if other is not part for key in other]
        splits |= {f"train{number}": others, f"test{number}": part, f"f{number}-train": others, f"f{number}-test": part}
        splits |= {f"train{number}-fit": others[:6], f"train{number}-held": others[6:]}
    splits |= {"overlap-train": [*parts[1][1:], *parts[2]], "overlap-test": [parts[0][0], *parts[1][:1]]}
    known = listed_videos(dataset.storage).column("key").combine_chunks()
    change_splits(dataset.storage, dataset, splits, known=known)
    return open_dataset(folder)


class Done(CommandResult):
    """The result of a command that does nothing more."""

    def document(self) -> Any:
        return {}

    def lines(self) -> list[Line]:
        return []


@dataclass
class Commands:
    """Commands for a CommandSequence. calls: the words of each call, without the folders of runs and scores. wrote: the
    files that were written. fail, kill: the run folder (relative to its output folder) whose training fails or is
    killed."""

    dataset: Dataset
    calls: list[tuple[str, ...]] = field(default_factory=list)
    wrote: list[str] = field(default_factory=list)
    fail: str = ""
    kill: str = ""

    def sequence(self) -> CommandSequence:
        def train(
            recipe: Annotated[Positional[str], arg()],
            data: str,
            run: Path,
            *,
            config: Annotated[TrainConfig, arg(name="")] = TrainConfig(),
        ) -> Done:
            init = Path(config.init_from).name if config.init_from else ""
            self.calls.append(("train", recipe, short(run), config.split, config.validation.split, init))
            if self.fail and short(run) == self.fail:
                raise UserError("the disk is full: free some space")
            if self.kill and short(run) == self.kill:
                raise KeyboardInterrupt
            if not (run / "config.json").exists():
                self.wrote.append(short(run))
                begin_run(str(run), recipe, config, dataset=self.dataset)
            return Done()

        def evaluate(
            run: Annotated[Positional[Path], arg()], data: str, split: str, out: Path, checkpoint: str = ""
        ) -> Done:
            self.calls.append(("evaluate", short(run), split, checkpoint, short(out)))
            if not out.exists():
                self.wrote.append(short(out))
                opened = open_run(str(run))
                write_scores(
                    str(out), some_scores(self.dataset, split, stream=opened.config.stream, recipe=opened.recipe)
                )
            return Done()

        def report(
            out: Annotated[Positional[Path], arg()],
            paths: Annotated[Positional[tuple[Path, ...]], arg()],
            data: str,
        ) -> Done:
            self.calls.append(("report", *(short(path) for path in paths)))
            return Done()

        def defaults(name: str, words: list[str]) -> dict[str, Any]:
            return recipe_defaults(words) if name == "train" else {}

        return CommandSequence({"train": train, "evaluate": evaluate, "report": report}, defaults)


def short(path: Path) -> str:
    """out/1/nano-rgb -> 1/nano-rgb; out/1/fit/nano-rgb -> fit/nano-rgb."""
    return f"{path.parent.name}/{path.name}"


def some_scores(
    dataset: Dataset, split: str, *, stream: str = "rgb", recipe: str = "nano-rgb", right: float = 0.7
) -> Scores:
    """Return scores of a split, of which about `right` are correct; the same for the same split and stream."""
    table = {row["key"]: row["label"] for row in dataset.videos(["key", "label"]).to_pylist()}
    keys = split_keys(dataset, split)
    random = np.random.default_rng(zlib.crc32(f"{split} {stream}".encode()))
    labels = np.array([table[key] for key in keys])
    logits = random.normal(size=(len(keys), len(dataset.classes)))
    logits[np.arange(len(keys)), labels] += 3.0 * (random.random(len(keys)) < right)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    about = {"stream": stream, "recipe": recipe, "model": "lgd3d_nano", "protocol": "1 uniform clips", "step": 3}
    return Scores("", keys, labels, probabilities.astype(np.float32), dataset.classes, split, about)


@pytest.fixture
def commands(folded: Dataset) -> Commands:
    return Commands(folded)


@pytest.fixture
def sources(folded: Dataset, tmp_path: Path) -> dict[str, str]:
    """Folders of runs without checkpoints: rgb and flow of lgd3d_r50, rgb101 of lgd3d_r101."""
    folders = {}
    for name, recipe in (
        ("rgb", "kinetics400-rgb-r50"),
        ("flow", "kinetics400-flow-r50"),
        ("rgb101", "kinetics400-rgb-r101"),
    ):
        folders[name] = str(tmp_path / "sources" / name)
        begin_run(folders[name], recipe, recipe_defaults([recipe])["config"], dataset=folded)
    return folders


def storage_bytes(folder: Storage | str) -> dict[str, tuple[int, bytes]]:
    """Return time of change and content of every file, by name."""
    root = Path(folder.base if isinstance(folder, Storage) else folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
