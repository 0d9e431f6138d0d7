"""The version of nvJPEG, the library that decodes JPEGs on a GPU."""

import ctypes
import importlib.util
import os
from pathlib import Path

from lgd.pipeline.console.errors import UserError

# Before this version, nvJPEG interpolates colors wrongly at the edges of a crop window; nvImageCodec avoids it.
MIN_VERSION = (13, 2)
INSTALL = "pip install --upgrade 'nvidia-nvjpeg>=13.2'"
_LIBRARY = "libnvjpeg.so.13"


def check_nvjpeg() -> None:
    """Raise UserError if nvJPEG is missing, or too old to decode the same colors on a GPU as on the CPU."""
    version = nvjpeg_version()
    required = ".".join(map(str, MIN_VERSION))
    if version is None:
        raise UserError(f"decoding on a GPU needs nvJPEG {required} or later, which is not installed: {INSTALL}")
    if version < MIN_VERSION:
        installed = ".".join(map(str, version))
        raise UserError(f"decoding on a GPU needs nvJPEG {required} or later, and {installed} is installed: {INSTALL}")


def nvjpeg_version() -> tuple[int, int, int] | None:
    """Return major, minor and patch version of the nvJPEG library that DALI uses; None if there is none.

    Needs no GPU."""
    library = _load()
    if library is None:
        return None
    version = []
    for part in range(3):  # libraryPropertyType: MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL
        number = ctypes.c_int()
        if library.nvjpegGetProperty(part, ctypes.byref(number)) != 0:
            return None
        version.append(number.value)
    major, minor, patch = version
    return major, minor, patch


def _load() -> ctypes.CDLL | None:
    """Return the library: the one that this process has loaded already, that of the package nvidia-nvjpeg, or that of
    the CUDA toolkit. nvImageCodec searches in this order, and a process loads only one library of this name."""
    for path, mode in ((_LIBRARY, os.RTLD_NOLOAD), *((str(file), 0) for file in _packaged()), (_LIBRARY, 0)):
        try:
            return ctypes.CDLL(path, mode=ctypes.DEFAULT_MODE | mode)
        except OSError:
            continue
    return None


def _packaged() -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else None
    files = [Path(folder) / "cu13" / "lib" / _LIBRARY for folder in folders or ()]
    return [file for file in files if file.exists()]
