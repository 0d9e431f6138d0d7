"""The model of `lgd.benchmarks.dev.scaling`: time per step on N nodes from the compute time and the network's speed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NODES = (1, 2, 4, 8, 16, 32, 64)
BUCKET_BYTES, FIRST_BUCKET_BYTES = 25 * 2**20, 2**20  # of DistributedDataParallel
BACKWARD = 2 / 3  # share of the backward pass in the compute time of a step
ASSUMPTIONS = (
    "a node is one worker like that of this machine, all are equally fast, and data arrives as fast as here",
    "all-reduce of float32 gradients in a ring: 2 (N-1)/N x bytes / bandwidth + 2 (N-1) x latency per bucket of 25 MB",
    "each figure is a pair of bounds: the all-reduce after the backward pass, or during it (2/3 of the step)",
    "strong scaling: the global batch is divided among the nodes, as by lgd train; no more workers than clips",
    "weak scaling: every node has the complete batch of the recipe, so the global batch grows with the nodes",
    "validation, checkpoints and start-up are not included",
)

Bounds = tuple[float, float]  # with complete overlap of communication and computation, and without overlap


@dataclass(frozen=True)
class StepPrediction:
    """A predicted step. share: clips per node. step_s: bounds, seconds. efficiency: compared with one node, bounds."""

    share: int
    step_s: Bounds
    efficiency: Bounds


@dataclass(frozen=True)
class Prediction:
    """Predictions for a number of nodes and a bandwidth.

    gbit: bandwidth per node, 10^9 bits per second. strong: None with more nodes than clips in the batch."""

    nodes: int
    gbit: float
    all_reduce_s: float
    strong: StepPrediction | None
    weak: StepPrediction


def ring_s(nodes: int, size: int, bytes_per_s: float, *, latency_s: float) -> float:
    """Return the seconds of a ring all-reduce of `size` bytes of gradients, sent in buckets."""
    if nodes == 1:
        return 0.0
    buckets = 1 + math.ceil(max(size - FIRST_BUCKET_BYTES, 0) / BUCKET_BYTES)
    return 2 * (nodes - 1) / nodes * size / bytes_per_s + 2 * (nodes - 1) * latency_s * buckets


def step_bounds(compute_s: float, reduce_s: float) -> Bounds:
    """Return the seconds of a step whose all-reduce starts with the backward pass, and of one that starts after it."""
    return max(compute_s, (1 - BACKWARD) * compute_s + reduce_s), compute_s + reduce_s


def predict(
    compute_s: Mapping[int, float], batch: int, size: int, *, gbit: Sequence[float], latency_s: float
) -> list[Prediction]:
    """Return a prediction for each number of nodes and bandwidth.

    compute_s: share of the batch -> seconds of computation per step. size: of the gradients, bytes. gbit: bandwidths,
    10^9 bits per second. latency_s: of a message between two nodes."""
    predictions = []
    for nodes in NODES:
        for bandwidth in gbit:
            reduce_s = ring_s(nodes, size, bandwidth * 1e9 / 8, latency_s=latency_s)
            one_node_s = compute_s[batch]
            strong = None
            if nodes <= batch:
                share = -(-batch // nodes)
                low, high = step_bounds(compute_s[share], reduce_s)
                strong = StepPrediction(share, (low, high), (one_node_s / (nodes * low), one_node_s / (nodes * high)))
            low, high = step_bounds(one_node_s, reduce_s)
            weak = StepPrediction(batch, (low, high), (one_node_s / low, one_node_s / high))
            predictions.append(Prediction(nodes, bandwidth, reduce_s, strong, weak))
    return predictions
