"""A 2D ResNet of bottlenecks with torchvision's names, written from its definition, for tests of ImageNet weights."""

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


def torchvision_resnet(blocks: tuple[int, ...], width: int) -> State:
    """Return the state dict of a 2D ResNet of bottlenecks with torchvision's names and weights like trained ones."""
    generator = torch.Generator().manual_seed(0)
    state: State = {}

    def conv(name: str, c_out: int, c_in: int, size: int) -> None:
        deviation = (2 / (c_in * size * size)) ** 0.5
        state[f"{name}.weight"] = torch.randn(c_out, c_in, size, size, generator=generator) * deviation

    def bn(name: str, channels: int, gain: float = 1.0) -> None:
        state[f"{name}.weight"] = gain * (torch.rand(channels, generator=generator) + 0.5)
        state[f"{name}.bias"] = torch.randn(channels, generator=generator) * 0.2
        state[f"{name}.running_mean"] = torch.randn(channels, generator=generator) * 0.2
        state[f"{name}.running_var"] = torch.rand(channels, generator=generator) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(1000)

    conv("conv1", width, 3, 7)
    bn("bn1", width)
    c_in = width
    for stage, units in enumerate(blocks):
        middle, c_out = width * 2**stage, 4 * width * 2**stage
        for unit in range(units):
            prefix = f"layer{stage + 1}.{unit}"
            for i, (outs, ins, size) in enumerate(
                ((middle, c_in, 1), (middle, middle, 3), (c_out, middle, 1)), start=1
            ):
                conv(f"{prefix}.conv{i}", outs, ins, size)
                bn(f"{prefix}.bn{i}", outs, gain=0.3 if i == 3 else 1.0)
            if unit == 0:
                conv(f"{prefix}.downsample.0", c_out, c_in, 1)
                bn(f"{prefix}.downsample.1", c_out)
            c_in = c_out
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, c_in), torch.zeros(1000)
    return state


def plain_resnet(state: State, frames: Tensor, max_pool: bool) -> Tensor:
    """Return the last feature map of this 2D ResNet in evaluation mode: N x C x H x W."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, var, weight, bias, eps=1e-5)

    x = functional.relu(norm(functional.conv2d(frames, state["conv1.weight"], stride=2, padding=3), "bn1"))
    if max_pool:
        x = functional.max_pool2d(x, 3, 2, 1)
    units = dict.fromkeys(name.rsplit(".", 2)[0] for name in state if name.startswith("layer") and ".conv1." in name)
    for unit in units:
        stride = 2 if unit.endswith(".0") and not unit.startswith("layer1") else 1
        y = functional.relu(norm(functional.conv2d(x, state[f"{unit}.conv1.weight"]), f"{unit}.bn1"))
        y = functional.conv2d(y, state[f"{unit}.conv2.weight"], stride=stride, padding=1)
        y = functional.relu(norm(y, f"{unit}.bn2"))
        y = norm(functional.conv2d(y, state[f"{unit}.conv3.weight"]), f"{unit}.bn3")
        if f"{unit}.downsample.0.weight" in state:
            x = norm(functional.conv2d(x, state[f"{unit}.downsample.0.weight"], stride=stride), f"{unit}.downsample.1")
        x = functional.relu(x + y)
    return x
