"""The splits and classes of a run: what it keeps of them, and what it refuses later."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, open_dataset
from lgd.pipeline.dataset.splits import change_splits, listed_videos, split_keys
from lgd.preprocessing.annotations.class_list import read_classes
from lgd.training.recipes import RECIPES, TrainConfig
from lgd.training.run import Run, begin_run, open_run
from lgd.training.run_dataset import dataset_for, dataset_of, training_dataset, warn_if_trained_on

NANO = RECIPES["nano-rgb"]
ON_FOLD = replace(NANO, split="f1-train", validation=replace(NANO.validation, split="f1-test"))


@pytest.fixture
def data(dataset_folder: Path, tmp_path: Path) -> Dataset:
    """With the splits f1-train (the videos of train) and f1-test (those of val) in its table."""
    shutil.copytree(dataset_folder, tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    return changed(dataset, **{"f1-train": split_keys(dataset, "train"), "f1-test": split_keys(dataset, "val")})


def changed(dataset: Dataset, *removed: str, **splits: list[str]) -> Dataset:
    known = listed_videos(dataset.storage).column("key").combine_chunks()
    change_splits(dataset.storage, dataset, splits, known=known, removed=removed)
    return open_dataset(dataset.storage)


def begin(folder: Path, dataset: Dataset, config: TrainConfig = ON_FOLD) -> Run:
    dataset = dataset_for(str(folder), config, dataset, read=read_classes)
    return begin_run(str(folder), "nano-rgb", config, dataset=dataset)


def test_a_run_keeps_the_hashes_of_the_splits_of_the_table_that_it_uses(data: Dataset, tmp_path: Path):
    begin(tmp_path / "run", data)
    run = open_run(str(tmp_path / "run"))
    assert run.splits == {name: data.split_hash(name) for name in ("f1-train", "f1-test")}
    begin(tmp_path / "other", data, replace(NANO, split="train"))
    assert open_run(str(tmp_path / "other")).splits == {}


def test_other_splits_may_be_added_and_removed(data: Dataset, tmp_path: Path):
    begin(tmp_path / "run", data)
    dataset = changed(data, other=split_keys(data, "val"))
    run = begin(tmp_path / "run", dataset)
    assert training_dataset(run, dataset) == dataset
    begin(tmp_path / "run", changed(dataset, "other"))


def test_a_run_does_not_resume_with_a_split_that_has_changed(data: Dataset, tmp_path: Path):
    run = begin(tmp_path / "run", data)
    train = split_keys(data, "train")
    without = changed(data, "f1-train")
    other = changed(without, **{"f1-train": train[1:]})
    for dataset, problem in (
        (without, "the split f1-train is missing in the dataset: add it again with `lgd splits`"),
        (other, "the split f1-train has other videos than when the run began: restore it with `lgd splits`"),
    ):
        with pytest.raises(UserError, match=f"{problem}, or choose a different --run folder"):
            begin(tmp_path / "run", dataset)
        with pytest.raises(UserError, match=problem):  # in a worker that starts again
            training_dataset(run, dataset)
    begin(tmp_path / "run", changed(changed(other, "f1-train"), **{"f1-train": train}))


def test_a_validation_split_that_was_added_later_is_refused(data: Dataset, tmp_path: Path):
    config = replace(ON_FOLD, validation=replace(NANO.validation, split="later"))
    begin(tmp_path / "run", data, config)
    with pytest.raises(
        UserError, match=r"the split later was added to the dataset after the run began: .* --remove later"
    ):
        begin(tmp_path / "run", changed(data, later=split_keys(data, "val")), config)


def test_a_run_keeps_its_classes_and_needs_their_file_only_once(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "mini.txt"
    chosen = (data.classes[3], data.classes[1])
    file.write_text("\n".join(chosen))
    config = replace(ON_FOLD, classes=str(file))
    run = begin(tmp_path / "run", data, config)
    assert run.classes == open_run(str(tmp_path / "run")).classes == chosen
    view = training_dataset(run, data)
    assert (view.classes, view.labeled("f1-train")) == (chosen, data.labeled("f1-train") // 3)
    moved = file.rename(tmp_path / "moved.txt")
    assert begin(tmp_path / "run", data, replace(config, classes=str(moved))).config.classes == str(file)
    moved.unlink()
    assert begin(tmp_path / "run", data, config).classes == chosen
    assert f"--classes {file} does not exist any more: using the 2 classes that" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"--classes .*mini.txt does not exist: give a text file"):
        begin(tmp_path / "new", data, config)
    file.write_text("\n".join(reversed(chosen)))
    with pytest.raises(UserError, match=r"different configuration \(--classes: 2 classes .* -> 2 classes "):
        begin(tmp_path / "run", data, config)
    with pytest.raises(UserError, match=r"--classes: .*mini.txt -> None"):
        begin(tmp_path / "run", data)
    file.write_text("swim")
    with pytest.raises(UserError, match="does not have 1 of the 1 selected classes: swim"):
        begin(tmp_path / "third", data, config)


def test_a_run_of_all_classes_uses_the_dataset_as_it_is(data: Dataset, tmp_path: Path):
    assert dataset_of(begin(tmp_path / "run", data), data) is data


def test_scoring_videos_that_were_trained_on_prints_a_line(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = begin(tmp_path / "run", data)
    val = split_keys(data, "val")
    dataset = changed(data, mixed=[*split_keys(data, "train")[:2], *val])

    def printed(split: str, of: Dataset = dataset) -> str:
        warn_if_trained_on(run, of, split)
        return capsys.readouterr().err

    assert printed("f1-test") == printed("val") == ""
    assert "the split f1-train is the one that" in printed("f1-train")
    assert f"2 of the {len(val) + 2} videos of the split mixed are in f1-train, which" in printed("mixed")
    assert printed("train").startswith(f"{dataset.labeled('train')} of the {dataset.labeled('train')} videos")
    assert printed("f1-train", replace(dataset, fingerprint="other")) == ""
