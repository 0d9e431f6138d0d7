"""The GPU of this process."""

import os
import platform
import re
from typing import TYPE_CHECKING

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.nvidia import driver_version, is_older, minimum_driver

if TYPE_CHECKING:
    import torch

CPU_ONLY = "or use CPUs only (CUDA_VISIBLE_DEVICES= here; ray start --num-gpus=0 on a node)"


def check_gpu() -> None:
    """Raise UserError, with the reason, if PyTorch cannot use the GPU that Ray gave to this process.

    Ray counts the GPUs that the driver lists, or takes the number with which the node was started; PyTorch needs a
    build with CUDA, a driver that is new enough for it, and a GPU that the build supports. The message names the
    version of the driver and the version of CUDA."""
    import torch

    if torch.cuda.is_available():
        _check_capability()
        return
    driver, cuda = driver_version(), torch.version.cuda
    needed = f"CUDA {cuda} needs driver {minimum_driver(cuda)} or later"
    advice = f"update the driver to {minimum_driver(cuda)} or later"
    if cuda is None:
        reason = f"it was built without CUDA; {f'the NVIDIA driver is {driver}' if driver else 'no NVIDIA driver'}"
        advice = "install a PyTorch with CUDA"
        if driver is None or is_older(driver, minimum_driver(cuda)):
            advice += f" and driver {minimum_driver(cuda)} or later"
    elif driver is None:
        reason = f"there is no NVIDIA driver; {needed}"
        advice = f"install driver {minimum_driver(cuda)} or later"
    elif is_older(driver, minimum_driver(cuda)):
        reason = f"the NVIDIA driver {driver} is too old; {needed}"
    else:
        reason = f"{_reason_of_torch()}; driver {driver}, CUDA {cuda}"
        advice = "check CUDA_VISIBLE_DEVICES and the GPUs that nvidia-smi lists"
    raise UserError(
        f"PyTorch {torch.__version__} cannot use the GPU of {platform.node()} ({reason}): {advice}, {CPU_ONLY}"
    )


def best_device() -> "tuple[torch.device, str]":
    """Return the GPU if PyTorch can use it, otherwise the CPU; and its name, with the reason if a GPU is not used."""
    import torch

    cpu = torch.device("cpu")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return cpu, "the CPU"
    try:
        check_gpu()
    except UserError as error:
        reason = str(error).removesuffix(f", {CPU_ONLY}")
        return cpu, "the CPU" if driver_version() is None else f"the CPU: {reason}"
    return torch.device("cuda"), torch.cuda.get_device_name()


def _reason_of_torch() -> str:
    """Why PyTorch cannot use CUDA, in its own words."""
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
    return "it finds no GPU"


def _check_capability() -> None:
    """Raise UserError if the GPU is older than those that PyTorch was built for."""
    import torch

    built_for = [int(found[1]) for name in torch.cuda.get_arch_list() if (found := re.fullmatch(r"sm_(\d+)a?", name))]
    major, minor = torch.cuda.get_device_capability()
    if built_for and 10 * major + minor < min(built_for):
        lowest = divmod(min(built_for), 10)
        raise UserError(
            f"PyTorch {torch.__version__} (CUDA {torch.version.cuda}, driver {driver_version()}) cannot use the "
            f"{torch.cuda.get_device_name()} of {platform.node()}: its compute capability is {major}.{minor}, and "
            f"{lowest[0]}.{lowest[1]} is required: use a newer GPU, {CPU_ONLY}"
        )
