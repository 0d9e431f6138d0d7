"""Files of `torch.save` that may be damaged or forged by now.

Such a file is a zip archive that has a CRC-32 of every tensor and of the structure, also if it was written by earlier
versions of lgd. `torch.load` does not compare them: a flipped bit becomes a different weight. `load_torch_file` does,
and checks the sizes before it reads a byte, so that a small file cannot expand."""

import zipfile
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from lgd.pipeline.storage.checked_json import SHOWN_CHARACTERS, DamagedFile

ZIP_START = b"PK\x03\x04"


def load_torch_file(file: pa.NativeFile, shown: str) -> Any:
    """Return the content of a file, on the CPU; code in it is never run. shown: its name, for errors.

    Raises DamagedFile if it is cut off, was changed, or is no such file."""
    if bytes(file.read(len(ZIP_START))) != ZIP_START:
        raise DamagedFile(f"{shown} is damaged or not a checkpoint")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            # torch.save does not compress; sizes that are true cannot exceed the file.
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise zipfile.BadZipFile("compressed")
            if sum(member.file_size for member in members) > file.size():
                raise zipfile.BadZipFile("its parts are larger than the file")
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile and the unpickler of torch.load raise anything for a forged file
        reason = " ".join(str(error).split())[:SHOWN_CHARACTERS] or type(error).__name__
        raise DamagedFile(f"{shown} is damaged or not a checkpoint ({reason})") from error


def check_tensors(tensors: Mapping[Any, Any], size: int, shown: str, *, what: str = "weight") -> None:
    """Raise DamagedFile for a value that is not a plain tensor of finite numbers.

    size: of the file, bytes, which no tensor exceeds: a view of few bytes may have any shape. shown: name of the file.
    what: word for a tensor in the message."""
    for name, tensor in tensors.items():
        text = str(name)[:SHOWN_CHARACTERS]
        plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized or tensor.is_complex() or tensor.is_nested:
            raise DamagedFile(f"{shown} is damaged: {what} {text} is not a tensor of numbers")
        if tensor.numel() * tensor.element_size() > size:
            raise DamagedFile(f"{shown} is damaged: {what} {text} is larger than the file")
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise DamagedFile(f"{shown} cannot be used: {what} {text} contains NaN or infinite numbers")


def _is_finite(tensor: Tensor) -> bool:
    """Return whether all numbers are finite. The sum of finite float32 numbers is finite in double precision: a fast
    first look, without a copy of the size of the tensor."""
    if tensor.dtype == torch.float64 or tensor.element_size() == 1:  # some types of one byte have no `sum`
        return bool(tensor.double().isfinite().all())
    return bool(tensor.sum(dtype=torch.float64).isfinite())
