"""torch.compile, refused in one line where it would fail on its first step."""

import os
import shutil
import socket
from typing import Any

import torch

from lgd.pipeline.console.errors import UserError


def compiled(network: torch.nn.Module, device: torch.device) -> Any:
    """The network as torch.compile calls it: code is made at the first step, and again when a share has another size.

    Raises UserError, naming the machine, where there is no compiler: for C++ on a CPU, for C beside a GPU."""
    variable, programs = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++",))
    wanted = (os.environ[variable],) if os.environ.get(variable) else programs
    if not any(shutil.which(program) for program in wanted):
        raise UserError(
            f"--compile needs {' or '.join(wanted)}, and {socket.gethostname()} has none: install one there, name "
            f"another with {variable}, or train without --compile"
        )
    return torch.compile(network)
