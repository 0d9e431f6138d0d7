"""Run folders: created, opened, resumed with the same configuration only."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lgd
from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.storage.lock import LOCK, locked
from lgd.pipeline.storage.lock_owner import LockOwner
from lgd.pipeline.storage.storage import TEMPORARY, Storage
from lgd.training.config_file import RENAMED_FIELDS
from lgd.training.recipes import RECIPES
from lgd.training.run import CONFIG, VERSION, begin_run, open_run

NANO = RECIPES["nano-rgb"]


def begin(folder: Path, dataset: Dataset) -> Path:
    """Create a run and return its config.json."""
    begin_run(str(folder), "nano-rgb", NANO, dataset=dataset)
    return folder / CONFIG


def change(path: Path, **fields: Any) -> None:
    """Change fields of the top level of config.json."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_config(path: Path, **fields: Any) -> None:
    """Change fields of the configuration in config.json; a value of ... deletes the field. __ stands for a dot."""
    config = json.loads(path.read_text())["config"] | {name.replace("__", "."): value for name, value in fields.items()}
    change(path, config={name: value for name, value in config.items() if value is not ...})


def test_a_run_is_read_back_with_every_field(tmp_path: Path, empty_dataset: Dataset):
    config = replace(NANO, transform=replace(NANO.transform, mean=(1.0, 2.0, 3.0)), seed=9)
    begun = begin_run(str(tmp_path / "run"), "nano-rgb", config, dataset=empty_dataset)
    opened = open_run(str(tmp_path / "run"))
    assert opened.config == config
    assert (opened.recipe, opened.classes, opened.fingerprint) == ("nano-rgb", ("a", "b"), "f" * 16)
    assert opened.stream_spec == empty_dataset.spec("rgb")
    assert begin_run(str(tmp_path / "run"), "nano-rgb", config, dataset=empty_dataset).config == begun.config


def test_a_run_names_the_version_of_lgd_that_wrote_it(tmp_path: Path, empty_dataset: Dataset):
    description = json.loads(begin(tmp_path / "run", empty_dataset).read_text())
    assert (description["version"], description["lgd"]) == (VERSION, lgd.__version__)


def test_a_run_of_a_version_without_a_field_keeps_what_that_version_did(
    tmp_path: Path, empty_dataset: Dataset, capsys: pytest.CaptureFixture
):
    change_config(begin(tmp_path / "run", empty_dataset), normalization_group=...)
    run = begin_run(str(tmp_path / "run"), "nano-rgb", NANO, dataset=empty_dataset)
    assert (NANO.normalization_group, run.config.normalization_group) == (8, 0)
    message = capsys.readouterr().err
    assert "was started by a version of lgd without --normalization-group: it stays at 0" in message
    assert message.count("\n") == 1
    with pytest.raises(UserError, match=r"different configuration \(--batch-size: 8 -> 4\)"):
        begin_run(str(tmp_path / "run"), "nano-rgb", replace(NANO, batch_size=4), dataset=empty_dataset)


def test_a_new_run_with_micro_batches_that_do_not_fit_is_refused(tmp_path: Path, empty_dataset: Dataset):
    with pytest.raises(UsageError, match="--micro-batch-size 4 does not hold complete groups"):
        begin_run(
            str(tmp_path / "run"), "nano-rgb", replace(NANO, batch_size=16, micro_batch_size=4), dataset=empty_dataset
        )
    assert not (tmp_path / "run").exists()


def test_a_different_configuration_is_refused_with_the_options_that_differ(tmp_path: Path, empty_dataset: Dataset):
    begin(tmp_path / "run", empty_dataset)
    different = replace(NANO, batch_size=4, optimizer=replace(NANO.optimizer, max_grad_norm=0.5))
    expected = (
        r"different configuration \(--optimizer.max-grad-norm: None -> 0.5; --batch-size: 8 -> 4\): give the same"
    )
    with pytest.raises(UserError, match=expected) as raised:
        begin_run(str(tmp_path / "run"), "nano-rgb", different, dataset=empty_dataset)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("changes", [{"fingerprint": "0" * 16}, {"classes": ("a", "c")}])
def test_a_different_dataset_is_refused(tmp_path: Path, empty_dataset: Dataset, changes: dict):
    begin(tmp_path / "run", empty_dataset)
    with pytest.raises(UserError, match="a different dataset"):
        begin_run(str(tmp_path / "run"), "nano-rgb", NANO, dataset=replace(empty_dataset, **changes))


def test_a_folder_with_other_files_is_not_written_to(tmp_path: Path, empty_dataset: Dataset):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="contains other files"):
        begin(tmp_path, empty_dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "does not describe a run"),
        ("{}", "does not describe a run"),
        ("[]", "does not describe a run"),
        ('{"format": "lgd-dataset", "version": 1}', "does not describe a run"),
        (
            '{"format": "lgd-run", "version": 9, "lgd": "0.9.1"}',
            r"is a run of version 9, written by lgd 0\.9\.1; lgd .* reads version 2: use that version or a later one",
        ),
        ('{"format": "lgd-run", "version": 9}', "of version 9, written by a newer version of lgd"),
        (
            '{"format": "lgd-run", "version": 1}',
            "of version 1, written by an older version of lgd; .*: use that version, or train again",
        ),
        ('{"format": "lgd-run", "version": "2"}', "written by an older version of lgd"),
        ('{"format": "lgd-run", "version": 2}', "field 'recipe' is missing"),
    ],
)
def test_a_damaged_run_and_a_run_of_a_different_version_are_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / CONFIG).write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        open_run(str(tmp_path))
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_field_that_is_newer_than_the_run_has_its_default(tmp_path: Path, empty_dataset: Dataset):
    path = begin(tmp_path / "run", empty_dataset)
    change_config(path, compile=..., optimizer__max_grad_norm=...)
    assert open_run(str(tmp_path / "run")).config == NANO
    assert begin_run(str(tmp_path / "run"), "nano-rgb", NANO, dataset=empty_dataset).config == NANO


def test_a_run_with_the_field_names_of_version_0_1_is_read(tmp_path: Path, empty_dataset: Dataset):
    path = begin(tmp_path / "run", empty_dataset)
    description = json.loads(path.read_text())
    for old, new in RENAMED_FIELDS.items():
        description["config"][old] = description["config"].pop(new)
    del description["lgd"]
    path.write_text(json.dumps(description))
    assert open_run(str(tmp_path / "run")).config == NANO


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"precision": "float8"}, "field 'precision' is 'float8', must be float32 or bfloat16"),
        ({"model__frames": "sixteen"}, "field 'model.frames' is 'sixteen', must be a whole number"),
        ({"model__name": "lgd4d"}, "field 'model.name' is 'lgd4d', must be one of lgd3d_r50, "),
        ({"optimizer__nesterov": True}, "unknown field 'optimizer.nesterov': it was written by lgd "),
    ],
)
def test_a_wrong_or_unknown_field_is_named_with_its_file(
    tmp_path: Path, empty_dataset: Dataset, fields: dict, message: str
):
    path = begin(tmp_path / "run", empty_dataset)
    change_config(path, **fields)
    with pytest.raises(UserError, match=message) as raised:
        open_run(str(tmp_path / "run"))
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_a_stream_spec_that_was_changed_by_hand_is_refused(tmp_path: Path, empty_dataset: Dataset):
    path = begin(tmp_path / "run", empty_dataset)
    path.write_text(path.read_text().replace('"fps": 25.0', '"fps": 30.0'))
    with pytest.raises(UserError, match="its stream spec does not match its hash"):
        open_run(str(tmp_path / "run"))


def test_a_run_that_another_command_is_creating_is_refused_with_its_name(tmp_path: Path, empty_dataset: Dataset):
    with (
        locked(Storage(tmp_path / "run"), "lgd train"),
        pytest.raises(UserError, match=r"is in use by `lgd train` of .* \(process \d+"),
    ):
        begin(tmp_path / "run", empty_dataset)
    assert begin(tmp_path / "run", empty_dataset).exists()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", CONFIG]


def test_a_run_that_was_killed_while_it_was_created_is_created_again(tmp_path: Path, empty_dataset: Dataset):
    (tmp_path / f"{TEMPORARY}x-config.json").touch()
    dead = replace(LockOwner.this_process("lgd train", ""), started=1, ticket=1)
    (tmp_path / f"{LOCK}{dead.token}").write_bytes(dead.to_json())
    begin(tmp_path, empty_dataset)
    assert open_run(str(tmp_path)).config == NANO
