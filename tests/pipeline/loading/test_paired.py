"""The same clips of several streams together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import Dataset
from lgd.pipeline.loading.loader import LoaderOptions, train_loader
from lgd.pipeline.loading.paired import paired_loader
from lgd.pipeline.loading.reader import ClipReader, CorruptFrame
from lgd.pipeline.loading.transform import Transform
from tests.pipeline.inspection.test_pictures import make

TRANSFORM = Transform(crop=48)


def test_all_streams_have_the_same_clips(dataset: Dataset):
    both = list(paired_loader(dataset, ("rgb", "flow"), 4, steps=range(4), transform=TRANSFORM))
    alone = list(train_loader(dataset, "flow", 4, steps=range(4), transform=TRANSFORM))
    for pair, flow in zip(both, alone, strict=True):
        assert pair.video.keys() == {"rgb", "flow"}
        assert torch.equal(pair.video["flow"], flow.video)
        assert (pair.key, pair.position) == (flow.key, flow.position)
        assert pair.video["rgb"].shape == (4, 3, 16, 48, 48)
    # RGB changes where flow shows motion: both show the same frames and the same crop window.
    moving = torch.cat([pair.video["flow"].abs().amax(1)[:, :-1] > 0.1 for pair in both])
    change = torch.cat([pair.video["rgb"].diff(dim=2).abs().amax(1) for pair in both])
    assert change[moving].mean() > 4 * change[~moving].mean()


def test_a_clip_that_is_damaged_in_one_stream_is_skipped_in_all(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    complete = list(paired_loader(dataset, ("rgb", "flow"), 4, steps=range(6), transform=TRANSFORM))
    bad_rgb, bad_flow = complete[0].key[1], complete[1].key[2]
    read = ClipReader.read

    def damaged(self: ClipReader, row: int, numbers: np.ndarray) -> list[np.ndarray]:
        if self.index.key(row) == {"rgb": bad_rgb, "flow": bad_flow}[self.index.spec.stream]:
            raise CorruptFrame("damaged")
        return read(self, row, numbers)

    monkeypatch.setattr(ClipReader, "read", damaged)
    options = LoaderOptions(skip_damaged=True)
    loader = paired_loader(dataset, ("rgb", "flow"), 4, steps=range(6), transform=TRANSFORM, options=options)
    for before, after in zip(complete, loader, strict=True):
        kept = [i for i, key in enumerate(before.key) if key not in (bad_rgb, bad_flow)]
        assert after.key == [before.key[i] for i in kept]
        assert after.position == [before.position[i] for i in kept]
        assert torch.equal(after.label, before.label[kept])
        for stream, video in after.video.items():
            assert torch.equal(video, before.video[stream][kept])


def test_streams_with_different_videos_are_refused(tmp_path: Path):
    dataset = make(tmp_path / "data")
    index, keys = dataset.storage.read("flow/index.arrow"), b"ab".ljust(8, b"\0")
    assert index.count(keys) == 1
    dataset.storage.write("flow/index.arrow", index.replace(keys, b"ac".ljust(8, b"\0")))
    with pytest.raises(UserError, match="the streams rgb and flow have different videos; rerun `lgd preprocess`"):
        paired_loader(dataset, ("rgb", "flow"), 4, steps=range(1), transform=Transform(crop=32))
