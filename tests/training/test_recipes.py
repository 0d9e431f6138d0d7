from dataclasses import replace

import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.clip_order import Sampling
from lgd.training.models.config import ModelConfig
from lgd.training.models.zoo import check_model_config, count
from lgd.training.recipes import (
    RECIPES,
    OptimizerConfig,
    TrainConfig,
    recipe_defaults,
    recipe_named,
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


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51"])
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_fine_tuning_follows_the_specification(dataset: str, stream: str):
    recipe, videos = RECIPES[f"{dataset}-{stream}-r101"], 9600
    optimizer = recipe.optimizer
    assert recipe.steps(videos) == 100 * videos // 64
    rates = [recipe.learning_rate(epoch * 150, videos) for epoch in (0, 39, 40, 79, 80, 99)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert (optimizer.momentum, optimizer.weight_decay, optimizer.max_grad_norm) == (0.9, 5e-4, 40)
    assert (optimizer.head_factor, recipe.model.dropout, recipe.freeze_normalization) == (10, 0.8, True)
    assert (recipe.stream, recipe.batch_size, recipe.validation.split) == (stream, 64, "")
    com = RECIPES[f"{dataset}-{stream}-r101-com"]
    assert (com.model.stage, com.model.dropout, com.epochs) == (2, 0.8, 25)
    assert (com.optimizer.lr, com.optimizer.drop_every, com.optimizer.weight_decay) == (5e-4, 10, 5e-4)


@pytest.mark.parametrize(
    ("recipe", "classes", "parameters"),
    [
        ("ucf101-rgb-r50", 101, 34_908_938),
        ("ucf101-flow-r50", 101, 34_908_938 - 3_136),
        ("hmdb51-rgb-r50", 51, 34_704_038),
        ("hmdb51-flow-r50", 51, 34_704_038 - 3_136),
        ("ucf101-rgb-r101", 101, 63_936_778),
        ("hmdb51-rgb-r101", 51, 63_731_878),
    ],
)
def test_the_networks_of_fine_tuning_have_the_sizes_of_the_specification(recipe: str, classes: int, parameters: int):
    config = RECIPES[recipe]
    assert count(config.model, classes, 3 if config.stream == "rgb" else 2).parameters == parameters


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


def test_the_options_after_a_recipe_have_its_values_as_defaults():
    assert recipe_defaults(["nano-rgb", "--data", "d"]) == {"config": RECIPES["nano-rgb"]}
    assert recipe_defaults(["--help"]) == recipe_defaults([]) == {}
    with pytest.raises(UsageError, match=r"the recipe must come first: RECIPE --data \.\.\."):
        recipe_defaults(["--data", "d", "nano-rgb"])


@pytest.mark.parametrize("field", ["batch_size", "micro_batch_size", "epochs", "test_clips"])
def test_numbers_that_must_be_positive_are_checked(field: str):
    with pytest.raises(UsageError, match=f"--{field.replace('_', '-')} must be more than 0, not 0"):
        TrainConfig(**{field: 0})  # type: ignore[arg-type]  # fields of different types
