"""The GPU: its name, driver and the versions of what uses it; the speed of its memory and of its matrix products."""

import importlib.metadata
import os
import platform
from collections.abc import Callable
from typing import Any

from lgd.benchmarks.gpu.rows import COPY, PRODUCT, Measured, Row
from lgd.clusters.doctor.compute import card_named, copy_bytes_per_s, product_flops

PACKAGES = {  # what a version is called -> distributions, the first one that is installed counts
    "dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    "nvjpeg": ("nvidia-nvjpeg", "nvidia-nvjpeg-cu13", "nvidia-nvjpeg-cu12"),
    "triton": ("triton",),
    "ray": ("ray",),
    "numpy": ("numpy",),
}
COPY_BYTES, SIDE = 4 << 30, 8192  # bytes of a copied tensor; rows and columns of the matrices
COPY_SHARE, PRODUCT_SHARE = 0.85, 0.7  # of the data sheet: what a GPU that is not shared or throttled reaches


def probe() -> dict[str, Any]:
    """Return the name of the GPU, its driver, and versions.

    Raises UserError, with the reason, if PyTorch cannot use a GPU."""
    import torch

    from lgd import __version__
    from lgd.pipeline.nvidia import driver_version
    from lgd.training.gpu import check_gpu

    check_gpu()
    properties = torch.cuda.get_device_properties(0)
    cudnn = torch.backends.cudnn.version() or 0  # type: ignore[no-untyped-call]
    return {
        "card": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver_version(),
        "lgd": __version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": f"{cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}" if cudnn else None,
        **{name: installed_version(*distributions) for name, distributions in PACKAGES.items()},
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
    }


def installed_version(*distributions: str) -> str | None:
    """Return the version of the first of these distributions that is installed; None if none is."""
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def speeds(measured: Measured) -> list[Row]:
    """Measure a copy in the GPU's memory, TB/s read and written, and bfloat16 matrix products, TFLOP/s."""
    import torch

    card = card_named(measured.card)
    free, _ = torch.cuda.mem_get_info()
    copied = copy_bytes_per_s("cuda", min(COPY_BYTES, free // 4)) / 1e12
    product = product_flops("cuda", SIDE) / 1e12
    bounds = (card.copy_tbs, card.tflops) if card else (None, None)
    goals = [bound and share * bound for bound, share in zip(bounds, (COPY_SHARE, PRODUCT_SHARE), strict=True)]
    return [
        Row(COPY, copied, "TB/s", bounds[0], goals[0]),
        Row(PRODUCT, product, "TFLOP/s", bounds[1], goals[1]),
    ]


def seconds_each(work: Callable[[], object], repeats: int, *, warm_up: int) -> float:
    """Return the time of `work` on the GPU, by its own clock: the mean over repeats that are queued one after the
    other, so that what the CPU does counts only where the GPU waits for it."""
    import torch

    for _ in range(warm_up):
        work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    milliseconds: float = begin.elapsed_time(end)
    return milliseconds / 1e3 / repeats
