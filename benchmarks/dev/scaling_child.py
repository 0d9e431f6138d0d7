"""What `lgd.benchmarks.dev.scaling` measures in processes of their own: a whole run of `lgd train`, and an all-reduce.

python -m lgd.benchmarks.dev.scaling_child fit RUN DATASET WORKERS CPUS
python -m lgd.benchmarks.dev.scaling_child ring BYTES ROUNDS
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lgd.pipeline.console.command_line import stdout_for_result

RING = 2  # processes


def fit(folder: str, data: str, workers: int, *, cpus: int) -> dict[str, float]:
    """Does the run. cluster_s: until the embedded cluster was there; fit_at: when the fitting began, Unix time.

    cpus: of the cluster; 0 for all that there are."""
    from lgd.clusters.embedded import ensure_cluster
    from lgd.pipeline.dataset.dataset import open_dataset
    from lgd.training import elastic
    from lgd.training.run import open_run

    start = time.time()
    ensure_cluster(cpus or None)
    ready = time.time()
    elastic.run_training(open_run(folder), open_dataset(data), (workers, workers), start_cluster=lambda: None)
    return {"cluster_s": ready - start, "fit_at": ready}


def ring(size: int, rounds: int) -> dict[str, float]:
    """Seconds of an all-reduce of two processes over loopback by gloo: large_s of `size` bytes, small_s of one number;
    medians."""
    import torch.multiprocessing

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with tempfile.TemporaryDirectory(prefix="lgd-ring-") as folder:
        torch.multiprocessing.spawn(_ring_process, args=(folder, size, rounds), nprocs=RING)
        return json.loads((Path(folder) / "seconds.json").read_text())


def _ring_process(rank: int, folder: str, size: int, *, rounds: int) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RING)
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


def main(words: list[str]) -> Any:
    if words[0] == "fit":
        return fit(words[1], words[2], int(words[3]), cpus=int(words[4]))
    return ring(int(words[1]), int(words[2]))


if __name__ == "__main__":
    with stdout_for_result(alone=True) as answer:
        json.dump(main(sys.argv[1:]), answer)
