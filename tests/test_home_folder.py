"""`~` at the start of a path is the home folder in every command, also where no shell replaces it (--out=~/data)."""

import os
from pathlib import Path

import pytest

from lgd import cli
from lgd.pipeline.console.command_line import dispatch
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.cache import CacheConfig, ShardCache
from lgd.training.recipes import TrainConfig
from lgd.training.start import with_absolute_paths


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def refused(*words: str) -> str:
    with pytest.raises(UserError) as raised:
        dispatch([*words], cli.COMMANDS, cli.defaults)
    return str(raised.value)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("inspect", "~/data"), "data"),
        (("train", "nano-rgb", "--data=~/data", "--run", "r"), "data"),
        (("preprocess", "~/videos", "--out", "d"), "videos"),
        (("demo", "--videos=~/videos", "--out", "o"), "videos"),
    ],
)
def test_a_missing_folder_is_looked_for_in_the_home_folder(words: tuple[str, ...], path: str, home: Path):
    assert str(home / path) in refused(*words)
    assert "~" not in os.listdir()


@pytest.mark.parametrize(
    ("words", "path", "message"),
    [
        (("preprocess", "videos", "--out", "d", "--annotations=~/list.csv"), "list.csv", "column"),
        (("evaluate", "~/run", "--data", "d", "--out", "s.parquet"), "run/config.json", "config.json"),
        (("report", "r.html", "~/run"), "run/config.json", "config.json"),
        (("fuse", "~/a.parquet", "~/b.parquet"), "a.parquet", "not a score file"),
    ],
)
def test_a_file_is_read_from_the_home_folder(words: tuple[str, ...], path: str, message: str, home: Path):
    Path("videos").mkdir()
    Path("videos/a.mp4").touch()
    (home / path).parent.mkdir(exist_ok=True)
    (home / path).write_text("x")
    assert message in refused(*words)


def test_outputs_are_written_to_the_home_folder(home: Path, dataset_folder: Path):
    (home / "data").symlink_to(dataset_folder)
    dispatch(["inspect", "~/data", "--dali-index=~/dali"], cli.COMMANDS, cli.defaults)
    assert list((home / "dali").rglob("*"))
    assert "~" not in os.listdir()


def test_start_weights_may_be_in_the_home_folder(home: Path):
    (home / "r50.pth").touch()
    assert with_absolute_paths(TrainConfig(imagenet="~/r50.pth")).imagenet == str(home / "r50.pth")
    assert with_absolute_paths(TrainConfig(init_from="~/r50.pth")).init_from == str(home / "r50.pth")


def test_the_cache_may_be_in_the_home_folder(home: Path):
    assert CacheConfig("~/cache").cache == str(home / "cache")
    with ShardCache("~/cache", 1000):
        assert (home / "cache").is_dir()


def test_an_output_may_not_be_an_input_under_a_different_name(home: Path):
    words = ("fuse", "~/a.parquet", "b.parquet", "--out", str(home / "a.parquet"))
    assert "would overwrite one of the score files" in refused(*words)
