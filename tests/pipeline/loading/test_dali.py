"""Options of the decoder, and planes without an intermediate copy. The results are tested in test_loader.py."""

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.dataset.dataset import STREAMS
from lgd.pipeline.loading import nvjpeg
from lgd.pipeline.loading.dali import build_pipeline, decoder_options
from lgd.pipeline.loading.transform import Transform


def test_colors_are_interpolated_on_a_gpu_as_on_the_cpu():
    assert decoder_options(STREAMS["rgb"], 0, threads=4)["jpeg_fancy_upsampling"] is True
    assert decoder_options(STREAMS["flow"], 0, threads=4)["jpeg_fancy_upsampling"] is False  # no colors
    assert decoder_options(STREAMS["rgb"], None, threads=4) == {"device": "cpu"}


@pytest.mark.parametrize(
    ("threads", "load", "expected"), [(1, None, 0.9), (3, None, 0.9), (4, None, 0.65), (8, None, 0.65), (8, 1.0, 1.0)]
)
def test_the_hardware_decoder_gets_more_frames_where_threads_are_few(threads: int, load: float | None, expected: float):
    options = decoder_options(STREAMS["rgb"], 0, threads=threads, load=load)
    assert options["hw_decoder_load"] == expected


def test_a_gpu_is_refused_with_an_old_nvjpeg_before_it_is_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nvjpeg, "nvjpeg_version", lambda: (12, 4, 0))
    with pytest.raises(UserError, match=r"needs nvJPEG 13\.2 or later, and 12\.4\.0 is installed"):
        build_pipeline(STREAMS["rgb"], Transform(), lambda: None, max_frames=1, device_id=0, threads=1)  # type: ignore[arg-type,return-value]
