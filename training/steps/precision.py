"""The precision of the network: float32, or bfloat16 by PyTorch's autocast."""

from typing import Literal

import torch


def autocast(precision: Literal["float32", "bfloat16"], device: torch.device) -> torch.autocast:
    """Return PyTorch's autocast for the precision of a configuration."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
