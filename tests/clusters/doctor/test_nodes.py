"""The nodes of a cluster and calls on them, with a pretended Ray."""

from collections.abc import Sequence
from typing import Any

import pytest
import ray
from ray.exceptions import RayError

from lgd.clusters.doctor import nodes
from lgd.clusters.doctor.nodes import Failure, Member, call_on, find_members


def ray_node(number: int, host: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {
        "NodeID": f"{number}" * 56,
        "Alive": alive,
        "NodeManagerHostname": host,
        "NodeManagerAddress": f"10.0.0.{number}",
        "Resources": resources,
    }


def test_nodes_with_the_same_host_name_have_different_names(monkeypatch: pytest.MonkeyPatch):
    described = [
        ray_node(3, "b", CPU=4.0, GPU=2.0),
        ray_node(1, "a"),  # a head with --num-cpus=0
        ray_node(2, "b", CPU=4.0),
        ray_node(4, "c", alive=False, CPU=4.0),
    ]
    monkeypatch.setattr(ray, "nodes", lambda: described)
    members, lost = find_members()
    assert [(member.name, member.address, member.cpus, member.gpus) for member in members] == [
        ("a", "10.0.0.1", 0, 0),
        ("b/222222", "10.0.0.2", 4, 0),
        ("b/333333", "10.0.0.3", 4, 2),
    ]
    assert lost == 1


class PretendedTask:
    """A task of Ray: the reference is the id of its node."""

    def __init__(self) -> None:
        self.node = ""

    def options(self, scheduling_strategy: Any) -> "PretendedTask":
        self.node = scheduling_strategy.node_id
        assert not scheduling_strategy.soft
        return self

    def remote(self, *values: Any) -> str:
        return self.node


def test_a_node_that_fails_or_does_not_answer_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch):
    ids = {"good": "1" * 56, "broken": "2" * 56, "silent": "3" * 56}
    members = [Member(number, name, "10.0.0.1", 1.0, 0) for name, number in ids.items()]
    cancelled: list[str] = []

    def wait(references: Sequence[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        return [name for name in references if name != ids["silent"]][:1], []

    def get(reference: str) -> str:
        if reference == ids["broken"]:
            raise RayError("The worker died\nunexpectedly: out of memory")
        return f"result of {reference[0]}"

    monkeypatch.setattr(nodes, "_remote", lambda function: PretendedTask())
    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "cancel", cancelled.append)
    done: list[int] = []
    results = call_on(dict.fromkeys(members, ()), len, limit_s=0.2, update=done.append)
    assert {member.name: result for member, result in results.items()} == {
        "good": "result of 1",
        "broken": Failure("unexpectedly: out of memory"),
        "silent": Failure("no answer in 0 s"),
    }
    assert cancelled == [ids["silent"]]
    assert done[-1] == 2
