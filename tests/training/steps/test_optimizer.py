"""Groups of the optimizer, and what a step of training moves."""

from dataclasses import replace

import pytest
import torch

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.loader import Batch
from lgd.training.models.lgd import Network
from lgd.training.recipes import OptimizerConfig, TrainConfig
from lgd.training.steps.optimizer import NEW_HEAD, load_optimizer, set_new_heads
from lgd.training.steps.step import create_network, train_step
from lgd.training.steps.step_groups import StepGroups
from tests.training.test_run import NANO

CPU = torch.device("cpu")
HEADS = ("local_head.", "global_head.")
ONE = replace(
    NANO, batch_size=4, normalization_group=4, optimizer=OptimizerConfig(lr=0.5, momentum=0.0, weight_decay=0)
)


def network_of(config: TrainConfig) -> tuple[Network, torch.optim.Optimizer]:
    torch.manual_seed(0)
    return create_network(config, 2, CPU)


def step(
    config: TrainConfig, network: Network, optimizer: torch.optim.Optimizer, first: int = 0
) -> dict[str, torch.Tensor]:
    """Train one step on fixed random clips and return the losses."""
    video = torch.randn(4, 3, 16, 32, 32, generator=torch.Generator().manual_seed(first))
    batch = Batch(video, torch.tensor([0, 1, 1, 0]), [""] * 4, list(range(first, first + 4)))
    groups = StepGroups(config, 0, 1, device=CPU)
    losses, *_ = train_step(
        network, network, optimizer, batch=batch, config=config, groups=groups, lr=config.optimizer.lr, workers=1
    )
    return losses


def moved(config: TrainConfig, new: tuple[str, ...] | None = None) -> dict[str, torch.Tensor]:
    """Return by how much a step moves every tensor of a network. new: names of the heads that started anew."""
    network, optimizer = network_of(config)
    if new is not None:
        set_new_heads(network, optimizer, new)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    step(config, network, optimizer)
    return {name: value.double() - before[name].double() for name, value in network.state_dict().items()}


def with_factor(config: TrainConfig, factor: float) -> TrainConfig:
    return replace(config, optimizer=replace(config.optimizer, head_factor=factor))


def test_a_head_factor_of_10_moves_only_the_heads_ten_times_as_far():
    once, tenfold = moved(ONE), moved(with_factor(ONE, 10))
    for name, change in once.items():
        if name.startswith(HEADS):
            assert change.abs().max() > 0
            # Rounding of the weights, about 0.3, to float32.
            assert torch.allclose(tenfold[name], 10 * change, rtol=1e-4, atol=1e-6), name
        else:
            assert torch.equal(tenfold[name], change), name


def test_heads_with_the_weights_of_the_source_have_the_rate_of_the_others():
    once, tenfold = moved(ONE), with_factor(ONE, 10)
    assert all(torch.equal(change, once[name]) for name, change in moved(tenfold, ()).items())
    one_new = moved(tenfold, ("global_head.weight", "global_head.bias"))
    assert torch.equal(one_new["local_head.weight"], once["local_head.weight"])
    assert torch.allclose(one_new["global_head.weight"], 10 * once["global_head.weight"], rtol=1e-4, atol=1e-6)


def test_a_head_factor_must_be_positive():
    for factor in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match=r"--optimizer\.head-factor must be more than 0"):
            OptimizerConfig(head_factor=factor)


def test_groups_exist_only_with_a_head_factor():
    """The checkpoints of other runs stay as they were."""
    network, optimizer = network_of(ONE)
    assert [len(group["params"]) for group in optimizer.param_groups] == [len(list(network.parameters()))]
    _, grouped = network_of(with_factor(ONE, 10))
    assert [group.get(NEW_HEAD) for group in grouped.param_groups] == [None, True, True]


@pytest.mark.parametrize(("freeze", "factor"), [("none", 1.0), ("res4", 10.0)])
def test_a_resumed_optimizer_goes_on_like_the_undisturbed_one(freeze, factor):
    config = with_factor(replace(ONE, freeze_until=freeze, optimizer=OptimizerConfig(lr=0.1)), factor)
    network, optimizer = network_of(config)
    set_new_heads(network, optimizer, ("local_head.weight",))
    step(config, network, optimizer)
    weights, state = {k: v.clone() for k, v in network.state_dict().items()}, optimizer.state_dict()
    state = {**state, "state": {n: {k: v.clone() for k, v in s.items()} for n, s in state["state"].items()}}
    step(config, network, optimizer, 4)
    resumed, resumed_optimizer = network_of(config)
    resumed.load_state_dict(weights)
    load_optimizer(resumed_optimizer, state)
    step(config, resumed, resumed_optimizer, 4)
    for name, value in network.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_the_state_of_an_optimizer_with_other_groups_is_loaded():
    """--resume-from may change the head factor."""
    config = replace(ONE, optimizer=OptimizerConfig(lr=0.1))
    network, optimizer = network_of(config)
    step(config, network, optimizer)
    _, grouped = network_of(with_factor(config, 10))
    load_optimizer(grouped, optimizer.state_dict())
    momenta = [grouped.state[p]["momentum_buffer"] for group in grouped.param_groups for p in group["params"]]
    ours = [optimizer.state[p]["momentum_buffer"] for p in network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(momenta, ours, strict=True))
    assert [group.get(NEW_HEAD) for group in grouped.param_groups] == [None, True, True]
    with pytest.raises(ValueError, match="another number of parameters"):
        load_optimizer(grouped, {"state": {}, "param_groups": [{"params": [0]}]})


def test_frozen_parts_do_not_move_at_all_and_the_others_do():
    config = replace(ONE, freeze_until="res4", optimizer=OptimizerConfig(lr=0.5, weight_decay=0.1))
    for name, change in moved(config).items():
        frozen = name.startswith(("stem", "res2", "res3"))
        assert (change.abs().max().item() == 0) == frozen, name


def test_a_linear_probe_moves_only_the_heads():
    config = replace(ONE, freeze_until="heads")
    changed = {name for name, change in moved(config).items() if change.abs().max() > 0}
    assert changed == {f"{head}{kind}" for head in HEADS for kind in ("weight", "bias")}


def test_frozen_statistics_do_not_move():
    for name, change in moved(replace(ONE, freeze_normalization=True)).items():
        assert (change.abs().max().item() == 0) == name.endswith(
            ("running_mean", "running_var", "num_batches_tracked")
        ), name


def test_dropout_does_not_depend_on_micro_batches():
    config = replace(ONE, model=replace(ONE.model, dropout=0.5), freeze_normalization=True)
    whole, parts = moved(config), moved(replace(config, micro_batch_size=1))
    for name, change in whole.items():
        assert torch.allclose(parts[name], change, rtol=1e-3, atol=1e-6), name
    without = moved(replace(ONE, freeze_normalization=True))
    assert not torch.allclose(without["local_head.weight"], whole["local_head.weight"], atol=1e-4)
