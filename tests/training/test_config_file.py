"""Configurations in JSON files: types are strict, new fields have defaults, renamed fields are read."""

import json
from typing import Any

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.training.config_file import RENAMED_FIELDS, from_flat_dict, from_json, option_name, to_flat_dict
from lgd.training.recipes import RECIPES, TrainConfig

FLAT = json.loads(json.dumps(to_flat_dict(RECIPES["nano-rgb"])))


def read(**changes: Any) -> TrainConfig:
    """Read the flat dictionary of a recipe with some values changed; __ in a name stands for a dot."""
    flat = FLAT | {name.replace("__", "."): value for name, value in changes.items()}
    return from_flat_dict(TrainConfig, flat, "config.json")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_read_back_from_json(name: str):
    flat = json.loads(json.dumps(to_flat_dict(RECIPES[name])))
    assert from_flat_dict(TrainConfig, flat, "config.json") == RECIPES[name]


@pytest.mark.parametrize("name", FLAT)
def test_a_missing_field_gets_its_default(name: str):
    default = to_flat_dict(TrainConfig())[name]
    flat = {other: value for other, value in FLAT.items() if other != name}
    assert to_flat_dict(from_flat_dict(TrainConfig, flat, "config.json"))[name] == default


@pytest.mark.parametrize(("old", "new"), RENAMED_FIELDS.items())
def test_a_renamed_field_is_read_under_its_old_name(old: str, new: str):
    value = {"optimizer.max_grad_norm": 3.0, "micro_batch_size": 3, "freeze_normalization": True}.get(new, FLAT[new])
    flat = {name: value for name, value in FLAT.items() if name != new}
    assert new in FLAT
    assert to_flat_dict(from_flat_dict(TrainConfig, {**flat, old: value}, "config.json"))[new] == value
    with pytest.raises(UserError, match=f"field {new!r} appears under its old and its new name"):
        from_flat_dict(TrainConfig, {**FLAT, old: value}, "config.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "float8"}, "field 'precision' is 'float8', must be float32 or bfloat16"),
        ({"stream": "audio"}, "field 'stream' is 'audio', must be rgb or flow"),
        ({"model__stage": 3}, "field 'model.stage' is 3, must be 1 or 2"),
        ({"model__variant": "v3"}, "field 'model.variant' is 'v3', must be lgd, v1, v2 or none"),
        ({"model__frames": "sixteen"}, "field 'model.frames' is 'sixteen', must be a whole number"),
        ({"model__frames": 16.5}, "field 'model.frames' is 16.5, must be a whole number"),
        ({"batch_size": 8.0}, "field 'batch_size' is 8.0, must be a whole number"),
        ({"batch_size": True}, "field 'batch_size' is true, must be a whole number"),
        ({"epochs": "4"}, "field 'epochs' is '4', must be a number"),
        ({"optimizer__lr": None}, "field 'optimizer.lr' is null, must be a number"),
        ({"compile": 1}, "field 'compile' is 1, must be true or false or auto"),
        ({"model__checkpoint_activations": 0}, "field 'model.checkpoint_activations' is 0, must be true or false or"),
        ({"compile": "x", "cuda_graph": "x"}, "field 'compile' is 'x', must be true or false or auto$"),
        ({"init_from": 3}, "field 'init_from' is 3, must be text"),
        ({"transform__mean": [1, 2]}, "field 'transform.mean' is a list with too few values"),
        ({"transform__mean": [1, 2, 3, 4]}, r"field 'transform.mean' is \[1, 2, 3, 4\], must be a shorter list"),
        ({"transform__mean": [1, 2, "3"]}, "field 'transform.mean' contains '3', must be a number"),
        ({"transform__mean": 3}, "field 'transform.mean' is 3, must be a list"),
        ({"optimizer": 3}, "field 'optimizer' is both a value and a group of fields"),
        ({"batch_size__x": 3}, "field 'batch_size' is both a value and a group of fields"),
        ({"batch_size": 0}, "--batch-size must be more than 0, not 0"),
        ({"epochs": float("nan")}, "--epochs must be more than 0, not nan"),
        ({"warp": 3}, "unknown field 'warp': it was written by a newer version of lgd; use that version or a later"),
        ({"optimizer__warp": 3}, "unknown field 'optimizer.warp'"),
    ],
)
def test_a_wrong_value_and_an_unknown_field_are_named_in_one_line(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message) as raised:
        read(**changes)
    assert str(raised.value).startswith("config.json: ")
    assert "\n" not in str(raised.value)


def test_a_whole_number_is_a_valid_number():
    assert read(epochs=4).epochs == 4.0


def test_an_unknown_field_names_the_version_that_wrote_it():
    with pytest.raises(UserError, match=r"it was written by lgd 0\.7\.0; use that version or a later one"):
        from_flat_dict(TrainConfig, {**FLAT, "warp": 3}, "config.json", written_by="0.7.0")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is damaged: it is not valid JSON"), (b"[]", "must be a group of fields")],
)
def test_a_file_that_is_not_a_json_object_is_refused(content: bytes, message: str):
    with pytest.raises(UserError, match=message):
        from_json(TrainConfig, content, "config.json")


def test_an_option_is_named_as_on_the_command_line():
    assert option_name("optimizer.max_grad_norm") == "--optimizer.max-grad-norm"
