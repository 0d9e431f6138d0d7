"""The optimizer of a training, and the learning rate of its groups of parameters.

With a `head_factor` other than 1, each head has a group of its own, in which `new_head` says whether the head started
with new weights. Checkpoints keep that with the options of the group."""

from collections.abc import Collection
from typing import Any

import torch

from lgd.training.models.frozen import head_parameters
from lgd.training.models.lgd import Network
from lgd.training.recipes import OptimizerConfig

NEW_HEAD = "new_head"  # option of the group of a head


def create_optimizer(network: Network, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer of a network with new weights. Frozen parameters are in it and do not change."""
    parameters: list[Any] = list(network.parameters())
    if config.head_factor != 1:
        heads = list(head_parameters(network).values())
        of_heads = {id(parameter) for head in heads for parameter in head}
        body = [parameter for parameter in parameters if id(parameter) not in of_heads]
        parameters = [{"params": body}, *({"params": head, NEW_HEAD: True} for head in heads)]
    # A GPU updates all parameters in one kernel. The state, and so a checkpoint, is the same.
    fused = True if next(network.parameters()).device.type == "cuda" else None
    return torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float, config: OptimizerConfig) -> None:
    """Set the learning rate of a step; heads that started with new weights have `head_factor` times that rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * config.head_factor if group.get(NEW_HEAD) else lr


def set_new_heads(network: Network, optimizer: torch.optim.Optimizer, new: Collection[str]) -> None:
    """Say which heads started with new weights. new: names of the parameters that did."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for group in optimizer.param_groups:
        if NEW_HEAD in group:
            group[NEW_HEAD] = any(names[id(parameter)] in new for parameter in group["params"])


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimizer of the same network, also of one with other groups or options: groups and options
    stay as they are, except that the state says which heads started with new weights.

    Raises ValueError, KeyError or TypeError for the state of a different network."""
    ours, theirs = optimizer.state_dict()["param_groups"], state["param_groups"]
    if sum(len(group["params"]) for group in ours) != sum(len(group["params"]) for group in theirs):
        raise ValueError("the state is of another number of parameters")
    options = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    # The parameters have the same order in every layout: the heads come last.
    optimizer.load_state_dict({**state, "param_groups": ours})
    for number, group in enumerate(optimizer.param_groups):
        group.update(options[number])
        if NEW_HEAD in group and len(theirs) == len(ours):
            group[NEW_HEAD] = bool(theirs[number].get(NEW_HEAD, True))
