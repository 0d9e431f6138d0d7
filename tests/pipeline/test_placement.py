"""What fits on the nodes of a cluster, and what is said if too little fits."""

import pytest

from lgd.pipeline import placement
from lgd.pipeline.placement import Node, ShortageWatch, count_fitting, describe_shortage, gpu_share

BIG = Node("cpus", {"CPU": 16.0, "memory": 1.0})
SMALL_GPU = Node("small-gpu", {"CPU": 4.0, "GPU": 2.0})
BIG_GPU = Node("big-gpu", {"CPU": 16.0, "GPU": 1.0})


@pytest.mark.parametrize(
    ("nodes", "share"),
    [
        ([BIG], None),
        ([], None),
        ([BIG, SMALL_GPU], {"CPU": 2.0, "GPU": 1.0}),  # not (16 + 4) / 2
        ([BIG, SMALL_GPU, BIG_GPU], {"CPU": 2.0, "GPU": 1.0}),
        ([BIG_GPU], {"CPU": 8.0, "GPU": 1.0}),  # the maximum
        ([Node("few", {"CPU": 2.0, "GPU": 4.0})], {"CPU": 0.5, "GPU": 1.0}),
        ([Node("third", {"CPU": 1.0, "GPU": 3.0})], {"CPU": 0.33, "GPU": 1.0}),
        ([Node("none", {"GPU": 2.0})], {"GPU": 1.0}),
        ([BIG, Node("part", {"CPU": 4.0, "GPU": 0.5})], None),
    ],
)
def test_a_task_has_the_least_cpus_per_gpu_so_that_every_gpu_is_used(nodes: list[Node], share: dict | None):
    assert gpu_share(nodes, max_cpus=8) == share
    if share:
        assert count_fitting(share, nodes) == sum(int(node.resources.get("GPU", 0)) for node in nodes)


def test_fractions_of_cpus_are_counted_as_ray_counts_them():
    assert count_fitting({"CPU": 0.1}, [Node("a", {"CPU": 0.3})]) == 3  # 0.3 / 0.1 is 2.9999999999999996
    assert count_fitting({"CPU": 0.33, "GPU": 1.0}, [Node("a", {"CPU": 1.0, "GPU": 3.0})]) == 3


def test_a_shortage_names_the_resource_that_each_node_lacks_the_nearest_node_first():
    nodes = [BIG, SMALL_GPU]
    assert describe_shortage("worker", {"CPU": 8.0, "GPU": 1.0}, nodes) == (
        "no node of the cluster has 8 CPU and 1 GPU for a worker: cpus has 0 GPU, small-gpu has 4 CPU"
    )
    assert describe_shortage("worker", {"CPU": 2.0, "GPU": 1.0}, nodes, minimum=4) == (
        "2 of 4 workers fit on the cluster; each needs 2 CPU and 1 GPU: small-gpu has 4 CPU and 2 GPU, "
        "cpus has 16 CPU and 0 GPU"
    )
    assert describe_shortage("task", {"CPU": 32.0}, [BIG] * 5).endswith(
        "for a task: cpus has 16 CPU, cpus has 16 CPU, cpus has 16 CPU, 2 more"
    )
    assert describe_shortage("task", {"CPU": 1.0}, []).endswith("the cluster has no nodes")


def test_too_few_workers_are_said_once_and_again_after_a_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    watch = ShortageWatch("worker", {"CPU": 2.0, "GPU": 1.0}, minimum=2, advice="add nodes")
    assert watch.count([BIG]) == 0
    assert capsys.readouterr().err == ""  # a cluster may need a moment
    monkeypatch.setattr(placement, "WARN_AFTER_S", -1.0)
    assert [watch.count([BIG_GPU]), watch.count([BIG_GPU])] == [1, 1]
    said = capsys.readouterr().err
    assert said.count("waiting: 1 of 2 workers fit on the cluster") == 1
    assert said.endswith(": add nodes\n")
    assert watch.count([SMALL_GPU]) == 2
    watch.count([])
    assert "the cluster has no nodes" in capsys.readouterr().err
