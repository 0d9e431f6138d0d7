"""The decoders, on the CPU at small sizes."""

import os

import numpy as np
import pytest
import torch

from lgd.clusters.doctor import decoding
from lgd.clusters.doctor.rows import NODE, OK, SLOW, WARNING, WRONG


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DIFFERENT", 4), ("BATCH", 4), ("BATCHES", 2), ("LEAST_CPU", 1.0)):
        monkeypatch.setattr(decoding, name, value)


def test_the_decoder_of_the_cpu_decodes_as_opencv_does_and_its_speed_is_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    rows = list(decoding.decoding_rows(gpus=False))
    assert [row.name for row in rows] == [
        "JPEGs, CPU",
        "JPEGs, CPU, 1 thread",
        "JPEGs, CPU, 4 threads",
        "JPEGs, CPU, 6 threads",
    ]
    assert [row.verdict for row in rows] == [OK] * 4, rows
    assert all(row.value and row.unit == "frames/s" for row in rows[1:])


def test_the_pictures_are_the_same_on_every_node_and_store_colors_at_half_the_resolution():
    first, again = decoding.jpegs(2), decoding.jpegs(2)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])
    header = bytes(first[0])
    frame = header.index(b"\xff\xc0")
    assert header[frame + 11] == 0x22  # sampling factors of the luminance


def test_a_different_decoder_is_a_warning(monkeypatch: pytest.MonkeyPatch):
    """One that interpolates the colors in another way."""
    build = decoding.build
    pictures = decoding.jpegs(4)

    class Shifted:
        def run(self) -> tuple[list[np.ndarray]]:
            (output,) = build(pictures, 1, gpu=False, batch=4).run()
            return ([np.asarray(each) // 2 for each in output],)

    monkeypatch.setattr(decoding, "build", lambda *arguments, **options: Shifted())
    row = decoding.difference(NODE, "JPEGs, CPU", pictures, gpu=False)
    assert row.verdict == WARNING
    assert "nvidia-nvjpeg 13.2" in row.advice


def test_a_slow_decoder_is_slow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "LEAST_CPU", 1e9)
    assert decoding.rate(decoding.jpegs(1), 1, gpu=False).verdict == SLOW


def test_a_failing_decoder_is_a_row(monkeypatch: pytest.MonkeyPatch):
    def build(*arguments: object, **options: object) -> object:
        raise RuntimeError("nvml error: The NVIDIA driver is not loaded")

    monkeypatch.setattr(decoding, "build", build)
    rows = list(decoding.decoding_rows(gpus=False))
    assert {row.verdict for row in rows} == {WRONG}
    assert "The NVIDIA driver is not loaded" in rows[0].figure


def test_without_a_usable_gpu_there_are_no_rows_of_its_decoder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(decoding.decoding_rows(gpus=True)) == []
