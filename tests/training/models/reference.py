"""A second implementation of the paper's networks, in NumPy float64, from the equations and Table 1.

It uses no code of the project. Weights are a mapping of names to arrays: the state dict of a network.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Weights = Mapping[str, np.ndarray]
BN_EPSILON = 1e-5


def part(weights: Weights, prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def relu(x):
    return np.maximum(x, 0)


def convolve(x, kernel, stride=(1, 1, 1)):
    pad = [(0, 0), (0, 0), *((k // 2, k // 2) for k in kernel.shape[2:])]
    windows = sliding_window_view(np.pad(x, pad), kernel.shape[2:], axis=(2, 3, 4))
    windows = windows[:, :, :: stride[0], :: stride[1], :: stride[2]]
    return np.einsum("ncthwijk,ocijk->nothw", windows, kernel, optimize=True)


def conv_bn(x, weights: Weights, stride=(1, 1, 1)):
    x = convolve(x, weights["conv.weight"], stride)
    mean, variance = weights["bn.running_mean"], weights["bn.running_var"]
    scale = weights["bn.weight"] / np.sqrt(variance + BN_EPSILON)
    return x * scale[:, None, None, None] + (weights["bn.bias"] - mean * scale)[:, None, None, None]


def max_over_frames(x, frames):
    n, c, t, h, w = x.shape
    return x.reshape(n, c, t // frames, frames, h, w).max(3)


def max_3x3_stride_2(x):
    padded = np.pad(x, [(0, 0), (0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    return sliding_window_view(padded, (3, 3), axis=(3, 4))[:, :, :, ::2, ::2].max((-1, -2))


def average(x):
    return x.mean((2, 3, 4))


def unit(x, weights: Weights, stride: int, stride_on: str):
    """F of eq. 2: bottleneck plus shortcut; P3D-A if there are temporal weights, otherwise 2D."""
    same, halved = (1, 1, 1), (1, stride, stride)
    y = relu(conv_bn(x, part(weights, "reduce."), halved if stride_on == "1x1" else same))
    y = relu(conv_bn(y, part(weights, "spatial."), halved if stride_on == "3x3" else same))
    if "temporal.conv.weight" in weights:
        y = relu(conv_bn(y, part(weights, "temporal.")))
    y = conv_bn(y, part(weights, "expand."))
    return y + (conv_bn(x, part(weights, "shortcut."), halved) if "shortcut.conv.weight" in weights else x)


def low_rank(g, weights: Weights, name: str):
    return g @ (weights[f"{name}.outer.weight"] @ weights[f"{name}.inner.weight"]).T


def block(x, g, weights: Weights, variant: str, stride: int = 1, stride_on: str = "3x3"):
    """Eq. 2 and 3; eq. 8 in v1; eq. 9 in v2."""
    f = unit(x, part(weights, "unit."), stride, stride_on)
    if variant == "none":
        return relu(f), None
    residual = low_rank(g, weights, "w_xg")[:, :, None, None, None]
    x = relu(f / (1 + np.exp(-residual))) if variant == "v2" else relu(f + residual)
    if variant == "v1":
        return x, average(x)
    return x, relu(low_rank(average(x), weights, "w_gx") + low_rank(g, weights, "w_gg"))


def tensor_sketch(v, buckets, signs, dimension):
    """out[(h1[i] + h2[j]) mod D] += s1[i] s2[j] v_i v_j, one vector at a time."""
    out = np.zeros(dimension)
    cells = (buckets[0][:, None] + buckets[1][None, :]) % dimension
    np.add.at(out, cells, signs[0][:, None] * signs[1][None, :] * np.outer(v, v))
    return out


def mean_sketch(vectors, weights: Weights, dimension):
    """Positions x C -> dimension."""
    buckets, signs = weights["buckets"], weights["signs"].astype(float)
    return np.mean([tensor_sketch(v, buckets, signs, dimension) for v in vectors], axis=0)


def normalized(sketch):
    root = np.sign(sketch) * np.sqrt(np.abs(sketch))
    return root / np.linalg.norm(root)


@dataclass
class Plan:
    blocks: tuple[int, ...]
    temporal: bool
    variant: str
    pool1_frames: int = 2
    stride_on: str = "3x3"
    sketch_dimension: int = 0
    normalize: bool = True


def network(video, weights: Weights, plan: Plan):
    """x_L, g_L, and the logits by path."""
    x = relu(conv_bn(video, part(weights, "stem.spatial."), (1, 2, 2)))
    if plan.temporal:
        x = max_over_frames(relu(conv_bn(x, part(weights, "stem.temporal."))), plan.pool1_frames)
    else:
        x = max_3x3_stride_2(x)
    g = average(x)
    for stage, count in enumerate(plan.blocks, start=2):
        for i in range(count):
            stride = 2 if stage > 2 and i == 0 else 1
            x, g = block(x, g, part(weights, f"res{stage}.{i}."), plan.variant, stride, plan.stride_on)
        if stage == 2 and plan.temporal:
            x = max_over_frames(x, 2)

    def linear(features, name):
        return features @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    if not plan.sketch_dimension:
        logits = {"local": linear(average(x), "local_head")}
        if plan.variant != "none":
            logits["global"] = linear(g, "global_head")
        return x, g, logits
    finish = normalized if plan.normalize else np.asarray
    rows = []
    for n in range(len(x)):
        positions = x[n].reshape(x.shape[1], -1).T
        halves = [mean_sketch(positions, part(weights, "combination.local_sketch."), plan.sketch_dimension)]
        if plan.variant != "none":
            halves.append(mean_sketch(g[n : n + 1], part(weights, "combination.global_sketch."), plan.sketch_dimension))
        rows.append(np.concatenate([finish(half) for half in halves]))
    return x, g, {"combined": linear(np.array(rows), "combination.linear")}
