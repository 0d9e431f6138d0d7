"""Whether this machine can run the Triton kernels: decided without importing Triton or looking for a GPU."""

import importlib.util
import sysconfig
from pathlib import Path

from lgd.pipeline.compiler import missing_compiler


def reason_against_triton() -> str | None:
    """Return why Triton cannot compile kernels on this machine and what to install, in one sentence; else None.

    Triton comes with the CUDA builds of PyTorch. When it first runs, it compiles a small module for Python, for which
    it needs a C compiler and Python's headers."""
    if not importlib.util.find_spec("triton"):
        return "Triton is not installed: install a CUDA build of PyTorch, which brings it"
    if compilers := missing_compiler("CC"):
        return (
            f"there is no C compiler ({compilers}): install one (Debian and Ubuntu: gcc libc6-dev), "
            "or set CC to a different one"
        )
    include = sysconfig.get_paths()["include"]
    if not Path(include, "Python.h").exists():
        return f"{include} has no Python.h: install Python's headers (Debian and Ubuntu: python3-dev)"
    return None
