"""Sizes of the networks, and the errors of wrong configurations."""

import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.training.models.config import MODELS, ModelConfig, Variant
from lgd.training.models.zoo import build, count


@pytest.mark.parametrize(
    ("config", "parameters", "gmac"),
    [
        (ModelConfig("lgd3d_r50"), 36_134_240, 22.57),
        (ModelConfig("lgd3d_r50", variant="none"), 28_120_016, 22.57),
        (ModelConfig("lgd3d_r50", spatial_stride="1x1"), 36_134_240, 21.65),
        # The paper's backbones, and two heads of 2048 x 400 + 400.
        (ModelConfig("lgd2d_r50"), 30_702_656 + 2 * 819_600, 12.27),
        (ModelConfig("lgd2d_r50", spatial_stride="1x1"), 30_702_656 + 2 * 819_600, 11.58),
    ],
)
def test_sizes_of_the_paper(config, parameters, gmac):
    size = count(config, classes=400, channels=3)
    assert size.parameters == parameters
    assert round(size.gmac, 2) == gmac


def test_local_and_global_diffusion_costs_8_million_multiply_accumulates():
    with_lgd, without = (count(ModelConfig(name), 400, 3) for name in ("lgd3d_r50", "p3d_r50"))
    assert round(with_lgd.gmac - without.gmac, 3) == 0.008


def closed_form(name: str, stage: int, classes: int, channels: int) -> int:
    """Parameters summed over Table 1 and the factors of W_xg, W_gx and W_gg."""
    family = MODELS[name]
    w = c_in = family.width
    total = channels * 49 * w + 2 * w + (3 * w * w + 2 * w if family.temporal else 0)
    for level, units in enumerate(family.blocks):
        m = w * 2**level
        c = 4 * m
        for unit in range(units):
            total += c_in * m + 9 * m * m + m * c + 2 * (m + m + c)
            total += 3 * m * m + 2 * m if family.temporal else 0
            total += c_in * c + 2 * c if unit == 0 else 0
            total += (2 * (c_in + c) + 2 * c) * (c // 16) if family.variant == "lgd" else 0
            c_in = c
    paths = 2 if family.variant == "lgd" else 1
    return total + (paths * (c_in * classes + classes) if stage == 1 else paths * 8192 * classes + classes)


def test_parameters_of_every_family_and_stage_follow_the_closed_form():
    for name in MODELS:
        for stage in (1, 2):
            parameters = count(ModelConfig(name, stage=stage), 400, 3).parameters
            assert parameters == closed_form(name, stage, classes=400, channels=3), (name, stage)


def test_flow_networks_differ_from_rgb_networks_only_in_conv1():
    for name in ("lgd3d_nano", "tsn_r50"):
        assert count(ModelConfig(name), 7, 2).parameters == closed_form(name, 1, classes=7, channels=2)


def test_variants_v1_and_v2_have_only_the_matrices_of_their_equations():
    variants: tuple[Variant, ...] = ("lgd", "v1", "v2", "none")
    lgd, v1, v2, none = (count(ModelConfig("lgd3d_r50", variant=v), 400, 3).parameters for v in variants)
    assert v2 == lgd
    assert none < v1 < lgd
    w_xg = 4 * (64 * 16 + 16 * 256) // 4 + 2 * 2 * 256 * 16  # res2
    w_xg += (256 + 512) * 32 + 3 * 2 * 512 * 32 + (512 + 1024) * 64 + 5 * 2 * 1024 * 64
    w_xg += (1024 + 2048) * 128 + 2 * 2 * 2048 * 128
    assert v1 - none == w_xg + 2048 * 400 + 400


def test_count_gives_the_size_of_the_network_that_is_built():
    config = ModelConfig("lgd3d_nano", variant="v2", stage=2, sketch_dimension=512)
    network = build(config, classes=5, channels=2)
    assert count(config, 5, 2).parameters == sum(parameter.numel() for parameter in network.parameters())


def test_nano_is_small_enough_for_a_cpu():
    size = count(ModelConfig("lgd3d_nano"), classes=4, channels=3)
    assert size.parameters < 1_000_000
    assert size.gmac < 0.2


@pytest.mark.parametrize(
    ("config", "classes", "message"),
    [
        (ModelConfig("lgd3d_r5"), 4, "lgd3d_r50"),
        (ModelConfig("resnet"), 4, "tsn_r50"),
        (ModelConfig(variant="v3"), 4, "v3"),  # type: ignore[arg-type]
        (ModelConfig(stage=3), 4, "1 or 2"),  # type: ignore[arg-type]
        (ModelConfig(frames=15), 4, "multiple of 4 frames"),
        (ModelConfig(frames=132), 4, "multiple of 8 frames"),
        (ModelConfig(rank_divisor=3), 4, "--model.rank-divisor must divide 256 channels"),
        (ModelConfig(spatial_stride="7x7"), 4, "7x7"),  # type: ignore[arg-type]
        (ModelConfig(sketch_dimension=0), 4, "--model.sketch-dimension"),
        (ModelConfig(), 0, "at least one class"),
    ],
)
def test_a_wrong_configuration_is_refused_with_one_line(config, classes, message):
    for function in (build, count):
        with pytest.raises(UsageError) as error:
            function(config, classes, 3)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
