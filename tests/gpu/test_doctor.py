"""The checks of `lgd doctor` on a real GPU: every row is there, and nothing is wrong with this machine."""

import torch

from lgd.clusters.doctor.decoding import decoding_rows
from lgd.clusters.doctor.gpu import USABLE, gpu_rows
from lgd.clusters.doctor.rows import WRONG


def test_the_rows_of_the_gpus():
    rows = {row.name: row for row in gpu_rows(ray_gpus=torch.cuda.device_count())}
    assert [row for row in rows.values() if row.verdict == WRONG] == []
    assert rows[USABLE].value == torch.cuda.device_count()
    speeds = ("memory copy", "bf16 products", "bf16 conv3d")
    assert all((rows[name].value or 0) > 0 for name in speeds), [rows[name] for name in speeds]
    assert {"driver", "capability", "cuDNN", "free memory", "bf16 / float32 conv3d"} <= rows.keys()


def test_the_rows_of_the_decoder():
    rows = {row.name: row for row in decoding_rows(gpus=True)}
    assert [row for row in rows.values() if row.verdict == WRONG] == []
    assert {"nvJPEG", "JPEGs", "JPEGs, 1 thread"} <= rows.keys()
    assert (rows["JPEGs, 1 thread"].value or 0) > 0
