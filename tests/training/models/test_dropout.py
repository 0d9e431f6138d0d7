"""Dropout before the heads: a function of seed, position in the clip order and head."""

import numpy as np
import pytest
import torch

from lgd.training.models.config import ModelConfig
from lgd.training.models.dropout import ClipDropout, set_dropout
from lgd.training.models.lgd import Network
from lgd.training.models.zoo import build

NANO = ModelConfig("lgd3d_nano", dropout=0.8)


def test_the_fraction_p_is_dropped_and_the_others_keep_the_mean():
    dropout = ClipDropout(0.8, 4096, "local")
    dropout.mask = dropout.draw(0, range(8))
    x = dropout(torch.ones(8, 4096))
    assert x.unique().tolist() == pytest.approx([0, 5])
    assert (x == 0).float().mean().item() == pytest.approx(0.8, abs=0.01)  # 4.5 standard deviations


def test_the_mask_of_a_clip_does_not_depend_on_the_clips_beside_it():
    dropout = ClipDropout(0.5, 64, "global")
    whole, part = dropout.draw(3, [5, 6, 7, 8]), dropout.draw(3, [8, 6])
    assert torch.equal(part, whole[[3, 1]])


def test_seeds_positions_and_heads_have_different_masks():
    masks = [
        ClipDropout(0.5, 64, head).draw(seed, [position])
        for seed, position, head in [
            (0, 0, "local"),
            (1, 0, "local"),
            (0, 1, "local"),
            (0, 0, "global"),
            (-1, 0, "local"),
        ]
    ]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == len(masks)


def test_masks_are_the_same_on_every_machine_and_in_every_version():
    """Raw numbers of Philox: those of a run that started with another version of NumPy must not change."""
    kept = np.flatnonzero(ClipDropout(0.5, 16, "combined").draw(7, [1000])[0].numpy())
    assert kept.tolist() == [3, 4, 6, 7, 9, 12, 13, 14, 15]


@pytest.mark.parametrize("stage", [1, 2])
def test_every_head_has_dropout_in_training_only(stage):
    torch.manual_seed(0)
    network = build(ModelConfig("lgd3d_nano", stage=stage, sketch_dimension=64, dropout=0.8), 3, 3)
    same = build(ModelConfig("lgd3d_nano", stage=stage, sketch_dimension=64), 3, 3)
    same.load_state_dict(network.state_dict())  # dropout has no parameters and no buffers
    video = torch.randn(2, 3, 16, 32, 32)
    for each in (network, same):
        each.eval()
    for name, logits in network(video).logits().items():
        assert torch.equal(logits, same(video).logits()[name])
    for each in (network, same):
        each.train()
        for module in each.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
    set_dropout(network, 0, [4, 9])
    for name, logits in network(video).logits().items():
        assert not torch.allclose(logits, same(video).logits()[name]), name
    assert len(network(video).logits()) == (2 if stage == 1 else 1)


def test_without_dropout_nothing_is_drawn_or_changed():
    x, dropout = torch.randn(2, 8), ClipDropout(0.0, 8, "local").train()
    state = torch.get_rng_state()
    assert dropout(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_a_mask_of_other_clips_is_not_used():
    torch.manual_seed(0)
    network: Network = build(NANO, 3, 3).train()
    with pytest.raises(RuntimeError, match="set_dropout"):
        network(torch.randn(2, 3, 16, 32, 32))
    set_dropout(network, 0, [1, 2, 3])
    with pytest.raises(RuntimeError, match="set_dropout"):
        network(torch.randn(2, 3, 16, 32, 32))
