"""Sums over processes with NCCL or gloo, as in training: bandwidth, latency, and the network interface that carries
them. Each process is a child process on its node."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from lgd.clusters.doctor import advice
from lgd.clusters.doctor.rows import CLUSTER, GPU, NODE, WRONG, Row, reason_of, speed

CONNECT_S, COLLECTIVE_S = 30.0, 20.0
SUM_BYTES, LATENCY_SUMS, REPEATS = 32 << 20, 20, 3
LEAST_GBS = 0.1  # 1 gigabit per second
NETWORK_CARDS, INFINIBAND = Path("/proc/net/dev"), Path("/sys/class/infiniband")
INTERFACES = Path("/sys/class/net")
# Kept from the environment: they decide which interface is used, and may be set by ray start or by lgd.
VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_DISABLE", "NCCL_P2P_DISABLE", "NCCL_NET")


def free_port(host: str) -> int:
    """Return a TCP port that is free at an address of this node. A task of Ray."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        return int(listening.getsockname()[1])


def sum_rows(
    name: str, backend: str, *, rank: int, processes: int, host: str, port: int, device: int = 0
) -> Iterator[Row]:
    """Yield the rows of one of several processes that sum up numbers with each other.

    name: of the rows. host, port: where process 0 listens. device: number of the GPU, for NCCL."""
    try:
        import torch.distributed as dist
    except ImportError as error:
        yield Row(NODE, name, f"{error.name} is not installed", "not available")
        return
    section = CLUSTER if "between" in name else GPU if backend == "nccl" else NODE
    try:
        _join(backend, rank, processes, host=host, port=port, device=device)
        yield from _measure(name, section, backend, rank=rank, processes=processes, device=device)
        dist.destroy_process_group()
    except Exception as error:  # of a connection, whatever its class
        where = f"{host}:{port}"
        text = re.sub(r"\s*\[.*", "", reason_of(error))
        yield Row(NODE, name, f"{backend} to {where}: {text}{settings()}", WRONG, advice.NETWORK)


def _join(backend: str, rank: int, processes: int, *, host: str, port: int, device: int) -> None:
    import torch
    import torch.distributed as dist

    if backend == "nccl":
        torch.cuda.set_device(device)
    store = dist.TCPStore(  # type: ignore[attr-defined]  # torch has no __all__ there
        host, port, processes, rank == 0, timedelta(seconds=CONNECT_S)
    )
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=processes, timeout=timedelta(seconds=COLLECTIVE_S)
    )


def _measure(name: str, section: str, backend: str, *, rank: int, processes: int, device: int) -> Iterator[Row]:
    """Process 0 yields the speed of the sums; with more than two nodes, each one that of its exchange with another."""
    import torch
    import torch.distributed as dist

    on = f"cuda:{device}" if backend == "nccl" else "cpu"
    small, large = torch.ones(2, device=on), torch.ones(SUM_BYTES // 4, device=on)

    def total(numbers: Any) -> None:
        dist.all_reduce(numbers)
        if backend == "nccl":
            torch.cuda.synchronize(device)

    total(small)
    total(large)
    latency_s = min(_seconds(lambda: total(small)) for _ in range(LATENCY_SUMS))
    before = interface_bytes()
    taken = min(_seconds(lambda: total(large)) for _ in range(REPEATS))
    used = busiest(before, interface_bytes())
    if rank == 0:
        # The bytes that each link carries, as NCCL's own tests count them ("bus bandwidth").
        value = 2 * (processes - 1) / processes * SUM_BYTES / taken / 1e9
        least = LEAST_GBS if section == CLUSTER else 0.0
        row = speed(section, name, value, unit="GB/s", least=least, advice=advice.NETWORK_SLOW)
        what = "GPUs" if section == GPU else "nodes" if section == CLUSTER else "processes"
        route = f" over {used}" if used else ""
        yield row._replace(
            figure=f"{row.figure}{route}, latency {latency_s * 1e3:.2g} ms ({backend}, {processes} {what})"
        )
    if section == CLUSTER and processes > 2:
        yield from _exchange(backend, rank, processes, numbers=large, wait=lambda: total(small))


def _exchange(
    backend: str,
    rank: int,
    processes: int,
    *,
    numbers: Any,
    wait: Callable[[], None],
) -> Iterator[Row]:
    """Send numbers to a neighbor and back: among many nodes this shows the slow one."""
    import torch.distributed as dist

    partner = rank ^ 1
    steps = (dist.send, dist.recv) if rank < partner else (dist.recv, dist.send)
    wait()
    start = time.perf_counter()
    if partner < processes:
        for step in steps:
            step(numbers, partner)
        if backend == "nccl":
            numbers[:1].cpu()  # waits for the GPU
        taken = time.perf_counter() - start
        yield speed(NODE, f"{backend} with a neighbor", 2 * SUM_BYTES / taken / 1e9, unit="GB/s")
    wait()


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interface_bytes() -> dict[str, int]:
    """Return the bytes that each network interface has sent."""
    found = {}
    for line in NETWORK_CARDS.read_text().splitlines()[2:]:
        name, _, numbers = line.partition(":")
        found[name.strip()] = int(numbers.split()[8])
    for counter in INFINIBAND.glob("*/ports/*/counters/port_xmit_data"):
        found[counter.parts[-5]] = int(counter.read_text()) * 4  # it counts words of 4 bytes
    return found


def busiest(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Return the interface that carried at least the bytes of one sum; "" if none did: memory was used."""
    sent = {name: count - before.get(name, 0) for name, count in after.items()}
    name = max(sent, key=lambda each: sent[each], default="")
    return name + link_speed(name) if name and sent[name] >= SUM_BYTES // 2 else ""


def link_speed(interface: str) -> str:
    """Return the speed of an interface's link in a few words; "" if it has none, such as loopback."""
    try:
        megabits = int((INTERFACES / interface / "speed").read_text())
    except (OSError, ValueError):
        return ""
    return f" ({megabits / 1000:g} Gbit/s)" if megabits > 0 else ""


def settings() -> str:
    """Return the variables of this process that choose the interface, for the row of a failure."""
    found = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
    return f" ({found})" if found else ""
