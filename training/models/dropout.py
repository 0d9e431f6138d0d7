"""Dropout before the heads. What is dropped of a clip depends only on the seed, the clip's position in the clip order
and the head: a resumed run, and a run with any number of workers, drops the same numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

HEADS = ("local", "global", "combined")  # whose numbers are part of the random numbers


class ClipDropout(nn.Module):
    """Dropout of representations N x C in training mode: each number becomes 0 with the probability p, and the others
    are divided by 1 - p.

    `set_dropout` draws the mask of the clips before each forward pass. With p = 0 nothing is drawn or changed."""

    def __init__(self, p: float, channels: int, head: str) -> None:
        super().__init__()
        self.p, self.channels, self.head = p, channels, head
        self.mask: Tensor | None = None  # N x C: 0, or 1 / (1 - p)

    def forward(self, x: Tensor) -> Tensor:
        """Return the representations, N x C, with numbers dropped."""
        if self.p == 0 or not self.training:
            return x
        if self.mask is None or self.mask.shape != x.shape:
            raise RuntimeError("a network with dropout needs `set_dropout` before each forward pass in training mode")
        return x * self.mask.to(x.dtype)

    def draw(self, seed: int, positions: Sequence[int]) -> Tensor:
        """Return the mask of the clips at these positions of the clip order: N x C, float32, on the CPU."""
        threshold = np.uint64(min(int(self.p * 2.0**64), 2**64 - 1))
        mask = np.empty((len(positions), self.channels), np.float32)
        for row, position in enumerate(positions):
            # The raw numbers of a bit generator are the same in every version of NumPy.
            key = np.array([seed % 2**64, position], np.uint64)
            bits = np.random.Philox(key=key, counter=[0, 0, 0, HEADS.index(self.head)]).random_raw(self.channels)
            mask[row] = bits >= threshold
        return torch.from_numpy(mask / np.float32(1 - self.p))


def set_dropout(network: nn.Module, seed: int, positions: Sequence[int], *, device: torch.device | str = "cpu") -> None:
    """Draw the masks of the clips of the next forward pass. positions: of these clips, in the clip order."""
    for module in network.modules():
        if isinstance(module, ClipDropout) and module.p:
            module.mask = module.draw(seed, positions).to(device, non_blocking=True)
