"""The NVIDIA driver of this machine, read without PyTorch, and the oldest driver that a version of CUDA works with.

Uses only the standard library and nothing of `lgd`: `lgd doctor` sends this code to nodes that may have another one."""

import ctypes
import re
import subprocess
from pathlib import Path

KERNEL_MODULE = Path("/proc/driver/nvidia/version")
LIBRARY = "libnvidia-ml.so.1"  # NVML, a part of the driver
VERSION_BYTES = 80  # maximum length of NVML's text
TIMEOUT_S = 10.0  # nvidia-smi waits for ever if the driver hangs
DEFAULT_CUDA = "13.0"  # of the builds of PyTorch and DALI that lgd requires
MINIMUM_DRIVERS = {"11": "450.80", "12": "525.60", "13": "580"}  # by the major version of CUDA, on Linux


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver, such as 580.65.06; None if there is none or it does not respond."""
    return _of_kernel_module() or _of_nvidia_smi() or _of_library()


def minimum_driver(cuda: str | None) -> str:
    """Return the oldest driver that works with a version of CUDA, such as 13.0; by default, the one that lgd needs."""
    major = (cuda or DEFAULT_CUDA).partition(".")[0]
    return MINIMUM_DRIVERS.get(major, MINIMUM_DRIVERS[max(MINIMUM_DRIVERS, key=int)])


def is_older(version: str, minimum: str) -> bool:
    """Return whether a version, numbers joined by dots, is older than another one."""
    return _numbers(version) < _numbers(minimum)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _of_kernel_module() -> str | None:
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", KERNEL_MODULE.read_text())
    except OSError:
        return None
    return found[1] if found else None


def _of_nvidia_smi() -> str | None:
    """The version that nvidia-smi prints; on Windows Subsystem for Linux there is no kernel module."""
    lines = query_gpus("driver_version")
    return lines[0][0] if lines and re.fullmatch(r"[\d.]+", lines[0][0]) else None


def _of_library() -> str | None:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    if library.nvmlInit_v2():
        return None
    try:
        text = ctypes.create_string_buffer(VERSION_BYTES)
        return None if library.nvmlSystemGetDriverVersion(text, VERSION_BYTES) else text.value.decode()
    finally:
        library.nvmlShutdown()


def query_gpus(*fields: str) -> list[list[str]]:
    """Return the values of fields of nvidia-smi, such as name, for each GPU; empty if it is missing or fails."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    values = [[value.strip() for value in line.split(",")] for line in lines]
    return [each for each in values if len(each) == len(fields)]
