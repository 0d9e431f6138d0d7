"""Compiled functions of numba, cached on disk."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba


def cache_machine_code(name: str, functions: Sequence[Any], sources: Sequence[str | None]) -> None:
    """Cache the compiled functions on disk, safely for workers that start at the same time.

    name: of the folder in the user's cache folder. functions: numba's dispatchers that are called from Python.
    sources: files that contain their code.

    numba writes temporary files and renames them, but machines with different processors that share a folder could
    overwrite each other's code, and numba does not detect changes of imported files. So the name of the inner folder is
    a hash of the sources, the version of numba and the processor. Without a writable folder, every process compiles."""
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    codegen = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    digest = hashlib.sha256(repr((numba.__version__, codegen)).encode())
    for source in sources:
        digest.update(Path(str(source)).read_bytes())
    folder = Path(base) / name / digest.hexdigest()[:16]
    if not folder.is_absolute():  # "~" of a user without a home folder
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    # numba has one cache folder per process: set ours only while these functions choose their cache files.
    previous = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    try:
        for function in functions:
            function.enable_caching()
    finally:
        numba.config.CACHE_DIR = previous  # type: ignore[attr-defined]
