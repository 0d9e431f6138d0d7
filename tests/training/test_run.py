import json
from dataclasses import replace
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, StreamSpec
from lgd.pipeline.storage.storage import Storage
from lgd.training.recipes import RECIPES
from lgd.training.run import CONFIG, begin_run, open_run


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    (tmp_path / "data" / "rgb").mkdir(parents=True)
    (tmp_path / "data" / "rgb" / "index.arrow").touch()
    recipe = StreamSpec("rgb", {"fps": 25.0})
    return Dataset(Storage(tmp_path / "data"), "f" * 16, ("a", "b"), 4, {"rgb": recipe})


CONFIGURATION = RECIPES["nano-rgb"]


def test_a_run_is_read_back_with_every_field(tmp_path: Path, data: Dataset):
    config = replace(CONFIGURATION, transform=replace(CONFIGURATION.transform, mean=(1.0, 2.0, 3.0)), seed=9)
    begun = begin_run(str(tmp_path / "run"), "nano-rgb", config, dataset=data)
    assert open_run(str(tmp_path / "run")).config == config
    assert open_run(str(tmp_path / "run")).stream_spec == data.spec("rgb")
    assert begin_run(str(tmp_path / "run"), "nano-rgb", config, dataset=data).config == begun.config


def test_another_configuration_is_refused_with_the_fields_that_differ(tmp_path: Path, data: Dataset):
    folder = str(tmp_path / "run")
    begin_run(folder, "nano-rgb", CONFIGURATION, dataset=data)
    other = replace(CONFIGURATION, batch_size=4, optimizer=replace(CONFIGURATION.optimizer, lr=0.5))
    with pytest.raises(UserError, match=r"--optimizer.lr: 0.02 -> 0.5; --batch-size: 8 -> 4") as raised:
        begin_run(folder, "nano-rgb", other, dataset=data)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("change", [{"fingerprint": "0" * 16}, {"classes": ("a", "c")}])
def test_other_data_are_refused(tmp_path: Path, data: Dataset, change: dict):
    begin_run(str(tmp_path / "run"), "nano-rgb", CONFIGURATION, dataset=data)
    with pytest.raises(UserError, match="another dataset"):
        begin_run(str(tmp_path / "run"), "nano-rgb", CONFIGURATION, dataset=replace(data, **change))


def test_a_folder_with_other_files_is_not_written_to(tmp_path: Path, data: Dataset):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"):
        begin_run(str(tmp_path), "nano-rgb", CONFIGURATION, dataset=data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "does not describe a run"),
        ("{}", "does not describe a run"),
        ('{"format": "lgd-run", "version": 9}', "version 9"),
        ('{"format": "lgd-run", "version": 1}', "version 1, and this program reads version 2"),
    ],
)
def test_a_damaged_or_foreign_run_is_refused(tmp_path: Path, content: str, message: str):
    (tmp_path / CONFIG).write_text(content)
    with pytest.raises(UserError, match=message):
        open_run(str(tmp_path))


def test_a_missing_field_is_refused(tmp_path: Path, data: Dataset):
    begin_run(str(tmp_path / "run"), "nano-rgb", CONFIGURATION, dataset=data)
    path = tmp_path / "run" / CONFIG
    description = json.loads(path.read_text())
    del description["config"]["batch"]
    path.write_text(json.dumps(description))
    with pytest.raises(UserError, match="batch"):
        open_run(str(tmp_path / "run"))


def test_settings_of_the_stream_that_were_changed_by_hand_are_refused(tmp_path: Path, data: Dataset):
    begin_run(str(tmp_path / "run"), "nano-rgb", CONFIGURATION, dataset=data)
    path = tmp_path / "run" / CONFIG
    path.write_text(path.read_text().replace('"fps": 25.0', '"fps": 30.0'))
    with pytest.raises(UserError, match="does not describe a run"):
        open_run(str(tmp_path / "run"))
