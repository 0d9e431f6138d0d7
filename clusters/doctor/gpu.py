"""The GPUs of a node: driver, builds, and what they compute."""

import importlib.metadata
import statistics
from collections.abc import Callable, Iterator
from functools import partial

from lgd.clusters.doctor import advice
from lgd.clusters.doctor.compute import (
    COPY_SHARE,
    PRODUCT_SHARE,
    card_named,
    convolution_flops,
    convolutions,
    copy_bytes_per_s,
    product_flops,
)
from lgd.clusters.doctor.rows import ABSENT, GPU, OK, SLOW, WARNING, WRONG, Row, attempt, speed
from lgd.pipeline.nvidia import driver_version, is_older, minimum_driver, query_gpus

USABLE = "GPUs of PyTorch"  # name of the row whose value is the number of GPUs that PyTorch can use
MINIMUM_CAPABILITY = (7, 5)
MINIMUM_CUDNN = 91500
COPY_BYTES, PRODUCT_SIDE, CONVOLUTION_CLIPS = 1 << 30, 8192, 16
UNEVEN = 0.8  # of the median of a node's GPUs, below which one of them is slow


def gpu_rows(ray_gpus: int) -> Iterator[Row]:
    """Yield the rows of the GPUs. ray_gpus: that Ray offers on this node."""
    driver = driver_version()
    listed = query_gpus("name", "memory.total", "mig.mode.current")
    if driver is None and not ray_gpus:
        yield Row(GPU, "GPU", "none, no NVIDIA driver", ABSENT)
        return
    yield from attempt(GPU, "driver", lambda: driver_row(driver))
    if listed:
        yield from listed_rows(listed)
    usable = attempt(GPU, USABLE, lambda: usable_row(driver, ray_gpus, listed=len(listed)))
    yield from usable
    if usable[0].value:
        yield from attempt(GPU, "capability", capability)
        yield from attempt(GPU, "cuDNN", cudnn)
        devices = [f"cuda:{number}" for number in range(int(usable[0].value))]
        yield from measured_rows(devices, _name(devices[0]))


def driver_row(driver: str | None) -> Row:
    """Whether the driver is new enough for the CUDA of PyTorch."""
    cuda = _cuda()
    minimum = minimum_driver(cuda)
    needs = f"CUDA {cuda or 13} needs {minimum} or later"
    if driver is None:
        return Row(GPU, "driver", f"no NVIDIA driver; {needs}", WRONG, advice.driver_advice(minimum))
    if is_older(driver, minimum):
        return Row(GPU, "driver", f"{driver} is too old; {needs}", WRONG, advice.driver_advice(minimum))
    return Row(GPU, "driver", f"{driver} ({needs})", OK)


def _cuda() -> str | None:
    """The version of CUDA that the installed PyTorch was built with."""
    try:
        import torch
    except ImportError:
        return None
    return torch.version.cuda


def listed_rows(listed: list[list[str]]) -> Iterator[Row]:
    """The names of the GPUs, and whether they are divided. listed: name, MiB and MIG mode of each."""
    names = [f"{name}, {float(size) / 1024:.0f} GiB" if size.isdigit() else name for name, size, _ in listed]
    yield Row(GPU, "GPUs", ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)))
    divided = [str(number) for number, (*_, mode) in enumerate(listed) if mode == "Enabled"]
    figure = f"on for GPU {', '.join(divided)}" if divided else "off"
    yield Row(GPU, "MIG", figure, WARNING if divided else OK, advice.MIG if divided else "")


def usable_row(driver: str | None, ray_gpus: int, listed: int) -> Row:
    """The number of GPUs that PyTorch can use, beside those that Ray offers. listed: GPUs that nvidia-smi lists."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    figure = f"{count} with PyTorch {torch.__version__} ({build}); Ray offers {ray_gpus}"
    if count < max(ray_gpus, 1):
        minimum = minimum_driver(torch.version.cuda)
        old = driver is None or is_older(driver, minimum)
        todo = advice.driver_advice(minimum) if old and torch.version.cuda else advice.GPU_COUNT
        return Row(GPU, USABLE, figure, WRONG if ray_gpus else WARNING, todo, float(count))
    if ray_gpus < max(count, listed):
        return Row(GPU, USABLE, figure, WARNING, advice.GPU_HIDDEN, float(count))
    return Row(GPU, USABLE, figure, OK, "", float(count))


def capability() -> Row:
    """The lowest compute capability of the GPUs."""
    import torch

    lowest = min(torch.cuda.get_device_capability(number) for number in range(torch.cuda.device_count()))
    old = lowest < MINIMUM_CAPABILITY
    figure = "{}.{}".format(*lowest)
    return Row(GPU, "capability", figure, WRONG if old else OK, advice.GPU_CAPABILITY if old else "")


def cudnn() -> Row:
    """The version of cuDNN."""
    import torch

    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if version is None:
        return Row(GPU, "cuDNN", "PyTorch has none", WRONG, advice.CUDNN)
    figure = f"{version // 10000}.{version // 100 % 100}.{version % 100}"
    old = version < MINIMUM_CUDNN
    return Row(GPU, "cuDNN", figure, WRONG if old else OK, advice.CUDNN if old else "")


def _name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device)


def measured_rows(devices: list[str], model: str) -> Iterator[Row]:
    """What each GPU computes, and how fast: a row for all of them, with the lowest speed. model: name of the GPUs."""
    card = card_named(model)
    yield from attempt(GPU, "free memory", lambda: free_memory(len(devices)))
    for number, device in enumerate(devices):
        name = "conv3d" if len(devices) == 1 else f"conv3d, GPU {number}"
        yield from attempt(GPU, name, partial(convolutions, GPU, name, device, dtypes=("float32", "bfloat16")))
    for name, unit, least, measure in (
        ("memory copy", "TB/s", COPY_SHARE * card.copy_tbs if card else 0, _copy),
        ("bf16 products", "TFLOP/s", PRODUCT_SHARE * card.tflops if card else 0, _product),
        ("bf16 conv3d", "TFLOP/s", 0.0, _convolution),
    ):
        yield from attempt(GPU, name, partial(slowest, name, measure, devices, unit=unit, least=least))
    yield from attempt(GPU, "bf16 / float32 conv3d", lambda: gain_of_bfloat16(devices[0]))


def _copy(device: str) -> float:
    return copy_bytes_per_s(device, COPY_BYTES)


def _convolution(device: str) -> float:
    return convolution_flops(device, "bfloat16", CONVOLUTION_CLIPS)


def _product(device: str) -> float:
    return product_flops(device, PRODUCT_SIDE)


def free_memory(gpus: int) -> Row:
    """The least free memory of the GPUs: other programs may use them."""
    import torch

    free, total = min(torch.cuda.mem_get_info(number) for number in range(gpus))
    used = free < 0.9 * total
    figure = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB"
    return Row(GPU, "free memory", figure, WARNING if used else OK, advice.BUSY if used else "", free / 2**30, "GiB")


def slowest(
    name: str, measure: Callable[[str], float], devices: list[str], *, unit: str, least: float, scale: float = 1e-12
) -> Row:
    """The lowest speed of the devices. Slow if it is below `least`, or far below that of the others."""
    values = [measure(device) * scale for device in devices]
    row = speed(GPU, name, min(values), unit=unit, least=least, advice=advice.GPU_SLOW)
    below = [number for number, value in enumerate(values) if value < UNEVEN * statistics.median(values)]
    if below:
        figure = f"{row.figure} on GPU {', '.join(map(str, below))}; the median is {statistics.median(values):.3g}"
        return row._replace(figure=figure, verdict=SLOW, advice=advice.GPU_SLOW)
    return row


def gain_of_bfloat16(device: str) -> Row:
    """How many times as fast a convolution is in bfloat16: without the tensor cores it is slower than in float32."""
    fast, exact = (convolution_flops(device, dtype, CONVOLUTION_CLIPS) for dtype in ("bfloat16", "float32"))
    slow = fast < exact
    figure = f"{fast / exact:.1f} times as fast"
    return Row(GPU, "bf16 / float32 conv3d", figure, SLOW if slow else OK, advice.CUDNN if slow else "")


def nvjpeg() -> Row:
    """The version of nvJPEG, the decoder of JPEGs on a GPU."""
    for name in ("nvidia-nvjpeg", "nvidia-nvjpeg-cu13", "nvidia-nvjpeg-cu12"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        old = is_older(version, "13.2")
        return Row(GPU, "nvJPEG", version, WRONG if old else OK, advice.NVJPEG if old else "")
    return Row(GPU, "nvJPEG", "no package nvidia-nvjpeg", WRONG, advice.NVJPEG)
