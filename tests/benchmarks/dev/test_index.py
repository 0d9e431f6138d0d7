"""The index benchmark: its synthetic index, and the memory and time to open it."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from lgd.benchmarks.dev.index import Options, run, write_synthetic_dataset
from lgd.pipeline.dataset.dataset import index_name, shard_name
from lgd.pipeline.dataset.index import Index


def test_every_row_of_a_synthetic_index_is_found(tmp_path: Path):
    for videos, per_shard in ((1, 1), (13, 5), (64, 3)):
        dataset = write_synthetic_dataset(
            tmp_path / f"{videos}", Options(videos=videos, frames=7, videos_per_shard=per_shard)
        )
        index = Index(dataset, "rgb")
        with pa.memory_map(dataset.storage.path(index_name("rgb"))) as file:
            table = pa.ipc.open_file(file).read_all()
        assert len(index) == table.num_rows == videos
        assert index.keys(range(videos)) == table.column("key").to_pylist()
        for name, column in (("label", index.labels), ("width", index.widths), ("height", index.heights)):
            assert table.column(name).to_pylist() == column.tolist()
        splits = table.column("split").to_pylist()
        for split in set(splits):
            assert index.rows(split).tolist() == [row for row in range(videos) if splits[row] == split]
        for row, expected in enumerate(table.to_pylist()):
            where = index.frames(row, np.arange(7))
            assert where.shard == shard_name("rgb", expected["shard"])
            assert where.end.tolist() == [expected["offset"] + end for end in expected["ends"]]
            assert where.start.tolist() == [expected["offset"], *where.end[:-1].tolist()]
            assert where.crc32.tolist() == expected["crc32"]
        assert {key: row for keys in index.shards().values() for key, row in keys.items()} == {
            key: row for row, key in enumerate(index.keys(range(videos)))
        }


def test_a_large_index_needs_little_private_memory():
    result = run(Options(videos=20_000, videos_per_shard=100))
    assert result["index_mb"] > 40
    assert result["private_mb"] < 20
    assert result["open_s"] + result["order_s"] < 2
    assert max(result["microseconds_a_clip"].values()) < 1000
