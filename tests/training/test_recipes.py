import json
from dataclasses import replace

import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.pipeline.loading.clip_order import Sampling
from lgd.training.models.config import ModelConfig
from lgd.training.models.zoo import check_model_config
from lgd.training.recipes import RECIPES, REPRODUCTIONS, OptimizerConfig, TrainConfig, flatten, recipe_named, unflatten


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_survives_its_own_json(name: str):
    recipe = RECIPES[name]
    check_model_config(recipe.model, classes=400, channels=3 if recipe.stream == "rgb" else 2)
    assert unflatten(TrainConfig(), json.loads(json.dumps(flatten(recipe)))) == recipe


def test_the_papers_schedule():
    """50 epochs of 64 clips, 0.01 divided by 10 every 20 epochs, whatever the workers."""
    recipe, videos = RECIPES["kinetics400-rgb-r50"], 240_000
    epoch = videos // 64
    assert recipe.steps(videos) == 50 * epoch
    rates = [recipe.learning_rate(step, videos) for step in (0, 20 * epoch - 1, 20 * epoch, 40 * epoch - 1, 40 * epoch)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001])


def test_the_rate_rises_linearly_while_warming_up():
    config = TrainConfig(batch_size=10, optimizer=OptimizerConfig(lr=1.0, warmup=2.0))
    assert [config.learning_rate(step, 50) for step in range(12)] == pytest.approx(
        [i / 10 for i in range(1, 11)] + [1.0, 1.0]
    )


def test_a_batch_that_does_not_divide_the_epoch_still_sees_every_clip():
    assert replace(RECIPES["nano-rgb"], batch_size=16, epochs=1.0).steps(50) == 4


def test_3d_networks_take_consecutive_frames_and_2d_networks_one_of_each_segment():
    assert TrainConfig(stride=2).sampling == Sampling(16, 2, segments=False)
    assert TrainConfig(model=ModelConfig(name="lgd2d_r50")).sampling == Sampling(3, 1, segments=True)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean nano-flow"):
        recipe_named("nano-flwo")


@pytest.mark.parametrize("name", REPRODUCTIONS)
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_chain_ends_in_its_stream_and_only_its_first_recipe_starts_from_nothing(name: str, stream: str):
    chain = [recipe_named(recipe.format(stream=stream)) for recipe in REPRODUCTIONS[name]]
    assert {config.stream for config in chain} == {stream}
    assert chain[0].model.stage == 1
    assert all(later.model.stage == 2 or later.model.clip_frames == 128 for later in chain[1:])
