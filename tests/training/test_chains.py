import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.training.chains import REPRODUCTIONS, TRANSFERS, reproduction_named
from lgd.training.recipes import FINE_TUNING, recipe_named


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


@pytest.mark.parametrize("name", TRANSFERS)
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_transfer_is_of_fine_tuning_recipes_of_one_stream_and_depth(name: str, stream: str):
    recipes = [recipe.format(stream=stream) for recipe in TRANSFERS[name].chain]
    assert all(recipe in FINE_TUNING for recipe in recipes)
    assert recipes[0] == f"{name.split('-')[0]}-{stream}-{name.split('-')[1]}"
    configs = [recipe_named(recipe) for recipe in recipes]
    assert {config.stream for config in configs} == {stream}
    assert [config.model.stage for config in configs] == [1, 2][: len(configs)]


def test_the_accuracies_of_the_paper():
    ucf, hmdb = TRANSFERS["ucf101-r101"].paper, TRANSFERS["hmdb51-r50-com"].paper
    assert ucf == {"rgb": 0.970, "flow": 0.968, "fused": 0.982}
    assert hmdb == {"rgb": 0.757, "flow": 0.789, "fused": 0.805}
