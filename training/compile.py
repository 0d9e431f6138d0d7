"""torch.compile, refused with one line where it would fail in the first step."""

import os
import shutil
import socket
from typing import Any

import torch

from lgd.pipeline.console.errors import UserError


def compile_network(network: torch.nn.Module, device: torch.device) -> Any:
    """Return the network compiled by torch.compile. The compiler runs in the first step, and again for each new size of
    a worker's share of the batch.

    Raises UserError, which names the node, if it has no C++ compiler (device CPU) or no C compiler (device CUDA)."""
    variable, programs = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++",))
    compilers = (os.environ[variable],) if os.environ.get(variable) else programs
    if not any(shutil.which(compiler) for compiler in compilers):
        raise UserError(
            f"--compile needs {' or '.join(compilers)}, but {socket.gethostname()} has none: install one, set "
            f"{variable} to a different compiler, or train without --compile"
        )
    return torch.compile(network)
