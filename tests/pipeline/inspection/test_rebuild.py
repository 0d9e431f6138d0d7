"""`lgd inspect --rebuild-index`: the same bytes, whatever happened to the index and its parts, and nothing false."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, index_name, open_dataset, shard_name
from lgd.pipeline.dataset.index import Index
from lgd.pipeline.inspection.describe import inspect_dataset
from lgd.pipeline.inspection.options import InspectOptions
from lgd.pipeline.inspection.rebuild import rebuild_indexes, shard_names
from lgd.pipeline.storage.storage import Storage

REBUILD = InspectOptions(rebuild_index=True)


@pytest.fixture
def copy(dataset_folder: Path, tmp_path: Path) -> Dataset:
    shutil.copytree(dataset_folder, tmp_path / "data")
    return open_dataset(tmp_path / "data")


def indexes(dataset: Dataset) -> list[bytes]:
    return [dataset.storage.read(index_name(stream)) for stream in dataset.specs]


@pytest.mark.parametrize("parts", ["valid", "missing", "damaged"])
@pytest.mark.parametrize("index", ["valid", "missing", "damaged", "empty"])
def test_the_rebuilt_index_has_the_bytes_of_the_first(copy: Dataset, index: str, parts: str):
    before = indexes(copy)
    path = Path(copy.storage.path(index_name("rgb")))
    if index == "missing":
        path.unlink()
    elif index != "valid":
        path.write_bytes(before[0][:2000] if index == "damaged" else b"")
        with pytest.raises(UserError, match=r"index.arrow is damaged .*: rebuild it .* --rebuild-index`$"):
            Index(copy, "rgb")
    for part in Path(copy.storage.path("rgb/.parts")).iterdir():
        if parts == "missing":
            part.unlink()
        elif parts == "damaged":
            part.write_bytes(part.read_bytes()[:500])
    result = inspect_dataset(copy.storage.root, REBUILD)
    assert result.rebuilt == ["rgb", "flow"]
    assert result.lines()[-1] == "index rebuilt from the shards: rgb, flow"
    assert indexes(copy) == before


def test_a_missing_shard_leaves_the_index_as_it_is(copy: Dataset):
    before = indexes(copy)
    copy.storage.delete(shard_name("rgb", "train-000001"))
    with pytest.raises(UserError, match=r"shards of .*rgb do not match .*dataset.json \(14 videos, not 18\): rerun"):
        rebuild_indexes(copy)
    assert indexes(copy) == before


def test_a_stream_that_was_never_complete_is_left_out(copy: Dataset, capsys: pytest.CaptureFixture[str]):
    copy.storage.delete(index_name("flow"))
    copy.storage.delete(shard_name("flow", "train-000001"))
    assert rebuild_indexes(open_dataset(copy.storage)) == ["rgb"]
    assert "its index is not rebuilt" in capsys.readouterr().err
    assert not copy.storage.exists(index_name("flow"))


def test_damaged_frames_do_not_get_new_checksums(copy: Dataset):
    before = indexes(copy)
    where = Index(copy, "rgb").frames(0, np.array([7]))
    path = Path(copy.storage.path(where.shard))
    content = bytearray(path.read_bytes())
    content[int(where.start[0]) + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{where.shard} is damaged \(frame 7 of .*\): delete it and rerun"):
        rebuild_indexes(copy)
    assert indexes(copy) == before


def test_other_labels_in_the_shards_are_refused(copy: Dataset):
    path = Path(copy.storage.path(shard_name("rgb", "train-000000")))
    content = path.read_bytes()
    assert content.count(b'"label": 0') > 0
    path.write_bytes(content.replace(b'"label": 0', b'"label": 1'))
    shutil.rmtree(copy.storage.path("rgb/.parts"))
    with pytest.raises(UserError, match="other keys, labels or frames"):
        rebuild_indexes(copy)


def test_shards_are_in_the_order_of_the_plan(tmp_path: Path):
    storage = Storage(tmp_path)
    storage.make_folder("rgb")
    for name in ("a-0-000000.tar", "a-1000000.tar", "a-999999.tar", "index.arrow", ".tmp-x-a-000001.tar", "x.tar"):
        storage.write(f"rgb/{name}", b"")
    assert shard_names(storage, "rgb") == ["a-999999", "a-1000000", "a-0-000000"]
