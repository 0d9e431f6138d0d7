"""The version of the NVIDIA driver, from pretended drivers."""

import os
from pathlib import Path

import pytest

from lgd.pipeline import nvidia

KERNEL_MODULES = {
    "closed": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Wed Jul 16 23:42:10 UTC 2025\n",
    "open": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\n",
}


@pytest.fixture(autouse=True)
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a driver."""
    monkeypatch.setattr(nvidia, "KERNEL_MODULE", tmp_path / "missing")
    monkeypatch.setattr(nvidia, "LIBRARY", str(tmp_path / "missing.so"))
    monkeypatch.setenv("PATH", str(tmp_path))


def pretend_nvidia_smi(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize("kind", KERNEL_MODULES)
def test_the_version_of_the_kernel_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    file = tmp_path / "version"
    file.write_text(f"{KERNEL_MODULES[kind]}GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n")
    monkeypatch.setattr(nvidia, "KERNEL_MODULE", file)
    assert nvidia.driver_version() == "580.65.06"


def test_the_version_of_nvidia_smi_where_there_is_no_kernel_module(tmp_path: Path):
    pretend_nvidia_smi(tmp_path, 'test "$1" = --query-gpu=driver_version && echo 550.54.14 && echo 550.54.14')
    assert nvidia.driver_version() == "550.54.14"
    assert nvidia.query_gpus("driver_version") == [["550.54.14"], ["550.54.14"]]


@pytest.mark.parametrize(
    "script",
    [
        'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; exit 9',
        "echo Unable to determine the device handle for GPU0: Unknown Error",
        "exit 0",
    ],
)
def test_a_failing_nvidia_smi_is_no_version(tmp_path: Path, script: str):
    pretend_nvidia_smi(tmp_path, script)
    assert nvidia.driver_version() is None


def test_a_hanging_nvidia_smi_is_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nvidia, "TIMEOUT_S", 0.1)
    pretend_nvidia_smi(tmp_path, "exec /bin/sleep 30")
    assert nvidia.driver_version() is None


def test_a_machine_without_a_driver_has_none():
    assert os.environ["PATH"]
    assert nvidia.driver_version() is None
    assert nvidia.query_gpus("name", "driver_version") == []


@pytest.mark.parametrize(
    ("version", "minimum", "older"),
    [
        ("579.99.99", "580", True),
        ("580", "580", False),
        ("580.65.06", "580", False),
        ("525.60.13", "525.60", False),
        ("525.9", "525.60", True),  # numbers, not text
        ("1000.1", "580", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, minimum: str, older: bool):
    assert nvidia.is_older(version, minimum) is older


def test_the_oldest_driver_of_each_version_of_cuda():
    assert [nvidia.minimum_driver(cuda) for cuda in ("13.0", "12.8", "14.1", None)] == ["580", "525.60", "580", "580"]
