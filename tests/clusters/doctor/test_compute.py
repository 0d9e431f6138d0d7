"""Measurements of a device, on the CPU at small sizes."""

from typing import Any

import pytest
import torch

from lgd.clusters.doctor import compute
from lgd.clusters.doctor.rows import NODE, OK, WRONG


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "CLIP", (3, 6, 7))
    monkeypatch.setattr(compute, "COPY_BYTES", 1 << 20)


def test_the_convolutions_of_this_cpu_are_right():
    row = compute.convolutions(NODE, "conv3d", "cpu", dtypes=("float32", "bfloat16"))
    assert row.verdict == OK, row.figure


@pytest.mark.parametrize("wrong", [1.01, float("nan")])
def test_wrong_convolutions_are_found(monkeypatch: pytest.MonkeyPatch, wrong: float):
    right = torch.nn.functional.conv3d

    def conv3d(clip: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        output = right(clip, *arguments, **options)
        return output * wrong if clip.dtype == torch.float32 else output

    monkeypatch.setattr(torch.nn.functional, "conv3d", conv3d)
    row = compute.convolutions(NODE, "conv3d", "cpu", dtypes=("float32",))
    assert row.verdict == WRONG
    assert "at most 1e-04 is expected of float32" in row.figure


def test_the_rows_of_the_cpu():
    assert [(row.name, row.unit) for row in compute.cpu_rows()] == [("conv3d, CPU", ""), ("memory copy, CPU", "GB/s")]


def test_speeds_count_bytes_and_operations(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compute, "seconds_of", lambda work, device: work() is not None and 0.5)
    assert compute.copy_bytes_per_s("cpu", 1000) == 4000  # read and written
    assert compute.product_flops("cpu", 10) == 4000
    assert compute.convolution_flops("cpu", "float32", 1) == 2 * 2 * (64 * 8 * 56 * 56) * 64 * 9


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_cards_are_found_by_their_names(name: str, card: str | None):
    found = compute.card_named(name)
    assert (found and found.name) == card
