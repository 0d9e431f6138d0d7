"""3D convolutions computed as 2D convolutions: equal, and without copies."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from lgd.training.models.config import ModelConfig
from lgd.training.models.convolutions import (
    FIRST_CUDNN,
    FlatConv3d,
    as_frames,
    as_images,
    as_rows,
    set_convolutions,
    usable_convolutions,
)
from lgd.training.models.lgd import Network
from lgd.training.models.zoo import build
from tests.training.models.layers import Layer, all_layers, layers_of

CHANNELS_LAST = torch.channels_last_3d


def convolution(layer: Layer) -> FlatConv3d:
    return FlatConv3d(layer.c_in, layer.c_out, layer.kernel, layer.stride, layer.padding, bias=False)


def test_the_networks_have_70_convolutions_and_all_are_flat():
    assert len(layers_of(ModelConfig("lgd3d_r50"), 3)) == 70
    assert {layer.kernel for layer in all_layers()} == {(1, 1, 1), (1, 3, 3), (1, 7, 7), (3, 1, 1)}
    assert {layer.stride for layer in all_layers()} == {(1, 1, 1), (1, 2, 2)}


@pytest.mark.parametrize("kernel", sorted({(layer.kernel, layer.stride) for layer in all_layers()}))
def test_every_layer_of_every_network_equals_the_3d_convolution(kernel: tuple[tuple[int, ...], tuple[int, ...]]):
    layers = [layer for layer in all_layers() if (layer.kernel, layer.stride) == kernel]
    assert layers
    for layer in layers:
        conv = convolution(layer).double()
        conv.to(memory_format=CHANNELS_LAST)  # type: ignore[call-overload]  # missing in torch
        x = torch.randn(1, layer.c_in, 2, 4, 3, dtype=torch.float64).to(memory_format=CHANNELS_LAST)
        results = []
        for as_2d in (False, True):
            conv.as_2d = as_2d
            conv.zero_grad()
            inputs = x.clone().requires_grad_()
            output = conv(inputs)
            gradient = torch.arange(output.numel(), dtype=torch.float64).cos().reshape(output.shape)
            output.backward(gradient)
            assert conv.weight.grad is not None
            results.append((output.detach(), inputs.grad, conv.weight.grad.clone()))
        for of_3d, of_2d in zip(*results, strict=True):
            assert of_3d.shape == of_2d.shape
            torch.testing.assert_close(of_2d, of_3d, rtol=1e-10, atol=1e-10, msg=f"{layer}")
        assert results[1][0].is_contiguous(memory_format=CHANNELS_LAST)


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_views_share_the_memory_of_the_video(clips: int, dtype: torch.dtype):
    x = torch.randn(clips, 8, 4, 5, 3).to(dtype).to(memory_format=CHANNELS_LAST)
    rows, frames, images = as_rows(x), as_frames(x), as_images(x)
    assert rows.data_ptr() == frames.data_ptr() == images.data_ptr() == x.data_ptr()
    assert rows.is_contiguous()
    assert frames.is_contiguous(memory_format=torch.channels_last)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert frames.shape == (clips * 4, 8, 5, 3)
    assert images.shape == (clips, 8, 4, 15)
    assert torch.equal(frames[3], x[0, :, 3])
    assert torch.equal(images[-1, :, 2, 7], x[-1, :, 2, 2, 1])


@pytest.mark.parametrize("name", ["small3d", "small2d"])
@pytest.mark.usefixtures("small")
def test_a_network_and_its_gradients_do_not_depend_on_the_choice(name: str):
    config = ModelConfig(name)
    networks = [build(dataclasses.replace(config, convolutions=choice), 3, channels=2) for choice in ("3d", "2d")]
    networks[1].load_state_dict(networks[0].state_dict())
    assert list(networks[0].state_dict()) == list(networks[1].state_dict())
    video = torch.randn(1, 2, config.clip_frames, 16, 16, dtype=torch.float64)
    results = []
    for network in networks:
        network.double()
        losses = network.loss(network(video), torch.tensor([2]))
        losses.total.backward()
        results.append([losses.total.detach(), *(parameter.grad for parameter in network.parameters())])
    torch.testing.assert_close(*results, rtol=1e-7, atol=1e-8)
    assert calls_3d(networks[0], video) > 0
    assert calls_3d(networks[1], video) == 0
    set_convolutions(networks[1], "3d")
    assert calls_3d(networks[1], video) > 0


def calls_3d(network: Network, video: torch.Tensor) -> int:
    """Return how often a network calls a 3D convolution."""
    calls = 0

    class Count(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal calls
            calls += function in (functional.conv3d, torch.conv3d)
            return function(*args, **(kwargs or {}))

    with Count(), torch.no_grad():
        network(video)
    return calls


def test_2d_replaces_3d_only_for_bfloat16_with_an_old_cudnn(monkeypatch: pytest.MonkeyPatch):
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    for version, expected in ((FIRST_CUDNN - 1, "2d"), (None, "2d"), (FIRST_CUDNN, "3d"), (92000, "3d")):
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda version=version: version)
        assert usable_convolutions("3d", "bfloat16", gpu) == expected
        assert usable_convolutions("3d", "float32", gpu) == "3d"
        assert usable_convolutions("3d", "bfloat16", cpu) == "3d"
        assert usable_convolutions("2d", "bfloat16", gpu) == "2d"
