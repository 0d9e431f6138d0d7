"""Batch normalization over groups of clips, against NumPy, against nn.BatchNorm3d, and over several workers."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from lgd.training.models.config import ModelConfig
from lgd.training.models.lgd import Block, checkpointed
from lgd.training.models.normalization import (
    ClipGroups,
    GroupedBatchNorm3d,
    frozen_statistics,
    set_groups,
    share_running_statistics,
    update_running_statistics,
)
from lgd.training.models.resnet import ResidualUnit
from lgd.training.models.zoo import build

EPS = 1e-5


def two_layers() -> Any:
    """Normalization, 1x1x1 convolution, ReLU, normalization; random scales and offsets."""
    layers = nn.Sequential(GroupedBatchNorm3d(3), nn.Conv3d(3, 4, 1, bias=False), nn.ReLU(), GroupedBatchNorm3d(4))
    norms: list[Any] = [layers[0], layers[3]]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    return layers


def clips(n: int, channels: int = 3) -> Any:
    """Random clips of 2 x 4 x 5, each with a mean of its own."""
    return torch.randn(n, channels, 2, 4, 5) * 2 + torch.randn(n, channels, 1, 1, 1) * 3


def numpy_normalize(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalize M x C. Returns the result, the normalized numbers and the standard deviations."""
    deviation = np.sqrt(x.var(axis=0) + EPS)
    normalized = (x - x.mean(axis=0)) / deviation
    return normalized * weight + bias, normalized, deviation


def numpy_backward(
    gradient: np.ndarray, normalized: np.ndarray, deviation: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of input, weight and bias (Ioffe and Szegedy 2015, section 3), M x C and C."""
    inner = gradient * weight
    of_x = (inner - inner.mean(axis=0) - normalized * (inner * normalized).mean(axis=0)) / deviation
    return of_x, (gradient * normalized).sum(axis=0), gradient.sum(axis=0)


def rows(x: torch.Tensor) -> np.ndarray:
    """Return N x C x T x H x W as (N T H W) x C, float64."""
    return x.detach().double().permute(0, 2, 3, 4, 1).reshape(-1, x.shape[1]).numpy()


def test_two_layers_over_two_groups_against_numpy():
    layers, x = two_layers(), clips(5).requires_grad_()
    numbers = [0, 0, 0, 1, 1]  # groups of different sizes
    set_groups(layers, ClipGroups(numbers, 2))
    loss_weights = torch.randn(5, 4, 2, 4, 5)
    output = layers(x)
    (output * loss_weights).sum().backward()
    update_running_statistics(layers)

    first, conv, _, second = layers
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in (first.weight, first.bias, second.weight, second.bias))
    matrix = conv.weight.detach().double().numpy()[:, :, 0, 0, 0]
    expected = {name: 0.0 for name in ("w1", "b1", "matrix", "w2", "b2", "mean1", "var1", "mean2", "var2")}
    for group in (slice(0, 3), slice(3, 5)):
        inputs = rows(x[group])
        y1, normalized1, deviation1 = numpy_normalize(inputs, w1, b1)
        mixed = y1 @ matrix.T
        active = np.maximum(mixed, 0)
        y2, normalized2, deviation2 = numpy_normalize(active, w2, b2)
        np.testing.assert_allclose(rows(output[group]), y2, atol=2e-5)
        of_active, of_w2, of_b2 = numpy_backward(rows(loss_weights[group]), normalized2, deviation2, w2)
        of_mixed = of_active * (mixed > 0)
        of_x, of_w1, of_b1 = numpy_backward(of_mixed @ matrix, normalized1, deviation1, w1)
        np.testing.assert_allclose(rows(x.grad[group]), of_x, atol=2e-5)
        for name, value in {
            **{"w1": of_w1, "b1": of_b1, "matrix": of_mixed.T @ y1, "w2": of_w2, "b2": of_b2},
            **{"mean1": inputs.mean(axis=0) / 2, "var1": inputs.var(axis=0, ddof=1) / 2},
            **{"mean2": active.mean(axis=0) / 2, "var2": active.var(axis=0, ddof=1) / 2},
        }.items():
            expected[name] = expected[name] + value
    gradients = {
        **{"w1": first.weight.grad, "b1": first.bias.grad, "matrix": conv.weight.grad[:, :, 0, 0, 0]},
        **{"w2": second.weight.grad, "b2": second.bias.grad},
    }
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient.double().numpy(), expected[name], atol=1e-4, err_msg=name)
    for norm, number in ((first, 1), (second, 2)):
        np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * expected[f"mean{number}"], atol=1e-5)
        np.testing.assert_allclose(norm.running_var.numpy(), 0.9 + 0.1 * expected[f"var{number}"], rtol=1e-5)
        assert norm.num_batches_tracked == 1


def test_one_group_is_batch_normalization_of_pytorch():
    ours, theirs = GroupedBatchNorm3d(6), nn.BatchNorm3d(6)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for step in range(3):
        x = clips(4, channels=6).requires_grad_()
        same = x.detach().clone().requires_grad_()
        gradient = torch.randn_like(x)
        set_groups(ours, ClipGroups([0] * 4, 1))
        y, expected = ours(x), theirs(same)
        torch.autograd.backward([y, expected], [gradient, gradient])
        update_running_statistics(ours)
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(x.grad, same.grad, atol=1e-5, rtol=1e-5)
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, msg=f"{name} after step {step}")
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-4, rtol=1e-5)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))


def test_without_groups_it_is_batch_normalization_of_pytorch_to_the_last_bit():
    ours, theirs, x = GroupedBatchNorm3d(6), nn.BatchNorm3d(6), clips(4, channels=6)
    assert torch.equal(ours(x), theirs(x))
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())


def test_clips_do_not_depend_on_the_clips_of_other_groups():
    layers, x = two_layers(), clips(6)
    set_groups(layers, ClipGroups([0, 0, 1, 1, 2, 2], 3))
    together = layers(x)
    for number in range(3):
        set_groups(layers, ClipGroups([0, 0], 1))
        assert torch.equal(layers(x[2 * number : 2 * number + 2]), together[2 * number : 2 * number + 2])


def test_large_means_do_not_hide_the_variance():
    norm, x = GroupedBatchNorm3d(3), torch.randn(4, 3, 2, 8, 8) + 1000
    set_groups(norm, ClipGroups([0, 0, 0, 0], 1))
    var, mean = torch.var_mean(x.double(), (0, 2, 3, 4), correction=0, keepdim=True)
    torch.testing.assert_close(norm(x).double(), (x.double() - mean) / (var + EPS).sqrt(), atol=1e-3, rtol=0)


def test_parts_of_a_step_count_together_and_a_repeated_pass_does_not_count():
    parts, complete, x = two_layers(), two_layers(), clips(4)
    parts.load_state_dict(complete.state_dict())
    set_groups(complete, ClipGroups([0, 0, 1, 1], 2))
    complete(x)
    update_running_statistics(complete)
    for first in (0, 2):
        set_groups(parts, ClipGroups([0, 0], 1))
        parts(x[first : first + 2])
        with frozen_statistics(parts):
            parts(x[first : first + 2])
    update_running_statistics(parts)
    for name, value in complete.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, msg=name)


def test_recomputed_activations_give_the_same_gradients_and_statistics():
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        unit = ResidualUnit(8, 4, 1, temporal=True)
        block = Block(unit, 8, 16, variant="lgd", rank=4)
        x, g = clips(4, channels=8).requires_grad_(), torch.randn(4, 8)
        set_groups(block, ClipGroups([0, 0, 1, 1], 2))
        y, glob = checkpointed(block, x, g) if recompute else block(x, g)
        assert glob is not None
        (y.sum() + glob.square().sum()).backward()
        update_running_statistics(block)
        results.append([x.grad, *(p.grad for p in block.parameters()), *block.state_dict().values()])
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)


def test_frozen_statistics_of_a_network_in_evaluation_mode_stay():
    layers = two_layers().eval()
    set_groups(layers, ClipGroups([0, 1], 2))
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    layers(clips(2))
    update_running_statistics(layers)
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())


def test_bfloat16_has_float32_statistics():
    norm, x = GroupedBatchNorm3d(3), clips(4).bfloat16()
    set_groups(norm, ClipGroups([0, 0, 1, 1], 2))
    y = norm(x)
    assert y.dtype == torch.bfloat16
    reference = GroupedBatchNorm3d(3)
    set_groups(reference, ClipGroups([0, 0, 1, 1], 2))
    assert torch.equal(y, reference(x.float()).bfloat16())
    y.sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.dtype == torch.float32


def test_a_network_keeps_channels_last_in_forward_and_backward_pass():
    network = build(ModelConfig("lgd3d_nano"), classes=4, channels=3)
    set_groups(network, ClipGroups([0] * 8 + [1] * 8, 2))
    formats: list[bool] = []

    def record_format(x: torch.Tensor) -> None:
        formats.append(x.is_contiguous(memory_format=torch.channels_last_3d))

    for module in network.modules():
        if isinstance(module, GroupedBatchNorm3d):
            module.register_forward_pre_hook(lambda _, inputs: inputs[0].register_hook(record_format) and None)
            module.register_forward_hook(lambda _, inputs, output: record_format(output))
    output = network(torch.randn(16, 3, 16, 24, 24))
    network.loss(output, torch.zeros(16, dtype=torch.int64)).total.backward()
    assert len(formats) > 40
    assert all(formats)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++")
def test_compiled_code_gives_the_same_results():
    layers, x = two_layers(), clips(4)
    results = []
    for model in (layers, torch.compile(layers)):
        inputs = x.clone().requires_grad_()
        for norm in (layers[0], layers[3]):
            norm.reset_running_stats()
        layers.zero_grad()
        for _ in range(2):
            set_groups(layers, ClipGroups([0, 0, 1, 1], 2))
            output = model(inputs)
            (output * torch.arange(5)).sum().backward()
            update_running_statistics(layers)
        state = {name: value.clone() for name, value in layers.state_dict().items()}
        results.append([output, inputs.grad, layers[0].weight.grad, layers[1].weight.grad, *state.values()])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, atol=2e-4, rtol=1e-4)


# Groups of a batch of 7 clips: 0 on both workers 0 and 1, 1 on worker 1 alone, 2 on workers 1 and 2. Worker 2 has no
# clip of group 3, which worker 1 holds, but takes part in its sums: its clips were left out as damaged.
NUMBERS = [0, 0, 0, 1, 2, 2, 3]
SHARES: list[Any] = [slice(0, 2), [2, 3, 4, 6], slice(5, 6)]
LOCAL_NUMBERS = [[0, 0], [0, 1, 2, 3], [0]]
LOCAL_GROUPS = [1, 4, 2]


def _train_share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    left, right, empty = dist.new_group([0, 1]), dist.new_group([1, 2]), dist.new_group([1, 2])
    shared = [[(0, left)], [(0, left), (2, right), (3, empty)], [(0, right), (1, empty)]][rank]
    inputs = torch.load(f"{folder}/inputs.pt")
    layers = two_layers()
    layers.load_state_dict(inputs["layers"])
    x = inputs["x"][SHARES[rank]].clone().requires_grad_()
    set_groups(layers, ClipGroups(LOCAL_NUMBERS[rank], LOCAL_GROUPS[rank], shared=shared))
    output = layers(x)
    (output * inputs["loss_weights"][SHARES[rank]]).sum().backward()
    gradients = [parameter.grad for parameter in layers.parameters()]
    for gradient in gradients:
        dist.all_reduce(gradient)
    update_running_statistics(layers)
    state = {name: value.clone() for name, value in layers.state_dict().items()}
    for buffer in layers.buffers():  # as without normalization groups: each worker has statistics of its own
        buffer += rank
    share_running_statistics(layers)
    result = {"output": output, "x": x.grad, "gradients": gradients, "state": state, "shared": layers.state_dict()}
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_groups_spread_over_workers_give_the_results_of_one_worker(tmp_path: Path):
    layers, x, loss_weights = two_layers(), clips(7), torch.randn(7, 4, 2, 4, 5)
    torch.save({"layers": layers.state_dict(), "x": x, "loss_weights": loss_weights}, tmp_path / "inputs.pt")
    spawn(_train_share, (str(tmp_path),), nprocs=3)
    x.requires_grad_()
    set_groups(layers, ClipGroups(NUMBERS, 4))
    output = layers(x)
    (output * loss_weights).sum().backward()
    update_running_statistics(layers)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    for result, share in zip(results, SHARES, strict=True):
        torch.testing.assert_close(result["output"], output[share], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(result["x"], x.grad[share], atol=1e-5, rtol=1e-5)
        for gradient, parameter in zip(result["gradients"], layers.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, atol=1e-4, rtol=1e-5)
        for name, value in layers.state_dict().items():
            torch.testing.assert_close(result["state"][name], value)
        for state in ("state", "shared"):  # rank 0 added 0 to its statistics
            assert all(torch.equal(value, results[0]["state"][name]) for name, value in result[state].items())
