"""Sums and linear functions of clips, in both memory formats, against float64."""

import pytest
import torch
from torch import Tensor

from lgd.training.models import clip_sums
from lgd.training.models.clip_kernels import PLANE, ROWS

SIZES = [
    (3, 5, 2, 3, 4),
    (2, 16, 1, 1, 1),  # a clip is one number per channel
    (1, 3, 1, 1, PLANE + 1),  # more than one part of a plane
    (2, 4, 3, ROWS, 2),  # more than one part of the rows
    (5, 1, 4, 3, 3),  # one channel: contiguous and channels-last at once
]
FORMATS = [torch.contiguous_format, torch.channels_last_3d]


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def _threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def of_clips(numbers: Tensor) -> Tensor:
    return numbers[:, :, None, None, None]


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_every_function_agrees_with_float64_and_keeps_the_memory_format(
    size: tuple[int, ...], memory_format: torch.memory_format
):
    torch.manual_seed(0)
    x, gradient = (torch.randn(size).add_(3).contiguous(memory_format=memory_format) for _ in range(2))
    a, b, c = torch.randn(3, *size[:2]).unbind()
    exact_x, exact_gradient = x.double(), gradient.double()

    mean, var = clip_sums.moments(x)
    torch.testing.assert_close(mean, exact_x.mean((2, 3, 4)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var, exact_x.var((2, 3, 4), correction=0), rtol=1e-5, atol=1e-6)

    total, products = clip_sums.gradient_sums(gradient, x, a)
    torch.testing.assert_close(total, exact_gradient.sum((2, 3, 4)), rtol=1e-6, atol=1e-5)
    exact = (exact_gradient * (exact_x - of_clips(a))).sum((2, 3, 4))
    torch.testing.assert_close(products, exact, rtol=1e-5, atol=1e-4)

    scaled, combined = clip_sums.scale(x, a, b), clip_sums.combine(gradient, x, a, b=b, c=c)
    torch.testing.assert_close(scaled, x * of_clips(a) + of_clips(b), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(combined, gradient * of_clips(a) + x * of_clips(b) + of_clips(c), rtol=1e-5, atol=1e-5)
    assert scaled.stride() == combined.stride() == x.stride()


def test_the_format_of_other_activations_is_channels_last():
    x = torch.randn(2, 3, 4, 5, 6)
    assert clip_sums.memory_format(x) == torch.contiguous_format
    assert clip_sums.memory_format(x.contiguous(memory_format=torch.channels_last_3d)) == torch.channels_last_3d
    assert clip_sums.memory_format(x.transpose(3, 4)) == torch.channels_last_3d
