"""Index files: DALI's own webdataset reader opens the shards with them."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import nvidia.dali.fn as fn
import pytest
from nvidia.dali.pipeline import Pipeline

from lgd.clusters.testbed.processes import run_lgd
from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset, shard_name
from lgd.pipeline.inspection.dali_index import dali_index
from lgd.pipeline.storage.storage import Storage


def samples(tar: Path) -> list[tuple[bytes, bytes]]:
    """Return the frames and the description of each video, in the order of the tar."""
    with tarfile.open(tar) as opened:
        content = {member.name: opened.extractfile(member).read() for member in opened}  # type: ignore[union-attr]
    keys = dict.fromkeys(name.partition(".")[0] for name in content)
    return [(content[f"{key}.mjpeg"], content[f"{key}.json"]) for key in keys]


@pytest.fixture
def indexes(dataset_folder: Path, tmp_path: Path) -> Path:
    """Write the index files with the command."""
    done = run_lgd("inspect", dataset_folder, "--dali-index", tmp_path / "idx", "--json")
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)["dali_indexes"]
    shards = [path.relative_to(dataset_folder) for path in dataset_folder.glob("*/*.tar")]
    assert sorted(written) == sorted(str(shard.with_suffix(".idx")) for shard in shards)
    return tmp_path / "idx"


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_dali_reads_every_sample_of_every_shard_byte_for_byte(dataset_folder: Path, indexes: Path, stream: str):
    tars = sorted((dataset_folder / stream).glob("*.tar"))
    paths = [str(indexes / stream / f"{tar.stem}.idx") for tar in tars]
    expected = [sample for tar in tars for sample in samples(tar)]
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipeline:
        parts: Any = fn.readers.webdataset(paths=list(map(str, tars)), index_paths=paths, ext=["mjpeg", "json"])
        pipeline.set_outputs(*parts)
    pipeline.build()
    read = [tuple(np.array(part.at(0)).tobytes() for part in pipeline.run()) for _ in expected]
    assert len(expected) == 18
    assert read == expected


def test_the_index_equals_that_of_dalis_own_tool(dataset: Dataset, tmp_path: Path):
    for tar in sorted(Path(dataset.storage.path("rgb")).glob("*.tar")):
        theirs = tmp_path / "theirs.idx"
        subprocess.run([sys.executable, "-m", "wds2idx", tar, theirs], check=True, capture_output=True)
        assert dali_index(dataset.storage, f"rgb/{tar.name}") == theirs.read_text()


def test_a_missing_or_truncated_shard_is_named_in_the_error(dataset: Dataset, tmp_path: Path):
    name = shard_name("rgb", "train-000000")
    copy = Storage(tmp_path)
    copy.make_folder("rgb")
    with pytest.raises(UserError, match=r"rgb/train-000000\.tar is missing or damaged .* --verify"):
        dali_index(copy, name)
    copy.write(name, dataset.storage.read(name)[:2000])
    with pytest.raises(UserError, match="is missing or damaged"):
        dali_index(copy, name)
