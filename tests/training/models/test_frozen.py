"""Partial training: which parts of a network are trained."""

import pytest
import torch

from lgd.pipeline.console.errors import UsageError
from lgd.training.models.config import FREEZE_POINTS, ModelConfig
from lgd.training.models.frozen import check_freeze_until, describe_trained, freeze, head_parameters, set_frozen_modes
from lgd.training.models.lgd import Network
from lgd.training.models.zoo import build


def network_of(name: str, stage: int = 1) -> Network:
    with torch.device("meta"):
        return build(ModelConfig(name, stage=stage), 4, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("until", FREEZE_POINTS)
@pytest.mark.parametrize("stage", [1, 2])
def test_parameters_before_the_point_have_no_gradient_and_their_normalization_is_frozen(until, stage):
    network = network_of("lgd3d_r50", stage).train()
    freeze(network, until)
    set_frozen_modes(network, until)
    parts = ("stem", "res2", "res3", "res4", "res5")
    frozen = {"none": (), "heads": parts}.get(until, parts[: parts.index(until)] if until in parts else ())
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (name.split(".")[0] not in frozen), name
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            assert module.training == (name.split(".")[0] not in frozen), name


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("none", "training 33,646,816 of 33,646,816 parameters"),
        ("heads", "training 16,392 of 33,646,816 parameters"),  # 2 x (2048 x 4 + 4)
    ],
)
def test_the_number_of_trained_parameters_is_named(until, message):
    network = network_of("lgd3d_r50")
    freeze(network, until)
    total = sum(parameter.numel() for parameter in network.parameters())
    assert describe_trained(network) == message.replace("33,646,816", f"{total:,}")


def test_a_stage_that_the_network_lacks_is_refused_with_the_choices():
    with pytest.raises(
        UsageError, match=r"^--freeze-until res5: lgd3d_nano has no res5: choose from none, res2, res3, res4, heads$"
    ):
        check_freeze_until(ModelConfig("lgd3d_nano"), "res5")
    for until in FREEZE_POINTS:
        check_freeze_until(ModelConfig("lgd3d_r50"), until)


def test_heads_are_the_last_parameters_of_every_network():
    """The optimizer's groups rely on it, so that checkpoints with other groups can be loaded."""
    for stage in (1, 2):
        network = network_of("lgd3d_r50", stage)
        heads = [parameter for head in head_parameters(network).values() for parameter in head]
        assert list(head_parameters(network)) == (
            ["local_head.", "global_head."] if stage == 1 else ["combination.linear."]
        )
        assert all(a is b for a, b in zip(list(network.parameters())[-len(heads) :], heads, strict=True))
