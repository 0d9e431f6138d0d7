"""The Tensor Sketch and the combination classifier."""

import numpy as np
import pytest
import torch

from lgd.training.models.config import MODELS, Family, ModelConfig
from lgd.training.models.sketch import CombinationClassifier, TensorSketch, signed_sqrt_l2
from lgd.training.models.zoo import build
from tests.training.models import reference


def sketch(channels: int, dimension: int, seed: int = 0) -> TensorSketch:
    return TensorSketch(channels, dimension, torch.Generator().manual_seed(seed))


def test_the_sketch_of_a_vector_computed_by_hand():
    ts = sketch(channels=4, dimension=8)
    ts.buckets.copy_(torch.tensor([[3, 1, 4, 1], [0, 2, 7, 5]]))
    ts.signs.copy_(torch.tensor([[1, -1, 1, 1], [-1, 1, 1, -1]]))
    out = ts(torch.tensor([[[1.0, 3.0, 5.0, 7.0]]], dtype=torch.float64))
    assert out[0].tolist() == pytest.approx([13, -39, 5, 36, -5, 3, -13, 0], abs=1e-12)


@pytest.mark.parametrize("dimension", [64, 63])
def test_mean_over_positions_follows_the_definition(dimension):
    ts = sketch(channels=24, dimension=dimension, seed=3)
    vectors = torch.randn(2, 7, 24, dtype=torch.float64)
    ours = ts(vectors).numpy()
    hashes = {name: tensor.numpy() for name, tensor in ts.state_dict().items()}
    theirs = np.array([reference.mean_sketch(rows, hashes, dimension) for rows in vectors.numpy()])
    assert np.abs(ours - theirs).max() <= 1e-9 * np.abs(theirs).max()


def _bias(damage=lambda ts: None) -> float:
    """Return the mean error of the estimated squared inner product over 3000 draws of the hash functions, in standard
    errors. damage: changes a sketch before it is used."""
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.rand(1, 1, 12, dtype=torch.float64, generator=generator) + 0.2 for _ in range(2))
    estimates = []
    for _ in range(3000):
        ts = TensorSketch(12, 32, generator)
        damage(ts)
        estimates.append((ts(u) @ ts(v).T).item())
    error = np.array(estimates) - ((u * v).sum() ** 2).item()
    return abs(error.mean()) / (error.std() / len(error) ** 0.5)


def test_inner_product_is_unbiased_over_hashes():
    assert _bias() < 4


def test_a_wrong_sign_is_detected_as_bias():
    assert _bias(lambda ts: ts.signs[1].fill_(1)) > 8


def test_a_shared_hash_function_is_detected_as_bias():
    def share(ts: TensorSketch) -> None:
        ts.buckets[1], ts.signs[1] = ts.buckets[0], ts.signs[0]

    assert _bias(share) > 8


def test_the_four_hash_functions_of_a_classifier_are_uniform_and_independent():
    classifier = CombinationClassifier(2048, 3, dimension=8192, seed=0, normalize=True, global_path=True)
    assert classifier.global_sketch is not None
    pairs = [(s.buckets[i], s.signs[i]) for s in (classifier.local_sketch, classifier.global_sketch) for i in (0, 1)]
    for i, (buckets, signs) in enumerate(pairs):
        assert 0 <= buckets.min() < 50
        assert 8141 < buckets.max() < 8192
        assert set(signs.tolist()) == {-1, 1}
        assert abs(signs.double().mean()) < 0.1
        for other_buckets, other_signs in pairs[:i]:
            assert (buckets == other_buckets).double().mean() < 0.01
            assert 0.4 < (signs == other_signs).double().mean() < 0.6


def test_gradients_in_double_precision():
    ts = sketch(channels=5, dimension=8)
    vectors = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ts, vectors)
    assert torch.autograd.gradcheck(lambda v: signed_sqrt_l2(ts(v)), vectors)


def test_signed_square_root_has_finite_gradients_at_zero():
    sketched = torch.tensor([[0.0, -4.0, 9.0, 1e-30], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    out = signed_sqrt_l2(sketched)
    torch.testing.assert_close(out[0].detach(), torch.tensor([0.0, -2.0, 3.0, 0.0]) / 13**0.5)
    out.sum().backward()
    assert sketched.grad is not None
    assert torch.isfinite(sketched.grad).all()


def test_sketches_are_float32_in_autocast():
    ts = sketch(channels=64, dimension=256)
    vectors = (100 * torch.rand(2, 5, 64)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = ts(vectors)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, ts(vectors.float()), rtol=0, atol=0)
    exact = ts(vectors.double())
    assert (out - exact).abs().max() < 1e-5 * exact.abs().max()
    # The squares of large float16 numbers overflow in float16, but not in float32.
    assert torch.isfinite(ts(torch.full((1, 1, 64), 60000.0, dtype=torch.float16))).all()


def test_a_sketch_uses_much_less_memory_than_sketch_matrices():
    """C x D matrices of +-1 would be 67 MB for each hash at C = 2048, D = 8192."""
    ts = sketch(channels=2048, dimension=8192)
    assert sum(buffer.numel() for buffer in ts.buffers()) == 4 * 2048
    saved = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    vectors = torch.randn(1, 4, 2048, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ts(vectors)
    assert saved < 2048 * 8192 * 4 / 50


def test_hashes_are_saved_and_restored(monkeypatch):
    monkeypatch.setitem(MODELS, "small", Family((1, 1, 1, 1), True, "lgd", frames=16, size=32, width=4))
    first = build(ModelConfig("small", stage=2, sketch_dimension=64, sketch_seed=1), classes=3, channels=3).eval()
    second = build(ModelConfig("small", stage=2, sketch_dimension=64, sketch_seed=2), classes=3, channels=3).eval()
    video = torch.randn(2, 3, 16, 32, 32)
    second.load_state_dict({k: v for k, v in first.state_dict().items() if "sketch" not in k}, strict=False)
    assert not torch.allclose(first(video).combined_logits, second(video).combined_logits)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(video).combined_logits, second(video).combined_logits)


def test_hashes_do_not_depend_on_the_global_random_state():
    config = ModelConfig("lgd3d_nano", stage=2)
    torch.manual_seed(1)
    first = build(config, classes=3, channels=3)
    torch.manual_seed(2)
    second = build(config, classes=3, channels=2)
    hashes = [name for name in first.state_dict() if "_sketch." in name]
    assert len(hashes) == 4
    for name in hashes:
        assert torch.equal(first.get_buffer(name), second.get_buffer(name)), name


@pytest.mark.parametrize("clips", [1, 2, 3])
def test_chunks_of_clips_give_the_same_sketch_and_gradient_with_less_memory(
    clips: int, monkeypatch: pytest.MonkeyPatch
):
    ts, vectors = sketch(channels=6, dimension=32), torch.randn(5, 4, 6, dtype=torch.float64)
    results: list[tuple] = []
    stored = []
    for chunk_bytes in (1 << 26, clips * 4 * 32 * 8):
        monkeypatch.setattr("lgd.training.models.sketch.CHUNK_BYTES", chunk_bytes)
        inputs = vectors.clone().requires_grad_()
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = ts(inputs)
        output.backward(torch.arange(160, dtype=torch.float64).reshape(5, 32))
        results.append((output.detach(), inputs.grad))
        stored.append(sum(sizes))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)  # an FFT rounds differently for other numbers of rows
    assert stored[1] < stored[0] / 4
    with torch.no_grad():
        torch.testing.assert_close(ts(vectors), results[0][0])
