"""Insufficient memory in training: the exceptions that mean it, and what the user can do."""

import errno
import platform

from lgd.training.config_file import option_name
from lgd.training.recipes import TrainConfig

# Texts of the exceptions that have no type of their own, in lower case.
TEXTS = (
    "out of memory",  # CUDA, NCCL, cuDNN
    "can't allocate",  # PyTorch on the CPU (DefaultCPUAllocator), DALI ("Can't allocate 123 bytes on device 0")
    "cannot allocate memory",  # the system
    "not enough memory",  # PyTorch on the CPU, in other versions
    "cuda allocation failed",  # DALI's own pool of GPU memory
    "failed to allocate",  # DALI
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "bad_alloc",  # C++
)


def is_memory_error(error: BaseException) -> bool:
    """Return whether an exception of a training step means that the memory of the GPU or of the node is insufficient.

    `torch.OutOfMemoryError`, exceptions of CUDA's libraries and those of DALI are all RuntimeErrors."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in TEXTS)


def memory_advice(config: TrainConfig, workers: int, *, on_gpu: bool) -> str:
    """Return a line for the user after a step did not fit into memory.

    workers: number of workers. on_gpu: whether they train on GPUs."""
    share = -(-config.batch_size // workers)
    clips = min(config.micro_batch_size or share, share)
    memory = "GPU memory" if on_gpu else "memory"
    start = f"the {memory} of {platform.node()} is too small for the {clips} clips that a worker computes at a time"
    option = option_name("micro_batch_size")
    if sizes := smaller_sizes(config, clips):
        *others, last = map(str, sizes)
        shown = f"{', '.join(others)} or {last}" if others else last
        if config.micro_batch_is_free:
            return f"{start}: rerun with {option} {shown} to resume; the result does not depend on it"
        return (
            f"{start}: train in a new --run folder with {option} {shown}; batch normalization then uses so many clips "
            "at a time"
        )
    if config.model.checkpoint_activations is not True:  # false, or an estimate that was too low
        activations = option_name("model.checkpoint_activations")
        return f"{start}: rerun with {activations} true to resume; the result does not depend on it"
    more = "use more workers, or " if workers < config.batch_size else ""
    group = f"a smaller {option_name('normalization_group')}, " if config.statistics_group > 1 else ""
    return (
        f"{start}, and a smaller {option} is not possible: {more}train in a new --run folder with {group}"
        f"a smaller {option_name('transform.crop')} or fewer {option_name('model.frames')}"
    )


def smaller_sizes(config: TrainConfig, clips: int) -> list[int]:
    """Return up to three micro-batch sizes below `clips`, the largest first: multiples of the normalization group,
    which a micro-batch must hold completely."""
    group, sizes = config.statistics_group or 1, list[int]()
    while len(sizes) < 3:
        size = max(clips // 2 // group * group, group)
        if size >= clips:
            break
        sizes.append(size)
        clips = size
    return sizes
