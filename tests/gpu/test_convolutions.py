"""The convolutions of the networks on a GPU, as 3D and as 2D convolutions, compared with float64 on the CPU."""

import pytest
import torch

from lgd.training.models.convolutions import FlatConv3d, usable_convolutions
from lgd.training.steps.device_settings import use_float32
from tests.training.models.layers import Layer, all_layers

# Largest difference / largest value: rounding of the inputs, weights and results.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("convolutions", ["3d", "2d"])
@pytest.mark.parametrize("layer", all_layers(), ids=str)
def test_results_and_gradients_are_those_of_float64(
    gpu: torch.device, layer: Layer, convolutions: str, dtype: torch.dtype
):
    use_float32()
    if usable_convolutions("3d", "bfloat16", gpu) != convolutions == "3d" and dtype == torch.bfloat16:
        pytest.skip("lgd does not use 3D convolutions with this cuDNN")
    torch.manual_seed(0)
    conv = FlatConv3d(layer.c_in, layer.c_out, layer.kernel, layer.stride, layer.padding, bias=False)
    x = torch.randn(2, layer.c_in, 4, 14, 14)
    conv.weight.data, x = conv.weight.data.to(dtype).float(), x.to(dtype).float()  # the same numbers in each precision
    results = []
    for device, kind in ((torch.device("cpu"), torch.float64), (gpu, dtype)):
        conv.as_2d = device.type == "cuda" and convolutions == "2d"
        conv.to(device=device, dtype=kind, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing
        conv.zero_grad()
        inputs = x.to(device, kind).to(memory_format=torch.channels_last_3d).requires_grad_()
        output = conv(inputs)
        weights = torch.arange(output.numel()).cos().to(dtype).reshape(output.shape)
        output.backward(weights.to(device, kind))
        assert inputs.grad is not None
        assert conv.weight.grad is not None
        results.append([tensor.detach().double().cpu() for tensor in (output, inputs.grad, conv.weight.grad)])
    for exact, computed in zip(*results, strict=True):
        assert (computed - exact).abs().max() <= TOLERANCE[dtype] * exact.abs().max()
