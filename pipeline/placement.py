"""What fits on the nodes of the Ray cluster that this process is connected to: how many tasks or workers, and if too
few, which resource of which node is short."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lgd.pipeline.console.progress import say

WARN_AFTER_S = 15.0  # without enough nodes that are large enough
MAX_NODES_NAMED = 3  # in a message


class Node(NamedTuple):
    """A node of the cluster. resources: all of it, in use or not, by Ray's names, such as CPU. id: Ray's."""

    name: str
    resources: Mapping[str, float]
    id: str = ""


def cluster_nodes() -> list[Node]:
    """Return the nodes of the cluster that are alive."""
    import ray

    alive: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return [Node(node.get("NodeManagerHostname", ""), node["Resources"], node.get("NodeID", "")) for node in alive]


def gpu_share(nodes: Sequence[Node], max_cpus: int) -> dict[str, float] | None:
    """Return the resources of a task with one GPU, such that every GPU of the cluster can have one: with the least CPUs
    per GPU of the nodes with GPUs, at most `max_cpus`. None if no node has a GPU.

    Nodes without a GPU, such as those for preprocessing, do not count: their CPUs do not help a task with a GPU."""
    shares = [node.resources.get("CPU", 0.0) / gpus for node in nodes if (gpus := _gpus(node))]
    if not shares:
        return None
    least = min(shares)
    cpus = float(math.floor(least)) if least >= 1 else math.floor(least * 100 + 1e-9) / 100
    return {"CPU": min(cpus, float(max_cpus)), "GPU": 1.0} if cpus else {"GPU": 1.0}


def count_gpus(nodes: Sequence[Node]) -> int:
    """Return the number of GPUs of the cluster."""
    return sum(map(_gpus, nodes))


def _gpus(node: Node) -> int:
    return int(node.resources.get("GPU", 0))


def count_fitting(needs: Mapping[str, float], nodes: Sequence[Node]) -> int:
    """Return how many tasks with these needs fit on the nodes at the same time, if nothing else runs there."""
    return sum(_count_on(node, needs) for node in nodes)


def _count_on(node: Node, needs: Mapping[str, float]) -> int:
    # Ray counts in units of 0.0001; in floats 0.3 / 0.1 is less than 3.
    return min(
        round(node.resources.get(name, 0) * 1e4) // max(round(amount * 1e4), 1) for name, amount in needs.items()
    )


def describe_shortage(what: str, needs: Mapping[str, float], nodes: Sequence[Node], *, minimum: int = 1) -> str:
    """Return a sentence on why fewer than `minimum` tasks fit on the nodes: which resource of which node is short.

    what: "task" or "worker"."""
    fitting = count_fitting(needs, nodes)
    amount = _in_words(needs, needs)
    start = (
        f"{fitting} of {minimum} {what}s fit on the cluster; each needs {amount}"
        if fitting
        else f"no node of the cluster has {amount} for a {what}"
    )
    if not nodes:
        return f"{start}: the cluster has no nodes"
    short = [node for node in nodes if not _count_on(node, needs)] if not fitting else list(nodes)
    # The nodes with the smallest number of missing resources come first.
    short.sort(key=lambda node: (len(_lacking(node, needs)), node.name))
    named = [
        f"{node.name} has {_in_words(node.resources, needs if fitting else _lacking(node, needs))}" for node in short
    ]
    more = [f"{len(named) - MAX_NODES_NAMED} more"] if len(named) > MAX_NODES_NAMED else []
    return f"{start}: {', '.join([*named[:MAX_NODES_NAMED], *more])}"


def _lacking(node: Node, needs: Mapping[str, float]) -> list[str]:
    return [name for name, amount in needs.items() if node.resources.get(name, 0) < amount]


def _in_words(resources: Mapping[str, float], names: Mapping[str, float] | Sequence[str]) -> str:
    return " and ".join(f"{resources.get(name, 0):g} {name}" for name in names)


class ShortageWatch:
    """Says once what is missing if too few tasks fit for WARN_AFTER_S seconds, and again after some did fit.

    what: "task" or "worker". minimum: of the tasks that must fit at the same time. advice: what the user can do."""

    def __init__(self, what: str, needs: Mapping[str, float], *, minimum: int = 1, advice: str = ""):
        self._what, self._needs, self._minimum, self._advice = what, needs, minimum, advice
        self._last_fit = time.monotonic()
        self._said = False

    def count(self, nodes: Sequence[Node]) -> int:
        """Return how many tasks fit on the nodes, and print what is missing, if it is time."""
        now, fitting = time.monotonic(), count_fitting(self._needs, nodes)
        if fitting >= self._minimum:
            self._last_fit, self._said = now, False
        elif now - self._last_fit > WARN_AFTER_S and not self._said:
            self._said = True
            shortage = describe_shortage(self._what, self._needs, nodes, minimum=self._minimum)
            say(f"waiting: {shortage}{self._advice and ': '}{self._advice}")
        return fitting
