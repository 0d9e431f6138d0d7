"""Sums over each clip of a batch, and linear functions with numbers per clip: the passes of batch normalization over
whole activations. What groups of clips have in common is computed from these, on arrays of N x C.

Every function takes activations N x C x T x H x W, channels-last 3D or contiguous (`memory_format`), and returns or
fills numbers N x C. On a CPU, in float32, they are loops compiled by numba: PyTorch's reductions over all but the last
dimension take three times as long there. Otherwise, and inside torch.compile, which fuses them, they are PyTorch's
operations.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor

ACTIVATION = (2, 3, 4)  # dimensions of a clip that are summed: frames, height, width


def memory_format(x: Tensor) -> torch.memory_format:
    """Return the format in which activations are computed: contiguous if they are, as those after a convolution that
    PyTorch computes so on a CPU; otherwise channels-last 3D."""
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last_3d


def moments(x: Tensor) -> Tensor:
    """Return mean and variance (divided by the count) of each clip and channel, float64: 2 x N x C."""
    if not _has_kernels(x):
        var, mean = torch.var_mean(x.float(), ACTIVATION, correction=0)
        return torch.stack([mean, var]).double()
    result = x.new_empty((2, *x.shape[:2]), dtype=torch.float64)
    _run("moments", x, _by_clip(x), *result.numpy())
    return result


def scale(x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """Return x factor + offset, in the type of x. factor, offset: N x C, float32."""
    if not _has_kernels(x):
        return torch.addcmul(_like_clips(offset), x.float(), _like_clips(factor)).to(x.dtype)
    result = torch.empty_like(x)
    _run("scale", x, _by_clip(x), factor.numpy(), offset.numpy(), _by_clip(result))
    return result


def gradient_sums(gradient: Tensor, x: Tensor, center: Tensor) -> Tensor:
    """Return the sums over each clip and channel of `gradient` and of gradient (x - center), float64: 2 x N x C.

    center: N x C, float32."""
    if not _has_kernels(x):
        gradient = gradient.float()
        products = gradient * (x.float() - _like_clips(center))
        return torch.stack([gradient.sum(ACTIVATION), products.sum(ACTIVATION)]).double()
    result = x.new_empty((2, *x.shape[:2]), dtype=torch.float64)
    _run("gradient_sums", x, _by_clip(gradient), _by_clip(x), center.numpy(), *result.numpy())
    return result


def combine(gradient: Tensor, x: Tensor, a: Tensor, *, b: Tensor, c: Tensor) -> Tensor:
    """Return a gradient + b x + c, in the type of x. a, b, c: N x C, float32."""
    if not _has_kernels(x):
        linear = torch.addcmul(_like_clips(c), x.float(), _like_clips(b))
        return torch.addcmul(linear, gradient.float(), _like_clips(a)).to(x.dtype)
    result = torch.empty_like(x)
    numbers = a.numpy(), b.numpy(), c.numpy()
    _run("combine", x, _by_clip(gradient), _by_clip(x), *numbers, _by_clip(result))
    return result


def _has_kernels(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()


def _by_clip(x: Tensor) -> Any:
    """Return activations as an array that shares their memory: N x (T H W) x C if channels-last, else N x C x T H W."""
    if x.is_contiguous():
        return x.detach().flatten(2).numpy()
    return x.detach().permute(0, 2, 3, 4, 1).flatten(1, 3).numpy()


def _like_clips(numbers: Tensor) -> Tensor:
    return numbers[:, :, None, None, None]


def _run(name: str, x: Tensor, *arrays: Any) -> None:
    """Run the kernel for the memory format of x on all clips, with as many threads as PyTorch uses."""
    from lgd.training.models import clip_kernels  # imported on use: importing numba takes half a second

    kernel = getattr(clip_kernels, f"plane_{name}" if x.is_contiguous() else name)
    clips = x.shape[0]
    threads = min(torch.get_num_threads(), clips)
    if threads <= 1:
        kernel(*arrays)
        return
    bounds = [clips * i // threads for i in range(threads + 1)]
    parts = ([array[first:last] for array in arrays] for first, last in itertools.pairwise(bounds))
    list(_pool(threads).map(lambda part: kernel(*part), parts))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="clip-sums")
