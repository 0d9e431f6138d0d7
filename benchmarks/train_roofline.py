"""The bound of a training step: its operations at the speed of matrix products, plus the bytes that its kernels read
and write at the speed of the memory.

Bytes count each tensor once for every kernel that reads or writes it, 2 bytes a number (bfloat16). Eager: every
convolution, batch normalization, ReLU, sum and pooling is a kernel of its own. Fused: what lies between convolutions is
part of the kernel before or after it, as torch.compile does.

    python -m lgd.benchmarks.train_roofline lgd3d_r50
"""

import math
import sys
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lgd.training.models.config import ModelConfig
from lgd.training.models.lgd import Block, Network
from lgd.training.models.resnet import FramePool

REACHABLE_TFLOPS = {"H100": 790.0, "H200": 790.0}  # of bfloat16 matrix products; data sheets say 989
MEMORY_TB_PER_S = {"H100": 3.0, "H200": 4.3}  # of a copy
NUMBER, INDEX = 2, 8  # bytes


class StepCost(NamedTuple):
    """Cost of one clip."""

    forward_flop: float
    """Floating-point operations of the forward pass, two for each multiply-accumulate."""
    step_flop: float
    """Those of a step: the gradient of the weights and of the input cost as much each; the video needs no gradient."""
    eager_bytes: dict[str, float]
    """Bytes of a step by kind of kernel: convolutions with normalization and ReLU, glue of the blocks, pools."""
    fused_bytes: dict[str, float]
    """The same with fused kernels."""

    def clips_per_s(self, card: str, *, fused: bool, overlapped: bool = False) -> float:
        """Return the bound for a GPU. overlapped: arithmetic and memory work at the same time, completely."""
        arithmetic = self.step_flop / (REACHABLE_TFLOPS[card] * 1e12)
        moved = sum((self.fused_bytes if fused else self.eager_bytes).values())
        memory = moved / (MEMORY_TB_PER_S[card] * 1e12)
        return 1 / (max(arithmetic, memory) if overlapped else arithmetic + memory)


def step_cost(config: ModelConfig, classes: int, channels: int, *, size: int | None = None) -> StepCost:
    """Return the cost of a clip, from the shapes of a forward pass on the meta device. size: of the crop, pixels."""
    with torch.device("meta"):
        network = Network(config, classes, channels)
    network.to("meta").eval()
    numbers: dict[nn.Module, tuple[int, int]] = {}  # of input and output

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        first = output[0] if isinstance(output, tuple) else output
        numbers[module] = (inputs[0].numel(), first.numel())

    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear | nn.MaxPool3d | Block):
            module.register_forward_hook(add)
    side = size or config.family.size
    with torch.no_grad():
        network(torch.empty((1, channels, config.clip_frames, side, side), device="meta"))

    flop = {
        module: 2.0 * output * math.prod(module.weight.shape[1:])
        for module, (_, output) in numbers.items()
        if isinstance(module, nn.Conv3d | nn.Linear)
    }
    first = network.stem.spatial.conv
    step_flop = 3 * sum(flop.values()) - flop[first]
    with_relu = {
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv3d) and ".expand." not in name and ".shortcut." not in name
    }
    convolutions = [pair for module, pair in numbers.items() if isinstance(module, nn.Conv3d)]
    blocks = [pair for module, pair in numbers.items() if isinstance(module, Block)]
    pools = [
        (*pair, isinstance(module, FramePool)) for module, pair in numbers.items() if isinstance(module, nn.MaxPool3d)
    ]
    read, written = (sum(pair[i] for pair in convolutions) for i in (0, 1))
    block_in, block_out = (sum(pair[i] for pair in blocks) for i in (0, 1))
    no_gradient = sum(numbers[first])  # of the video
    # A convolution reads its input and writes its output, then for the gradient of its input reads that of its output
    # and writes, and for that of its weights reads both. Normalization: three passes over the output forward (moments
    # are a pass of their own), five backward; ReLU: two and three.
    eager = 3 * read + 11 * written + 5 * sum(numbers[module][1] for module in with_relu) - no_gradient
    fused = 3 * read + 10 * written - no_gradient
    eager_pools = sum(3 * x + 2 * y + 2 * (INDEX // NUMBER) * y for x, y, _ in pools)
    fused_pools = sum(3 * x + 2 * y + (0 if over_frames else 2 * (INDEX // NUMBER) * y) for x, y, over_frames in pools)
    return StepCost(
        sum(flop.values()),
        step_flop,
        {
            "conv+BN+ReLU": float(NUMBER * eager),
            "block glue": float(NUMBER * (16 * block_out + 3 * block_in)),
            "pools": float(NUMBER * eager_pools),
        },
        {
            "conv+BN+ReLU": float(NUMBER * fused),
            "block glue": float(NUMBER * (6 * block_out + 2 * block_in)),
            "pools": float(NUMBER * fused_pools),
        },
    )


def main() -> None:
    """Print the table of a network."""
    name = sys.argv[1] if len(sys.argv) > 1 else "lgd3d_r50"
    cost = step_cost(ModelConfig(name), 400, 3)
    print(f"{name}: {cost.forward_flop / 1e9:.1f} GFLOP forward, {cost.step_flop / 1e9:.1f} a step, per clip")
    for title, parts in (("eager", cost.eager_bytes), ("fused", cost.fused_bytes)):
        listed = ", ".join(f"{part} {size / 1e6:,.0f}" for part, size in parts.items())
        bounds = ", ".join(f"{card} {cost.clips_per_s(card, fused=title == 'fused'):,.0f}" for card in REACHABLE_TFLOPS)
        print(f"{title}: {sum(parts.values()) / 1e6:,.0f} MB ({listed}); clips/s at most: {bounds}")


if __name__ == "__main__":
    main()
