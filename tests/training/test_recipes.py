from dataclasses import replace

import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.clip_order import Sampling
from lgd.training.models.config import ModelConfig
from lgd.training.models.zoo import check_model_config
from lgd.training.recipes import (
    RECIPES,
    REPRODUCTIONS,
    OptimizerConfig,
    TrainConfig,
    recipe_defaults,
    recipe_named,
    reproduction_named,
)


@pytest.mark.parametrize("name", RECIPES)
def test_the_network_of_every_recipe_can_be_built(name: str):
    recipe = RECIPES[name]
    check_model_config(recipe.model, classes=400, channels=3 if recipe.stream == "rgb" else 2)


def test_the_learning_rate_follows_the_schedule_of_the_paper():
    """50 epochs, 64 clips per batch, 0.01 divided by 10 every 20 epochs."""
    recipe, videos = RECIPES["kinetics400-rgb-r50"], 240_000
    epoch = videos // 64
    assert recipe.steps(videos) == 50 * epoch
    rates = [recipe.learning_rate(step, videos) for step in (0, 20 * epoch - 1, 20 * epoch, 40 * epoch - 1, 40 * epoch)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001])


def test_the_learning_rate_rises_linearly_in_the_warmup():
    config = TrainConfig(batch_size=10, optimizer=OptimizerConfig(lr=1.0, warmup=2.0))
    assert [config.learning_rate(step, 50) for step in range(12)] == pytest.approx(
        [i / 10 for i in range(1, 11)] + [1.0, 1.0]
    )


def test_a_batch_size_that_does_not_divide_the_videos_still_uses_every_clip():
    assert replace(RECIPES["nano-rgb"], batch_size=16, epochs=1.0).steps(50) == 4


def test_clips_are_consecutive_frames_for_3d_networks_and_one_frame_per_segment_for_2d_networks():
    assert TrainConfig(stride=2).sampling == Sampling(16, 2, segments=False)
    assert TrainConfig(model=ModelConfig(name="lgd2d_r50")).sampling == Sampling(3, 1, segments=True)


def test_an_unknown_recipe_is_refused_with_a_similar_one():
    with pytest.raises(UsageError, match="unknown recipe 'nano-flwo'; did you mean nano-flow"):
        recipe_named("nano-flwo")


@pytest.mark.parametrize("name", REPRODUCTIONS)
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_chain_is_of_one_stream_and_only_its_first_recipe_starts_from_new_weights(name: str, stream: str):
    chain = [recipe_named(recipe.format(stream=stream)) for recipe in REPRODUCTIONS[name]]
    assert {config.stream for config in chain} == {stream}
    assert chain[0].model.stage == 1
    assert all(later.model.stage == 2 or later.model.clip_frames == 128 for later in chain[1:])


def test_an_unknown_chain_is_refused_with_all_chains():
    with pytest.raises(UsageError, match="unknown chain 'nono': choose from nano, nano-com, kinetics400-r50-com"):
        reproduction_named("nono")


def test_the_options_after_a_recipe_have_its_values_as_defaults():
    assert recipe_defaults(["nano-rgb", "--data", "d"]) == {"config": RECIPES["nano-rgb"]}
    assert recipe_defaults(["--help"]) == recipe_defaults([]) == {}
    with pytest.raises(UsageError, match=r"the recipe must come first: RECIPE --data \.\.\."):
        recipe_defaults(["--data", "d", "nano-rgb"])


@pytest.mark.parametrize("field", ["batch_size", "micro_batch_size", "epochs", "test_clips"])
def test_numbers_that_must_be_positive_are_checked(field: str):
    with pytest.raises(UsageError, match=f"--{field.replace('_', '-')} must be more than 0, not 0"):
        TrainConfig(**{field: 0})  # type: ignore[arg-type]  # fields of different types
