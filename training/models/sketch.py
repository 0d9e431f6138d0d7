"""The combination classifier (section 3.3): Tensor Sketches of both paths and one linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lgd.training.models.dropout import ClipDropout

CHUNK_BYTES = 1 << 26
"""Maximum memory of the count sketches of the clips that are computed at the same time."""


def count_sketch(vectors: Tensor, bucket: Tensor, sign: Tensor, *, dimension: int) -> Tensor:
    """Return the count sketch: cs(v)_j = sum of sign(i) v_i over bucket(i) = j; (... x C, C, C) -> ... x dimension."""
    sketch = vectors.new_zeros((*vectors.shape[:-1], dimension))
    return sketch.index_add(-1, bucket, vectors * sign)


class TensorSketch(nn.Module):
    """ts(v), whose inner products estimate the squared inner products of the vectors (the bilinear kernel).

    ts(v) = irfft(rfft(cs(v; h1, s1)) rfft(cs(v; h2, s2))): circular convolution of two count sketches with independent
    hash functions, which are drawn from `generator` and saved in the state dict."""

    buckets: Tensor
    signs: Tensor

    def __init__(self, channels: int, dimension: int, generator: torch.Generator) -> None:
        super().__init__()
        self.dimension = dimension
        shape = (2, channels)
        # Explicitly on the CPU, so that the hash functions do not depend on where and how the network is built.
        buckets = torch.randint(dimension, shape, generator=generator, device="cpu")
        signs = torch.randint(2, shape, generator=generator, device="cpu", dtype=torch.int8) * 2 - 1
        self.register_buffer("buckets", buckets)
        self.register_buffer("signs", signs)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the mean sketch over positions: N x P x C -> N x D; float32 (float64 for float64) even in autocast.

        Several chunks of clips are computed one after the other, and their count sketches again in the backward pass:
        those of all clips would need hundreds of megabytes."""
        vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        clip_bytes = vectors.shape[1] * self.dimension * vectors.element_size()
        chunks = torch.split(vectors, max(CHUNK_BYTES // clip_bytes, 1))
        if len(chunks) == 1:
            return self._mean_sketch(vectors)
        sketches: list[Tensor] = [
            checkpoint(self._mean_sketch, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks
        ]
        return torch.cat(sketches)

    def _mean_sketch(self, vectors: Tensor) -> Tensor:
        first = torch.fft.rfft(count_sketch(vectors, self.buckets[0], self.signs[0], dimension=self.dimension))
        second = torch.fft.rfft(count_sketch(vectors, self.buckets[1], self.signs[1], dimension=self.dimension))
        # The inverse transform is linear: one for the mean is enough.
        sketch: Tensor = torch.fft.irfft((first * second).mean(1), n=self.dimension)
        return sketch


def signed_sqrt_l2(sketch: Tensor) -> Tensor:
    """Apply the signed square root, then L2 normalization over the last dimension.

    The slope of the root is unbounded at zero, where the values of a float32 transform are only rounding errors. Below
    a millionth of the vector's root mean square the root is replaced by its secant, which is linear."""
    floor = 1e-6 * sketch.detach().square().mean(-1, keepdim=True).sqrt() + 1e-20
    return functional.normalize(sketch / torch.maximum(sketch.abs(), floor).sqrt(), dim=-1)


class CombinationClassifier(nn.Module):
    """phi = [mean_i ts(x_L^i), ts(g_L)] (eq. 5) and a linear layer on it (eq. 7).

    Each path has its own hash functions. Each is normalized separately, so that neither dominates. Without a global
    path (variant none) phi is only the local half."""

    def __init__(
        self,
        channels: int,
        classes: int,
        dimension: int,
        *,
        seed: int,
        normalize: bool,
        global_path: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        generator = torch.Generator("cpu").manual_seed(seed)
        self.normalize = normalize
        self.local_sketch = TensorSketch(channels, dimension, generator)
        self.global_sketch = TensorSketch(channels, dimension, generator) if global_path else None
        self.dropout = ClipDropout(dropout, dimension * (2 if global_path else 1), "combined")
        self.linear = nn.Linear(dimension * (2 if global_path else 1), classes)

    def features(self, x: Tensor, g: Tensor | None) -> Tensor:
        """Return phi: local N x C x T x H x W, global N x C -> N x D or N x 2D, float32 (float64 for float64)."""
        halves = [self.local_sketch(x.flatten(2).transpose(1, 2))]
        if self.global_sketch is not None:
            assert g is not None
            halves.append(self.global_sketch(g.unsqueeze(1)))
        if self.normalize:
            halves = [signed_sqrt_l2(half) for half in halves]
        return torch.cat(halves, dim=1)

    def forward(self, x: Tensor, g: Tensor | None) -> Tensor:
        """Return the logits, N x classes."""
        logits: Tensor = self.linear(self.dropout(self.features(x, g)))
        return logits
