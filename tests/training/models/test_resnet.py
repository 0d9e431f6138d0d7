"""Pooling of frames, as it is compiled."""

import pytest
import torch

from lgd.training.models.resnet import FramePool, first_maximum


@pytest.mark.parametrize("frames", [2, 4])
@pytest.mark.parametrize("case", ["different", "ties", "still", "nan"])
def test_the_compiled_maximum_is_that_of_max_pool3d_also_at_ties(frames: int, case: str):
    x = torch.randn(2, 3, 8, 4, 5, dtype=torch.float64)
    if case == "ties":
        x = x.round().clamp(min=0)
    if case == "still":
        x = x[:, :, :1].expand(x.shape).contiguous()
    if case == "nan":
        x[x > 1] = torch.nan
    results = []
    for pool in (FramePool(frames), lambda video: first_maximum(video, frames)):
        inputs = x.clone().requires_grad_()
        output = pool(inputs)
        output.backward(torch.arange(output.numel(), dtype=torch.float64).reshape(output.shape))
        results.append((output.detach(), inputs.grad))
    torch.testing.assert_close(*results, rtol=0, atol=0, equal_nan=True)


def test_torch_maximum_would_divide_the_gradient_at_ties():
    x = torch.ones(1, 1, 2, 1, 1, requires_grad=True)
    torch.maximum(x[:, :, 0], x[:, :, 1]).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0.5, 0.5]
    x = torch.ones(1, 1, 2, 1, 1, requires_grad=True)
    first_maximum(x, 2).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1, 0]
