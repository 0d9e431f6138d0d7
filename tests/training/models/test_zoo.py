"""training/models/zoo.py: names, sizes, and the errors of a wrong configuration."""

from typing import Any

import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.training.models.zoo import MODELS, ModelConfig, build, count, listing


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return listing(classes=400)


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


def test_lgd_itself_costs_8_million_multiplications():
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


def test_parameters_of_every_family_follow_the_closed_form(rows):
    for row in rows:
        assert row["parameters"] == closed_form(row["name"], row["stage"], classes=400, channels=3), row


def test_flow_has_only_a_narrower_conv1():
    for name in ("lgd3d_nano", "tsn_r50"):
        assert count(ModelConfig(name), 7, 2).parameters == closed_form(name, 1, classes=7, channels=2)


def test_v1_and_v2_count_only_their_own_matrices():
    whole, v1, v2, none = (
        count(ModelConfig("lgd3d_r50", variant=v), 400, 3).parameters  # type: ignore[arg-type]
        for v in ("lgd", "v1", "v2", "none")
    )
    assert v2 == whole
    assert none < v1 < whole
    w_xg = 4 * (64 * 16 + 16 * 256) // 4 + 2 * 2 * 256 * 16  # res2
    w_xg += (256 + 512) * 32 + 3 * 2 * 512 * 32 + (512 + 1024) * 64 + 5 * 2 * 1024 * 64
    w_xg += (1024 + 2048) * 128 + 2 * 2 * 2048 * 128
    assert v1 - none == w_xg + 2048 * 400 + 400


def test_listing_has_both_stages_and_both_clip_lengths(rows):
    assert all(set(row) == {"name", "stage", "classes", "parameters", "gmac", "input"} for row in rows)
    keys = [(row["name"], row["stage"], row["input"][1]) for row in rows]
    expected = [(n, s, t) for n, f in MODELS.items() for t in ((16, 128) if f.temporal else (3,)) for s in (1, 2)]
    assert keys == expected
    sizes = {key: row for key, row in zip(keys, rows, strict=True)}
    short, long = sizes["lgd3d_r101", 1, 16], sizes["lgd3d_r101", 1, 128]
    assert short["parameters"] == long["parameters"]
    assert 4 < long["gmac"] / short["gmac"] < 8  # conv1 sees 8 times the frames, what follows pool1 4 times
    assert sizes["lgd2d_r50", 1, 3]["input"] == [3, 3, 224, 224]


def test_counting_is_of_the_network_that_is_built():
    config = ModelConfig("lgd3d_nano", variant="v2", stage=2, sketch_dimension=512)
    network = build(config, classes=5, channels=2)
    assert count(config, 5, 2).parameters == sum(parameter.numel() for parameter in network.parameters())


def test_nano_is_small_enough_for_a_cpu():
    size = count(ModelConfig("lgd3d_nano"), classes=4, channels=3)
    assert size.parameters < 1_000_000
    assert size.gmac < 0.2


@pytest.mark.parametrize(
    ("config", "classes", "says"),
    [
        (ModelConfig("lgd3d_r5"), 4, "lgd3d_r50"),
        (ModelConfig("resnet"), 4, "tsn_r50"),
        (ModelConfig(variant="v3"), 4, "v3"),  # type: ignore[arg-type]
        (ModelConfig(stage=3), 4, "1 or 2"),  # type: ignore[arg-type]
        (ModelConfig(frames=15), 4, "multiple of 4 frames"),
        (ModelConfig(frames=132), 4, "multiple of 8 frames"),
        (ModelConfig(rank_divisor=3), 4, "rank divisor"),
        (ModelConfig(spatial_stride="7x7"), 4, "7x7"),  # type: ignore[arg-type]
        (ModelConfig(sketch_dimension=0), 4, "sketch dimension"),
        (ModelConfig(), 0, "at least one class"),
    ],
)
def test_wrong_usage_gets_one_clear_line(config, classes, says):
    for refuse in (build, count):
        with pytest.raises(UsageError) as error:
            refuse(config, classes, 3)
        assert says in str(error.value)
        assert "\n" not in str(error.value)
