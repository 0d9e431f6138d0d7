"""The rows of pretended GPUs."""

import importlib.metadata

import pytest
import torch

from lgd.clusters.doctor import compute, gpu
from lgd.clusters.doctor.rows import ABSENT, GPU, OK, SLOW, WARNING, WRONG, Row

H100 = ["NVIDIA H100 80GB HBM3", "81559", "Disabled"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A node with a new driver, two GPUs and a PyTorch that can use them. Tests change it."""
    monkeypatch.setattr(gpu, "driver_version", lambda: "580.65.06")
    monkeypatch.setattr(gpu, "query_gpus", lambda *fields: [H100, H100])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (79 << 30, 80 << 30))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91501)
    monkeypatch.setattr(gpu, "convolutions", lambda section, name, device, dtypes: Row(section, name, "right"))
    for name, value in (("copy_bytes_per_s", 3e12), ("product_flops", 7e14)):
        monkeypatch.setattr(gpu, name, lambda device, size, value=value: value)
    monkeypatch.setattr(gpu, "convolution_flops", lambda device, dtype, clips: 3e14 if dtype == "bfloat16" else 1e14)
    return monkeypatch


def rows_of(ray_gpus: int = 2) -> dict[str, Row]:
    return {row.name: row for row in gpu.gpu_rows(ray_gpus)}


def test_a_good_machine_has_no_advice(machine: pytest.MonkeyPatch):
    rows = rows_of()
    assert {row.verdict for row in rows.values()} == {OK}
    assert {name: row.figure for name, row in rows.items()} == {
        "driver": "580.65.06 (CUDA 13.0 needs 580 or later)",
        "GPUs": "2 x NVIDIA H100 80GB HBM3, 80 GiB",
        "MIG": "off",
        "GPUs of PyTorch": f"2 with PyTorch {torch.__version__} (CUDA 13.0); Ray offers 2",
        "capability": "9.0",
        "cuDNN": "9.15.1",
        "free memory": "79.0 of 80.0 GiB",
        "conv3d, GPU 0": "right",
        "conv3d, GPU 1": "right",
        "memory copy": "3 TB/s",
        "bf16 products": "700 TFLOP/s",
        "bf16 conv3d": "300 TFLOP/s",
        "bf16 / float32 conv3d": "3.0 times as fast",
    }
    assert rows["GPUs of PyTorch"].value == 2


@pytest.mark.parametrize("ray_gpus", [0, 1])
def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch, ray_gpus: int):
    """With --num-gpus=1, as on a CPU machine that pretends to have a GPU, it is wrong."""
    monkeypatch.setattr(gpu, "driver_version", lambda: None)
    monkeypatch.setattr(gpu, "query_gpus", lambda *fields: [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    rows = rows_of(ray_gpus)
    if not ray_gpus:
        assert [(row.name, row.verdict) for row in rows.values()] == [("GPU", ABSENT)]
        return
    assert (rows["driver"].figure, rows["driver"].verdict) == ("no NVIDIA driver; CUDA 13 needs 580 or later", WRONG)
    assert rows["GPUs of PyTorch"].figure.endswith("(without CUDA); Ray offers 1")
    assert rows["GPUs of PyTorch"].verdict == WRONG
    assert "--num-gpus=0" in rows["GPUs of PyTorch"].advice


def test_a_driver_that_is_too_old(machine: pytest.MonkeyPatch):
    machine.setattr(gpu, "driver_version", lambda: "550.54.14")
    machine.setattr(torch.cuda, "is_available", lambda: False)
    rows = rows_of()
    assert rows["driver"].figure == "550.54.14 is too old; CUDA 13.0 needs 580 or later"
    assert rows["driver"].verdict == WRONG
    assert "install NVIDIA driver 580 or later" in rows["GPUs of PyTorch"].advice
    assert list(rows) == ["driver", "GPUs", "MIG", "GPUs of PyTorch"]


@pytest.mark.parametrize(
    ("place", "value", "row", "verdict", "advice"),
    [
        ("query_gpus", lambda *fields: [H100, [*H100[:2], "Enabled"]], "MIG", WARNING, "nvidia-smi -mig 0"),
        ("copy_bytes_per_s", lambda device, size: 1e12, "memory copy", SLOW, "temperature"),
        ("product_flops", lambda device, size: 1e14, "bf16 products", SLOW, "temperature"),
        (
            "convolution_flops",
            lambda device, dtype, clips: 9e13 if dtype == "bfloat16" else 1e14,
            "bf16 / float32 conv3d",
            SLOW,
            "cuDNN 9.15",
        ),
    ],
)
def test_what_is_wrong_with_a_gpu_is_said(
    machine: pytest.MonkeyPatch, place: str, value: object, row: str, verdict: str, advice: str
):
    machine.setattr(gpu, place, value)
    found = rows_of()
    assert {name for name, each in found.items() if each.verdict != OK} == {row}
    assert found[row].verdict == verdict
    assert advice in found[row].advice


@pytest.mark.parametrize(
    ("module", "name", "value", "row", "verdict"),
    [
        (torch.cuda, "get_device_capability", lambda number: (7, 0) if number else (9, 0), "capability", WRONG),
        (torch.backends.cudnn, "version", lambda: 91002, "cuDNN", WRONG),
        (torch.backends.cudnn, "version", lambda: None, "cuDNN", WRONG),
        (torch.cuda, "mem_get_info", lambda number: (40 << 30, 80 << 30), "free memory", WARNING),
    ],
)
def test_what_pytorch_says_is_judged(
    machine: pytest.MonkeyPatch, module: object, name: str, value: object, row: str, verdict: str
):
    machine.setattr(module, name, value)
    assert {each: found.verdict for each, found in rows_of().items() if found.verdict != OK} == {row: verdict}


def test_one_slow_gpu_of_a_node_is_named(machine: pytest.MonkeyPatch):
    speeds = {"cuda:0": 3e12, "cuda:1": 1.5e12, "cuda:2": 3.1e12}
    row = gpu.slowest("memory copy", lambda device: speeds[device], list(speeds), unit="TB/s", least=1.0)
    assert (row.verdict, row.figure, row.value) == (SLOW, "1.5 TB/s on GPU 1; the median is 3", 1.5)


def test_gpus_that_ray_does_not_offer_are_a_warning(machine: pytest.MonkeyPatch):
    row = rows_of(ray_gpus=0)["GPUs of PyTorch"]
    assert (row.verdict, row.value) == (WARNING, 2)


def test_a_failing_measurement_does_not_stop_the_others(machine: pytest.MonkeyPatch):
    def fail(device: str, size: int) -> float:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    machine.setattr(gpu, "product_flops", fail)
    rows = rows_of()
    assert rows["bf16 products"].verdict == WRONG
    assert "illegal memory access" in rows["bf16 products"].figure
    assert rows["bf16 conv3d"].verdict == OK


def test_the_measurements_run_on_a_device(monkeypatch: pytest.MonkeyPatch):
    """The real ones, on the CPU at small sizes."""
    for name, size in (("COPY_BYTES", 1 << 16), ("PRODUCT_SIDE", 16), ("CONVOLUTION_CLIPS", 1)):
        monkeypatch.setattr(gpu, name, size)
    monkeypatch.setattr(compute, "CLIP", (3, 6, 7))
    monkeypatch.setattr(compute, "REPEATS", 1)
    rows = {row.name: row for row in gpu.measured_rows(["cpu"], "unknown")}
    assert rows["conv3d"].verdict == OK
    assert all(rows[name].value for name in ("memory copy", "bf16 products", "bf16 conv3d"))
    assert rows["bf16 / float32 conv3d"].figure.endswith("times as fast")


@pytest.mark.parametrize(
    ("installed", "verdict"),
    [({"nvidia-nvjpeg": "13.3.2.43"}, OK), ({"nvidia-nvjpeg-cu13": "13.1.0"}, WRONG), ({}, WRONG)],
)
def test_the_version_of_nvjpeg(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], verdict: str):
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    row = gpu.nvjpeg()
    assert (row.section, row.verdict) == (GPU, verdict)
    assert row.figure == ("".join(installed.values()) or "no package nvidia-nvjpeg")
