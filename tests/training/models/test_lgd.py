"""The block and the network, compared with equations and tables of the paper."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from lgd.training.models.config import MODELS, ModelConfig
from lgd.training.models.lgd import Block, Network
from lgd.training.models.resnet import ResidualUnit
from lgd.training.models.zoo import build
from tests.training.models import reference

VARIANTS = ["lgd", "v1", "v2", "none"]


def with_random_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give a module weights and batch statistics like those of a trained network: none is zero, one or equal."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
        elif tensor.is_floating_point():
            fan = tensor[0].numel()
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan) ** 0.5)
    return module.double().eval()


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def gradients_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None}


def assert_equal(ours: torch.Tensor, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 1e-3, "the comparison of zeros proves nothing"
    assert np.abs(ours.detach().numpy() - theirs).max() <= 1e-9 * np.abs(theirs).max()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("c_in", "width", "stride"), [(32, 8, 1), (16, 8, 2), (8, 8, 1)])
@pytest.mark.parametrize("temporal", [True, False])
def test_block_follows_the_equations(variant, c_in, width, stride, temporal):
    c_out = 4 * width
    unit = ResidualUnit(c_in, width, stride, temporal=temporal)
    block = with_random_weights(Block(unit, c_in, c_out, variant=variant, rank=2))
    x = torch.randn(2, c_in, 4, 6, 5, dtype=torch.float64)
    g = None if variant == "none" else torch.randn(2, c_in, dtype=torch.float64)
    expected_x, expected_g = reference.block(x.numpy(), g if g is None else g.numpy(), arrays(block), variant, stride)
    new_x, new_g = block(x, g)
    assert_equal(new_x, expected_x)
    if variant == "none":
        assert new_g is None
    else:
        assert_equal(new_g, expected_g)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nano_network_follows_the_equations(variant):
    config = ModelConfig("lgd3d_nano", variant=variant)
    network = with_random_weights(build(config, classes=5, channels=3))
    plan = reference.Plan(MODELS["lgd3d_nano"].blocks, True, variant)
    _compare(network, plan, torch.randn(2, 3, 16, 28, 36, dtype=torch.float64))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("stride_on", ["3x3", "1x1"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["small3d", "small2d"])
def test_stages_and_transitions_follow_the_equations(name, variant, stride_on):
    family = MODELS[name]
    network = with_random_weights(
        build(ModelConfig(name, variant=variant, spatial_stride=stride_on), classes=3, channels=2)
    )
    plan = reference.Plan(family.blocks, family.temporal, variant, stride_on=stride_on)
    _compare(network, plan, torch.randn(2, 2, family.frames, 32, 32, dtype=torch.float64))


@pytest.mark.usefixtures("small")
def test_long_clips_follow_the_equations():
    network = with_random_weights(build(ModelConfig("small3d", frames=128), classes=3, channels=3))
    plan = reference.Plan(MODELS["small3d"].blocks, True, "lgd", pool1_frames=4)
    _compare(network, plan, torch.randn(1, 3, 128, 8, 8, dtype=torch.float64))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_combination_classifier_follows_the_equations(variant, normalize):
    config = ModelConfig("small3d", variant=variant, stage=2, sketch_dimension=48, sketch_normalize=normalize)
    network = with_random_weights(build(config, classes=3, channels=3))
    plan = reference.Plan(MODELS["small3d"].blocks, True, variant, sketch_dimension=48, normalize=normalize)
    _compare(network, plan, torch.randn(2, 3, 16, 32, 32, dtype=torch.float64))


def _compare(network: nn.Module, plan: reference.Plan, video: torch.Tensor) -> None:
    output = network(video)
    x, g, logits = reference.network(video.numpy(), arrays(network), plan)
    assert_equal(output.local, x)
    if g is None or plan.variant == "none":
        assert output.glob is None
    else:
        assert_equal(output.glob, g)
    assert output.logits().keys() == logits.keys()
    for path, expected in logits.items():
        assert_equal(output.logits()[path], expected)


def test_videos_of_any_height_and_width_can_be_tested():
    network = build(ModelConfig("lgd3d_nano"), classes=4, channels=3).eval()
    for size in [(56, 56), (60, 80), (33, 47)]:
        output = network(torch.randn(1, 3, 16, *size))
        assert output.local_logits.shape == output.global_logits.shape == (1, 4)
        assert output.local.shape[2:] == (4, -(-size[0] // 8), -(-size[1] // 8))


def test_the_complete_network_keeps_channels_last():
    network = build(ModelConfig("lgd3d_nano"), classes=4, channels=3)
    formats = []

    def record_format(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        formats.append(output.is_contiguous(memory_format=torch.channels_last_3d))

    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.BatchNorm3d | nn.MaxPool3d):
            module.register_forward_hook(record_format)
    network(torch.randn(16, 3, 16, 24, 24))  # for small batches on one core torch's CPU convolutions change the format
    assert len(formats) > 40
    assert all(formats)


def test_loss_is_the_sum_of_both_cross_entropies():
    network = build(ModelConfig("lgd3d_nano"), classes=4, channels=3)
    label = torch.tensor([0, 3, 1])
    output = network(torch.randn(3, 3, 16, 32, 32))
    losses = network.loss(output, label)
    expected = {
        path: -logits.detach().double().numpy()[range(3), label]
        + np.log(np.exp(logits.detach().double().numpy()).sum(1))
        for path, logits in (("local", output.local_logits), ("global", output.global_logits))
    }
    for path, entropies in expected.items():
        assert losses.paths[path].item() == pytest.approx(entropies.mean(), rel=1e-5)
        assert not losses.paths[path].requires_grad
    assert losses.total.item() == pytest.approx(sum(e.mean() for e in expected.values()), rel=1e-5)


def test_weighted_losses_of_shares_of_different_sizes_add_up_to_the_loss_of_the_batch():
    network = build(ModelConfig("lgd3d_nano"), classes=4, channels=3).eval()
    video, label = torch.randn(5, 3, 16, 32, 32), torch.tensor([0, 1, 2, 3, 0])
    batch_loss = network.loss(network(video), label).total
    weight = torch.full((5,), 1 / 5)
    shares = [slice(0, 4), slice(4, 5)]
    parts = [network.loss(network(video[s]), label[s], weight[s]).total.item() for s in shares]
    assert sum(parts) == pytest.approx(batch_loss.item(), rel=1e-5)


def test_probabilities_are_the_mean_of_both_heads():
    network = build(ModelConfig("lgd3d_nano"), classes=4, channels=3).eval()
    output = network(torch.randn(2, 3, 16, 32, 32))._replace(
        local_logits=torch.tensor([[0.0, 0.0], [100.0, 0.0]]), global_logits=torch.tensor([[0.0, 100.0], [0.0, 0.0]])
    )
    torch.testing.assert_close(network.probabilities(output), torch.tensor([[0.25, 0.75], [0.75, 0.25]]))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("stage", [1, 2])
def test_activation_checkpointing_changes_neither_gradients_nor_statistics(stage):
    config = ModelConfig("small3d", stage=stage, sketch_dimension=32)
    plain = build(config, classes=3, channels=3)
    checkpointed = build(dataclasses.replace(config, checkpoint_activations=True), classes=3, channels=3)
    assert checkpointed.checkpointing
    assert not plain.checkpointing
    checkpointed.load_state_dict(plain.state_dict())
    video, label = torch.randn(2, 3, 16, 32, 32), torch.tensor([0, 2])
    saved_numbers = []
    for network in (plain, checkpointed):
        saved = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            total = network.loss(network(video), label).total
        saved_numbers.append(saved)
        total.backward()
    assert saved_numbers[1] < saved_numbers[0] / 2
    for (name, first), second in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert first.grad is not None, name
        torch.testing.assert_close(first.grad, second.grad, msg=name)
    torch.testing.assert_close(dict(plain.named_buffers()), dict(checkpointed.named_buffers()))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stage", [1, 2])
def test_every_parameter_gets_a_gradient(variant, stage):
    """DistributedDataParallel waits forever for a parameter that is not used in the loss."""
    network = build(ModelConfig("small3d", variant=variant, stage=stage, sketch_dimension=32), classes=3, channels=3)
    network.loss(network(torch.randn(2, 3, 16, 32, 32)), torch.tensor([0, 1])).total.backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_compiles_without_graph_breaks(stage, checkpoint_activations):
    config = ModelConfig("small3d", stage=stage, sketch_dimension=32, checkpoint_activations=checkpoint_activations)
    network = build(config, classes=3, channels=3)
    video, label = torch.randn(2, 3, 16, 16, 16), torch.tensor([0, 2])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def step(run) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        network.load_state_dict(before)
        network.zero_grad()
        total = network.loss(run(video), label).total
        total.backward()
        gradients = gradients_of(network)
        return total.detach(), gradients, {name: buffer.clone() for name, buffer in network.named_buffers()}

    # "aot_eager" traces and differentiates like "inductor", but generates no code.
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(step(compiled), step(network), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("stage", [1, 2])
def test_a_step_does_not_wait_for_values_from_the_gpu(stage):
    """Tensors on the meta device have no values: an operation that would wait for the GPU raises an error."""
    with torch.device("meta"):
        network = Network(ModelConfig("small3d", stage=stage, sketch_dimension=32), classes=3, channels=3)
        network.to("meta")
        output = network(torch.randn(2, 3, 16, 16, 16))
        label = torch.zeros(2, dtype=torch.int64)
        network.loss(output, label, torch.ones(2)).total.backward()
        assert network.probabilities(output).shape == (2, 3)


@pytest.mark.parametrize("stage", [1, 2])
def test_bf16_autocast_trains_with_float32_losses(stage):
    network = build(ModelConfig("lgd3d_nano", stage=stage, sketch_dimension=64), classes=4, channels=3)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(2, 3, 16, 32, 32))
        losses = network.loss(output, torch.tensor([0, 1]))
    assert output.local.dtype == torch.bfloat16
    assert losses.total.dtype == network.probabilities(output).dtype == torch.float32
    losses.total.backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients_of(network).values())
