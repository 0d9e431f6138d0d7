"""The nodes of the cluster, and calls of functions on them: one task per node, sent by value."""

import contextlib
import functools
import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lgd.clusters.doctor.rows import reason_of
from lgd.pipeline.console.signals import check_interrupted

WAIT_S = 0.5
# Sent to the nodes, which may have another `lgd` or none.
SENT = ("lgd.clusters.doctor", "lgd.pipeline.compiler", "lgd.pipeline.node", "lgd.pipeline.nvidia")


@dataclass(frozen=True)
class Member:
    """A node of the cluster. name: host name, with the start of Ray's id if several nodes have the same host name.
    address: IP address. cpus, gpus: that Ray offers there."""

    id: str
    name: str
    address: str
    cpus: float
    gpus: int


@dataclass(frozen=True)
class Failure:
    """What a call on a node ended with instead of a result."""

    reason: str


def find_members() -> tuple[list[Member], int]:
    """Return the nodes that are alive, by name, and the number of those that were lost."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in nodes if node["Alive"]]
    hosts = Counter(node.get("NodeManagerHostname", "") for node in alive)
    members = []
    for node in alive:
        host, number = node.get("NodeManagerHostname", ""), node["NodeID"]
        members.append(
            Member(
                id=number,
                name=host if hosts[host] == 1 else f"{host}/{number[:6]}",
                address=node["NodeManagerAddress"],
                cpus=float(node["Resources"].get("CPU", 0)),
                gpus=int(node["Resources"].get("GPU", 0)),
            )
        )
    return sorted(members, key=lambda member: (member.name, member.id)), len(nodes) - len(alive)


@contextlib.contextmanager
def sent_by_value() -> Iterator[None]:
    """Pickle the functions of the modules in SENT with their code, and not as references, while the block runs."""
    import ray

    cloudpickle: Any = ray.cloudpickle
    modules = [importlib.import_module(name) for name in SENT]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def packed(check: Callable[..., object], **arguments: object) -> bytes:
    """Return a check and its arguments for a child process on a node."""
    import ray

    cloudpickle: Any = ray.cloudpickle
    with sent_by_value():
        return bytes(cloudpickle.dumps((check, arguments)))


@functools.cache
def _remote(function: Callable[..., Any]) -> Any:
    """Return the function as a task of Ray that needs no CPU: it also runs on busy nodes and on those without CPUs."""
    import ray

    return ray.remote(num_cpus=0, max_retries=0)(function)


def call_on(
    arguments: Mapping[Member, tuple[Any, ...]],
    function: Callable[..., Any],
    *,
    limit_s: float,
    update: Callable[[int], None] = lambda done: check_interrupted(),
) -> dict[Member, Any]:
    """Call a function on nodes at the same time, and return its results; a Failure for those that have none in time.

    arguments: by node. update: is called with the number of finished calls."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    results: dict[Member, Any] = {}
    running: dict[Any, Member] = {}
    deadline = time.monotonic() + limit_s
    with sent_by_value():
        remote = _remote(function)
        for member, values in arguments.items():
            strategy = NodeAffinitySchedulingStrategy(member.id, soft=False)
            running[remote.options(scheduling_strategy=strategy).remote(*values)] = member
    try:
        while running and time.monotonic() < deadline:
            ready: list[Any] = ray.wait(list(running), num_returns=1, timeout=WAIT_S)[0]
            for reference in ready:
                member = running.pop(reference)
                try:
                    results[member] = ray.get(reference)
                except RayError as error:
                    lines = str(error).strip().splitlines()
                    results[member] = Failure(lines[-1] if lines else reason_of(error))
            update(len(results))
    finally:
        for reference in running:
            ray.cancel(reference)
    return results | {member: Failure(f"no answer in {limit_s:.0f} s") for member in running.values()}
