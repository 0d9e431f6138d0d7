"""What the processor or a GPU computes, and how fast: 3D convolutions against float64, memory, matrix products.

`device` is a device of PyTorch, and `dtype` a type of PyTorch."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lgd.clusters.doctor import advice
from lgd.clusters.doctor.rows import NODE, OK, WRONG, Row, attempt, speed

# Input channels, output channels, kernel (T, H, W): the spatial, the temporal and the first convolution of LGD-3D.
CONVOLUTIONS = ((32, 32, (1, 3, 3)), (32, 32, (3, 1, 1)), (3, 32, (1, 7, 7)))
CLIP = (8, 28, 28)  # T, H, W of the input
# Largest error of an output or a gradient, relative to the largest value. A bfloat16 has 8 bits.
TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-2}
COPY_BYTES, LEAST_CPU_COPY_GBS = 256 << 20, 2.0
REPEATS = 5


class Card(NamedTuple):
    """A GPU by a part of its name. copy_tbs: TB/s of its memory. tflops: of its dense bfloat16 matrix products."""

    name: str
    copy_tbs: float
    tflops: float


# As NVIDIA's data sheets say; the first one whose name fits counts.
CARDS = (
    Card("B200", 8.0, 2250),
    Card("GH200", 4.0, 989),
    Card("H200", 4.8, 989),
    Card("H100 PCIe", 2.0, 756),
    Card("H100 NVL", 3.9, 835),
    Card("H100", 3.35, 989),
    Card("A100-SXM4-80GB", 2.04, 312),
    Card("A100 80GB", 1.94, 312),
    Card("A100", 1.55, 312),
    Card("L40S", 0.864, 362),
    Card("L40", 0.864, 181),
    Card("L4", 0.3, 121),
    Card("A10G", 0.6, 70),
    Card("A10", 0.6, 125),
    Card("RTX 4090", 1.01, 165),
    Card("RTX 3090", 0.936, 71),
)
COPY_SHARE, PRODUCT_SHARE = 0.7, 0.5  # of the data sheet, below which a GPU is slow


def cpu_rows() -> Iterator[Row]:
    """Yield the rows of the processor."""
    yield from attempt(NODE, "conv3d, CPU", lambda: convolutions(NODE, "conv3d, CPU", "cpu", dtypes=("float32",)))
    yield from attempt(NODE, "memory copy, CPU", cpu_copy)


def cpu_copy() -> Row:
    """Speed of a copy in memory with all threads."""
    value = copy_bytes_per_s("cpu", COPY_BYTES) / 1e9
    return speed(NODE, "memory copy, CPU", value, unit="GB/s", least=LEAST_CPU_COPY_GBS, advice=advice.SLOWER)


def convolutions(section: str, name: str, device: str, *, dtypes: tuple[str, ...]) -> Row:
    """Compare three 3D convolutions and their gradients with float64 on the CPU."""
    errors = {dtype: max(convolution_error(device, dtype, number) for number in range(3)) for dtype in dtypes}
    figure = ", ".join(f"{dtype} {error:.0e}" for dtype, error in errors.items())
    wrong = [dtype for dtype, error in errors.items() if not error <= TOLERANCES[dtype]]  # also if it is NaN
    allowed = ", ".join(f"{TOLERANCES[dtype]:.0e}" for dtype in wrong)
    if wrong:
        text = f"relative error {figure}; at most {allowed} is expected of {' and '.join(wrong)}"
        return Row(section, name, text, WRONG, advice.CONVOLUTIONS)
    return Row(section, name, f"3 as in float64 (relative error {figure})", OK)


def convolution_error(device: str, dtype: str, number: int) -> float:
    """Return the largest error of a convolution's output and gradients, relative to the largest value of each."""
    import torch

    channels, filters, kernel = CONVOLUTIONS[number]
    generator = torch.Generator().manual_seed(number)
    inputs = torch.randn(1, channels, *CLIP, generator=generator).to(getattr(torch, dtype))
    weight = torch.randn(filters, channels, *kernel, generator=generator).to(getattr(torch, dtype))

    def results(on: str, kind: Any) -> list[Any]:
        leaves = [each.to(on, kind).requires_grad_() for each in (inputs, weight)]
        clip = leaves[0].to(memory_format=torch.channels_last_3d)
        output = torch.nn.functional.conv3d(clip, leaves[1], padding=tuple(side // 2 for side in kernel))
        # The same gradient in all types: cos(0), cos(1), ... at the precision of the type.
        ones = torch.arange(output.numel()).cos().reshape(output.shape).to(getattr(torch, dtype)).to(on, kind)
        return [output.detach(), *torch.autograd.grad(output, leaves, ones)]

    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        found = results(device, getattr(torch, dtype))
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    expected = results("cpu", torch.float64)
    return max(
        float((one.double().cpu() - other).abs().max() / other.abs().max())
        for one, other in zip(found, expected, strict=True)
    )


def copy_bytes_per_s(device: str, size: int) -> float:
    """Return the bytes read and written per second by a copy of `size` bytes on the device."""
    import torch

    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds_of(lambda: target.copy_(source), device)


def product_flops(device: str, side: int) -> float:
    """Return the floating-point operations per second of the product of two square matrices of bfloat16."""
    import torch

    one = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / seconds_of(lambda: one @ one, device)


def convolution_flops(device: str, dtype: str, clips: int) -> float:
    """Return the floating-point operations per second of a spatial convolution of LGD-3D's second stage."""
    import torch

    kind = getattr(torch, dtype)
    clip = torch.randn(clips, 64, 8, 56, 56, device=device, dtype=kind).to(memory_format=torch.channels_last_3d)
    weight = torch.randn(64, 64, 1, 3, 3, device=device, dtype=kind).to(memory_format=torch.channels_last_3d)
    taken = seconds_of(lambda: torch.nn.functional.conv3d(clip, weight, padding=(0, 1, 1)), device)
    return 2 * clip.numel() * 64 * 9 / taken


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Return the median time of `work` on the device, after it ran once to warm up."""
    import torch

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)

    work()
    wait()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def card_named(name: str) -> Card | None:
    """Return the data of the GPU with this name, or None if it is not listed."""
    return next((card for card in CARDS if card.name in name), None)
