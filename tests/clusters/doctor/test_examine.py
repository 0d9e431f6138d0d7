"""`lgd doctor` as a whole, on two nodes of which one has another version of lgd and pretends to have a GPU."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lgd
from lgd.clusters.doctor import examine as examine_module
from lgd.clusters.doctor.examine import clock_offsets, examine, sums_between
from lgd.clusters.doctor.gpu import USABLE
from lgd.clusters.doctor.nodes import Failure, Member
from lgd.clusters.doctor.options import DoctorOptions
from lgd.clusters.doctor.rows import ABSENT, CLUSTER, GPU, NODE, OK, WARNING, WRONG, Row
from lgd.clusters.doctor.versions import introduce
from lgd.clusters.testbed.processes import run_lgd
from lgd.clusters.testbed.ray_nodes import RayNodes, ray_nodes

NVIDIA_SMI = """#!/bin/sh
case "$1" in
--query-gpu=driver_version) echo 550.54.14 ;;
*) echo "NVIDIA H100 80GB HBM3, 81559, Disabled" ;;
esac
"""


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[RayNodes]:
    """A head with one CPU, and a node on which `import lgd` finds another version that lacks all modules, with an
    nvidia-smi that lists a GPU and an old driver."""
    (tmp_path / "lgd").mkdir()
    (tmp_path / "lgd" / "__init__.py").write_text('__version__ = "0.2.9"\n')
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    with ray_nodes(cpus=1) as nodes:
        path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
        nodes.add(cpus=2, gpus=1, env={"PYTHONPATH": str(tmp_path), "PATH": path})
        nodes.wait_for(cpus=3)
        yield nodes


@pytest.mark.cluster
def test_every_node_is_checked_also_one_with_another_lgd(two_nodes: RayNodes, dataset_folder: Path):
    done = run_lgd("doctor", "--address", two_nodes.address, "--data", dataset_folder, "--json", env=two_nodes.env)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    head, other = sorted(document["nodes"], key=lambda node: node["gpus"])
    assert (head["gpus"], other["gpus"]) == (0, 1)

    def rows(node: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in document["rows"] if row["node"] == (node and node["name"])}

    versions = {name: rows(node)["lgd"] for name, node in (("head", head), ("other", other))}
    assert (versions["head"]["verdict"], versions["head"]["figure"]) == (OK, lgd.__version__)
    assert versions["other"]["verdict"] == WRONG
    assert versions["other"]["figure"] == f"0.2.9, but {lgd.__version__} where the command runs"
    assert rows(head)["GPU"]["verdict"] == ABSENT
    assert rows(other)["driver"]["figure"] == "550.54.14 is too old; CUDA 13 needs 580 or later"
    assert (rows(other)[USABLE]["verdict"], rows(other)[USABLE]["section"]) == (WRONG, GPU)
    for node in (head, other):
        checked = rows(node)
        assert {name: checked[name]["verdict"] for name in ("conv3d, CPU", "JPEGs, CPU", "data")} == {
            "conv3d, CPU": OK,
            "JPEGs, CPU": OK,
            "data": OK,
        }
        assert checked["gloo within the node"]["value"] > 0
        assert abs(node["clock_ahead_s"]) < 1
    cluster = rows(None)
    assert cluster["gloo between nodes"]["value"] > 0
    assert "2 nodes" in cluster["gloo between nodes"]["figure"]
    assert (cluster["clocks"]["verdict"], cluster["CPUs per GPU"]["verdict"]) == (OK, WARNING)
    assert done.stderr.splitlines()[-1].startswith(f"lgd: wrong: lgd on {other['name']}")


def member(name: str, address: str = "10.0.0.1", gpus: int = 0) -> Member:
    return Member(id=name, name=name, address=address, cpus=8, gpus=gpus)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What nodes answer: by the name of the function, a function of the node and the arguments."""
    answers: dict[str, Any] = {}

    def call_on(arguments: dict[Member, tuple[Any, ...]], function: Any, **options: Any) -> dict[Member, Any]:
        return {node: answers[function.__name__](node, *values) for node, values in arguments.items()}

    monkeypatch.setattr(examine_module, "call_on", call_on)
    return answers


def test_a_node_that_does_not_respond_is_a_row_and_the_others_are_checked(
    monkeypatch: pytest.MonkeyPatch, calls: dict[str, Any]
):
    nodes = [member("good"), member("silent", "10.0.0.2"), member("crashed", "10.0.0.3")]
    monkeypatch.setattr(examine_module, "find_members", lambda: (nodes, 1))
    introduction = introduce() | {"lgd": lgd.__version__}
    calls["introduce"] = lambda node: Failure("no answer in 45 s") if node.name == "silent" else introduction
    calls["clock"] = lambda node: time.time() + 100 * (node.name == "crashed")
    row = Row(NODE, "load", "idle")
    calls["run_groups"] = lambda node, groups: Failure("the worker died") if node.name == "crashed" else [tuple(row)]
    calls["free_port"] = lambda node, address: 1234
    calls["run_together"] = lambda node, groups: [[(CLUSTER, "gloo between nodes", f"{len(groups)}")] for _ in groups]
    found = examine(DoctorOptions(), lambda: None)
    verdicts = {(each.node, each.name): each.verdict for each in found.rows if each.verdict != OK}
    assert verdicts == {(None, "clocks"): WARNING, ("silent", "node"): WRONG, ("crashed", "checks"): WRONG}
    assert {node.name: node.clock_ahead_s and round(node.clock_ahead_s) for node in found.nodes} == {
        "good": 0,
        "silent": None,
        "crashed": 100,
    }
    assert [each.figure for each in found.rows if each.name == "nodes"] == [
        "3, for Ray with 24 CPUs and 0 GPUs; 1 lost before"
    ]
    assert found.failed == "wrong: node on silent, checks on crashed; the table says what to do"


def test_the_offset_of_a_clock_is_that_of_the_quickest_call(monkeypatch: pytest.MonkeyPatch, calls: dict[str, Any]):
    """The clock of the node is 5 s ahead; the answers take 4, 0.2 and 2 s, all but 0.1 s of it on the way back."""
    moments = iter([0.0, 4.0, 10.0, 10.2, 20.0, 22.0])
    times = iter([5.1, 15.1, 25.1])
    monkeypatch.setattr(examine_module, "CLOCK_CALLS", 3)
    monkeypatch.setattr(time, "time", lambda: next(moments))
    calls["clock"] = lambda node: next(times)
    ((offset, error),) = clock_offsets([member("a")]).values()
    assert (round(offset, 6), round(error, 6)) == (5.0, 0.1)


def test_gpus_are_summed_with_nccl_over_the_nodes_that_have_usable_ones(calls: dict[str, Any]):
    nodes = [member("cpu"), member("g1", gpus=2), member("g2", gpus=2), member("old driver", gpus=2)]
    rows = {node: [Row(GPU, USABLE, "", value=float(node.gpus if node.name[0] == "g" else 0))] for node in nodes}
    asked: list[tuple[str, str]] = []

    def run_together(node: Member, groups: list[Any]) -> list[list[tuple[Any, ...]]]:
        asked.append((groups[0].title, node.name))
        wrong = node.name == "cpu"
        return [[(NODE if wrong else CLUSTER, groups[0].title, "3 GB/s", WRONG if wrong else OK)]]

    calls["run_together"] = run_together
    calls["free_port"] = lambda node, address: 1234
    cluster = sums_between(rows, nodes)
    assert asked == [
        *[("gloo between nodes", node.name) for node in nodes],
        *[("nccl between nodes", name) for name in ("g1", "g2")],
    ]
    assert {row.name for row in cluster} == {"gloo between nodes", "nccl between nodes"}
    assert rows[nodes[0]][-1].verdict == WRONG


def test_one_node_has_no_sums_between_nodes():
    assert [row.verdict for row in sums_between({}, [member("a")])] == [ABSENT]
