"""The GPU of this process."""

import platform

from lgd.pipeline.console.errors import UserError


def check_gpu() -> None:
    """Raise UserError, with the reason, if PyTorch cannot use the GPU that Ray gave to this process.

    Ray counts the GPUs that the driver lists, or takes the number with which the node was started; PyTorch needs a
    build with CUDA and a driver that is new enough for it."""
    import torch

    if torch.cuda.is_available():
        return
    reason = "it was built without CUDA"
    if torch.version.cuda:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            reason = "it finds no GPU"
        except (RuntimeError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
        reason += f"; CUDA {torch.version.cuda} needs a driver that supports it"
    raise UserError(
        f"PyTorch {torch.__version__} cannot use the GPU of {platform.node()} ({reason}): install a PyTorch with CUDA "
        "and a driver for it, or use CPUs only (CUDA_VISIBLE_DEVICES= here; ray start --num-gpus=0 on a node)"
    )
