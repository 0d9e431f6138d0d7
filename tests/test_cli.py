"""The command line as a user meets it: help, one line on stderr for a mistake, exit codes, one JSON document."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from lgd import cli
from lgd.benchmarks.commands import BENCHES
from lgd.clusters.testbed.processes import run_lgd


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    """Runs the command in this process: (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lgd", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def test_every_command_explains_its_options(call):
    code, out, _ = call("--help")
    assert code == 0
    assert all(command in out for command in cli.COMMANDS)
    with_recipe = ("train", "cross-validate")
    words = [
        (command, "nano-rgb") if command in with_recipe else (command,)
        for command in cli.COMMANDS
        if command != "bench"
    ]
    words += [("bench", command) for command in BENCHES]
    for command in words:
        code, helped, err = call(*command, "--help")
        assert (code, err) == (0, "")
        assert "--json" in helped


def test_the_values_of_a_recipe_are_the_defaults_in_its_help(call):
    assert "Default: 64." in call("train", "kinetics400-rgb-r50", "--help")[1]
    assert "Default: 16." in call("train", "nano-rgb", "--help")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tain",), "unknown command tain: choose from preprocess"),
        (("train", "nano-rbg", "--data", "d", "--run", "r"), "did you mean nano-rgb"),
        (("train", "nano-rgb", "--data", "d", "--run", "r", "--optimizer.rat", "1"), "--optimizer.rat"),
        (("train", "nano-rgb", "--data", "d", "--run", "r", "--batch-size", "many"), "--batch-size"),
        (("train", "nano-rgb", "--data", "d", "--run", "r", "--batch-size", "0"), "--batch-size must be more than 0"),
        (("train", "nano-rgb", "--data", "d"), "--run"),
        (("preprocess", "v"), "--out"),
        (("preprocess", "v", "--out", "d", "--streams", "rgb", "sound"), "unknown stream 'sound'"),
        (("preprocess", "v", "--out", "d", "--short-side", "0"), "--short-side must be between"),
        (("evaluate", "r", "--data", "d", "--out", "scores.csv"), "--out takes the name of a Parquet file"),
        (("evaluate", "r", "--data", "d", "--out", "s.parquet", "--cache-gb", "0"), "--cache-gb must be more than 0"),
        (("fuse", "a.parquet", "--weights", "x"), "--weights"),
        (("fuse", "a.parquet"), "two or more score files"),
        (("fuse", "a.parquet", "b.parquet", "--weights", "1"), "--weights takes one number per score file: 2, not 1"),
        (("fuse", "a.parquet", "b.parquet", "--space", "odds"), "--space"),
        (("fuse", "a.parquet", "b.parquet", "--per-class", "c.csv"), "--per-class takes the name of a Parquet file"),
        (
            ("fuse", "a.parquet", "b.parquet", "--out", "c.parquet", "--per-class", "./c.parquet"),
            "would overwrite the file of --out",
        ),
        (("average", "a.parquet"), "needs two or more score files, one of each split"),
        (("cross-validate", "--data", "d", "--folds", "a", "b"), "the recipe must come first"),
        (("reproduce", "ucf", "--data", "d", "--out", "o"), "unknown chain 'ucf': choose from nano, nano-com, "),
        (("reproduce", "ucf101-r50", "--data", "d", "--out", "o"), "give them with --rgb RUN and --flow RUN"),
        (
            ("reproduce", "hmdb51-r50", "--data", "d", "--out", "o", "--split", "test1"),
            "hmdb51-r50 scores the official test splits: choose them by number with --splits",
        ),
        (("reproduce", "nano", "--data", "d", "--out", "o", "--splits", "1"), "--fit-fusion are for ucf101-r50, "),
        (("reproduce", "nano", "--data", "d", "--out", "o", "--fit-fusion"), "not for nano"),
        (("models", "--classes", "0"), "--classes must be 1 or more"),
        (("bench", "flaw"), "choose from flow, loader, preprocess"),
        (("bench", "flow", "d", "--pairs", "0"), "--pairs must be 1 or more"),
        (("bench", "loader", "v", "--short-side", "100"), "--short-side must be 112 or more"),
        (("bench", "preprocess", "v", "--limit", "0"), "--limit must be 1 or more"),
        (("bench", "preprocess", "v", "--short-side", "0"), "--short-side must be between"),
        (("inspect", "d", "--videos", "3"), "give --pictures DIR"),
        (("inspect", "d", "--pictures", "p", "--videos", "0"), "--videos must be 1 or more"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(call, words: tuple[str, ...], message: str):
    code, out, err = call(*words)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("lgd: ")
    assert err.count("\n") == 1


def test_users_mistakes_are_one_line_and_exit_code_1(call, tmp_path: Path, dataset_folder: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "columns.csv").write_text("file,class\na.mp4,up\n")
    (tmp_path / "labels.csv").write_text("path,label\na.mp4,up\nb.mp4,\n")
    newer = tmp_path / "newer"
    shutil.copytree(dataset_folder, newer)
    description = json.loads((newer / "dataset.json").read_text())
    (newer / "dataset.json").write_text(json.dumps({**description, "version": 99}))
    train = ("train", "nano-rgb", "--run", tmp_path / "run", "--data")
    for words, message in [
        (("preprocess", tmp_path / "nowhere", "--out", tmp_path / "d"), "nowhere does not exist"),
        (("preprocess", empty, "--out", tmp_path / "d"), "empty folder"),
        (("preprocess", tmp_path, "--out", tmp_path / "d", "--annotations", tmp_path / "columns.csv"), "path"),
        (("preprocess", tmp_path, "--out", tmp_path / "d", "--annotations", tmp_path / "labels.csv"), "label"),
        (("inspect", tmp_path / "nowhere"), "nowhere does not exist"),
        (("inspect", empty), "is not a dataset"),
        (("inspect", newer), "version 99"),
        (("inspect", tmp_path / "nowhere", "--pictures", tmp_path / "d"), "nowhere does not exist"),
        (("inspect", dataset_folder, "--pictures", tmp_path / "labels.csv"), "a file with this name already exists"),
        ((*train, newer), "version 99"),
        ((*train, tmp_path / "nowhere"), "nowhere does not exist"),
        (("evaluate", empty, "--data", dataset_folder, "--out", tmp_path / "s.parquet"), "is not a run"),
        (("bench", "flow", empty), "contains no videos"),
        (("bench", "preprocess", empty), "empty folder"),
        (("fuse", tmp_path / "a.parquet", tmp_path / "b.parquet"), "a.parquet is missing"),
    ]:
        code, out, err = call(*words)
        assert (code, out) == (1, ""), (words, err)
        assert message in err
        assert err.startswith("lgd: ")
        assert err.count("\n") == 1, err
        assert not (tmp_path / "d").exists()


def test_inspect_describes_the_dataset_and_its_json_agrees(call, dataset_folder: Path):
    code, out, _ = call("inspect", dataset_folder, "--verify", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["videos"] == 18
    assert sum(document["splits"].values()) == 18
    assert document["classes"] == ["down", "grow", "shrink", "sideways", "spin", "up"]
    assert document["streams"]["rgb"]["frames"] == 18 * 40
    assert document["streams"]["flow"]["frames"] == 18 * 39
    assert document["problems"] == []
    text = call("inspect", dataset_folder)[1]
    assert "18 videos in 6 classes" in text
    assert "720" in text


def test_inspect_writes_pictures_and_its_json_lists_them(call, dataset_folder: Path, tmp_path: Path):
    code, out, _ = call("inspect", dataset_folder, "--pictures", tmp_path / "new" / "folder", "--videos", 5, "--json")
    files = [Path(row["file"]) for row in json.loads(out)["pictures"]]
    assert code == 0
    assert len(files) == 5
    assert sorted(files) == sorted((tmp_path / "new" / "folder").iterdir())
    assert "pictures of 5 videos" in call("inspect", dataset_folder, "--pictures", tmp_path, "--videos", 5)[1]


def test_inspect_verify_exits_1_when_a_byte_is_wrong(call, dataset_folder: Path, tmp_path: Path):
    shutil.copytree(dataset_folder, tmp_path / "data")
    shard = tmp_path / "data" / "rgb" / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    code, out, err = call("inspect", tmp_path / "data", "--verify", "--json")
    assert code == 1
    assert "train-000000.tar" in err
    problems = json.loads(out)["problems"]  # the document is there although the command failed
    assert len(problems) == 1
    assert "train-000000.tar" in problems[0]
    assert call("inspect", tmp_path / "data")[0] == 0


def test_json_is_the_only_thing_on_stdout():
    done = run_lgd("models", "--classes", 12, "--json")
    rows = json.loads(done.stdout)
    assert done.returncode == 0
    assert {row["classes"] for row in rows} == {12}
    assert {"lgd3d_r50", "lgd3d_nano"} <= {row["name"] for row in rows}
    assert rows[0].keys() == {"name", "stage", "classes", "parameters", "gmac", "input"}


def test_recipes_are_listed_and_printed_whole_by_the_names_of_their_options(call):
    code, out, _ = call("recipes", "--json")
    assert code == 0
    listed = json.loads(out)
    assert {"kinetics400-rgb-r50", "kinetics600-flow-r101-long", "kinetics400-rgb-r50-v1", "nano-rgb"} <= listed.keys()
    code, out, _ = call("recipes", "kinetics400-flow-r101-long")
    assert code == 0
    assert "--optimizer.drop-every" in out
    assert "lgd3d_r101" in out
    code, out, err = call("recipes", "kinetics400-rbg-r50")
    assert (code, out, err.count("\n")) == (2, "", 1)
    code, out, err = call("reproduce", "nanno", "--data", "d", "--out", "o")
    assert (code, out) == (2, "")
    assert "choose from nano, " in err
