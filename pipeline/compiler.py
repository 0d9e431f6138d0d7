"""Which C and C++ compilers this machine has: torch.compile and Triton call one when they first compile a kernel."""

import os
import shutil
from typing import Literal

_PROGRAMS = {"CC": ("gcc", "clang"), "CXX": ("g++",)}


def missing_compiler(variable: Literal["CC", "CXX"]) -> str | None:
    """Return the names of the compilers of which this machine has none, such as "gcc or clang"; None if it has one.

    variable: the environment variable that names a different compiler, CC for C and CXX for C++; also a key of the
    default compilers."""
    programs = (os.environ[variable],) if os.environ.get(variable) else _PROGRAMS[variable]
    return None if any(shutil.which(program) for program in programs) else " or ".join(programs)
