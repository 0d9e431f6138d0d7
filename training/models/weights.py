"""Where a network's weights come from: from scratch, a 2D ResNet trained on ImageNet, or another of these networks."""

from __future__ import annotations

from torch import nn

from training.models.lgd import Network
from training.models.resnet import ResidualUnit


def initialise(network: Network) -> None:
    """From scratch: Xavier for every convolution and matrix, biases 0, batch normalisation 1 and 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm3d):
            module.reset_parameters()
    if network.config.zero_last_bn:
        for module in network.modules():
            if isinstance(module, ResidualUnit):
                nn.init.zeros_(module.expand.bn.weight)
