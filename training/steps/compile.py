"""torch.compile of the parts of a network: its stem and its blocks.

Convolutions stay calls of libraries; what is between them (batch normalization, ReLU, sums, pooling) becomes a few
kernels. Blocks of the same shape share one compiled form, so compiling takes a fraction of the time that the complete
network takes, and the gradients of a block can be sent while those of the block before it are computed."""

import importlib.util
import socket
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lgd.pipeline.compiler import missing_compiler
from lgd.pipeline.console.errors import UserError
from lgd.training.models.config import Switch
from lgd.training.models.lgd import Network, run_part

MAX_SIZES = (
    3  # different shares or micro-batches that are compiled; others, such as those without a damaged clip, are not
)
MAX_FORMS = 64  # compiled forms: kinds of blocks, times sizes


class CompiledParts:
    """`run_part` of a network, compiled in training mode for the first MAX_SIZES sizes of what is computed together.

    The shapes are constants in the compiled code. Validation, whose frames have many sizes, is not compiled."""

    def __init__(self, network: Network, **options: Any) -> None:
        """options: of torch.compile."""
        self._network = network
        self._compiled = torch.compile(run_part, dynamic=False, **options)
        self._sizes: set[tuple[Any, ...]] = set()

    def __call__(self, part: nn.Module, *inputs: Tensor | None, checkpointing: bool = False) -> Any:
        """Return the output of a part, as `run_part`."""
        run = self._compiled if self._network.training and self._is_compiled(inputs[0]) else run_part
        return run(part, *inputs, checkpointing=checkpointing)

    def _is_compiled(self, x: Tensor | None) -> bool:
        assert x is not None
        groups = self._network.stem.spatial.bn.groups
        size = (x.shape[0], None if groups is None else (groups.members.shape[0], groups.handles))
        if len(self._sizes) < MAX_SIZES:
            self._sizes.add(size)
        return size in self._sizes


def compile_network(network: Network, device: torch.device, **options: Any) -> None:
    """Compile the parts of a network in place. The compiler runs in the first step, and again for each new size of a
    worker's share of the batch.

    options: of torch.compile. Raises UserError, which names the node, if it has no Triton (device CUDA), no C++
    compiler (CPU) or no C compiler (CUDA)."""
    missing = missing_for_compiling(device)
    if missing:
        raise UserError(f"--compile needs {missing}, or train with --compile false")
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_FORMS)
    network.run_part = CompiledParts(network, **options)


def compiles(setting: Switch, device: torch.device) -> tuple[bool, str]:
    """Return whether the network is compiled, and if `auto` does not compile it, the reason."""
    if setting != "auto":
        return setting, ""
    if device.type != "cuda":
        return False, ""
    missing = missing_for_compiling(device)
    return not missing, missing


def missing_for_compiling(device: torch.device) -> str:
    """Return what torch.compile needs on this node and does not find, and what to do; empty if nothing is missing."""
    node = socket.gethostname()
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return f"Triton, but {node} does not have it: install triton, which PyTorch's CUDA builds require"
    variable: Literal["CC", "CXX"] = "CC" if device.type == "cuda" else "CXX"
    if compilers := missing_compiler(variable):
        return f"{compilers}, but {node} has none: install one, set {variable} to a different compiler"
    return ""
