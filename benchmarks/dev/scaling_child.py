"""Child process of `lgd.benchmarks.dev.scaling`: a complete training run, or an all-reduce.

python -m lgd.benchmarks.dev.scaling_child train RUN DATASET WORKERS CPUS
python -m lgd.benchmarks.dev.scaling_child ring BYTES ROUNDS
"""

import functools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from lgd.pipeline.console.command_line import stdout_for_result

RING_PROCESSES = 2


def train(folder: str, data: str, workers: int, *, cpus: int) -> dict[str, float]:
    """Train the run in a folder. cpus: of the embedded cluster; 0 for all CPUs.

    Returns cluster_s (seconds to start the cluster) and train_at (when the training started, Unix time)."""
    from lgd.clusters.embedded import ensure_cluster
    from lgd.pipeline.dataset.dataset import open_dataset
    from lgd.training import elastic
    from lgd.training.run import open_run

    start = time.time()
    ensure_cluster(cpus or None)
    ready = time.time()
    elastic.run_training(open_run(folder), open_dataset(data), (workers, workers), start_cluster=lambda: None)
    return {"cluster_s": ready - start, "train_at": ready}


def ring(size: int, rounds: int) -> dict[str, float]:
    """Measure an all-reduce of two processes with gloo over loopback.

    Returns the medians of the seconds: large_s for `size` bytes, small_s for a single number."""
    from torch.multiprocessing.spawn import spawn

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with tempfile.TemporaryDirectory(prefix="lgd-ring-") as folder:
        process = functools.partial(_ring_process, rounds=rounds)
        spawn(process, args=(folder, size), nprocs=RING_PROCESSES)  # type: ignore[no-untyped-call]  # torch's
        seconds: dict[str, float] = json.loads((Path(folder) / "seconds.json").read_text())
        return seconds


def _ring_process(rank: int, folder: str, size: int, *, rounds: int) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RING_PROCESSES)
    seconds = {}
    for name, numbers in {"large_s": max(size // 4, 1), "small_s": 1}.items():
        gradient, times = torch.zeros(numbers), []
        for _ in range(rounds + 1):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(gradient)
            times.append(time.perf_counter() - start)
        seconds[name] = statistics.median(times[1:])
    if rank == 0:
        (Path(folder) / "seconds.json").write_text(json.dumps(seconds))
    dist.barrier()
    dist.destroy_process_group()


def main(arguments: list[str]) -> dict[str, float]:
    """Run one of the two measurements."""
    if arguments[0] == "train":
        return train(arguments[1], arguments[2], int(arguments[3]), cpus=int(arguments[4]))
    return ring(int(arguments[1]), int(arguments[2]))


if __name__ == "__main__":
    with stdout_for_result(alone=True) as output:
        json.dump(main(sys.argv[1:]), output)
