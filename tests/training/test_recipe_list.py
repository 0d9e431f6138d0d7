"""`lgd recipes`."""

from typing import Any

import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.training.config_file import to_flat_dict
from lgd.training.recipe_list import list_recipes
from lgd.training.recipes import RECIPES


def cells(line: Any) -> list[list[str]]:
    """Return the columns of a table."""
    return [list(column.cells) for column in line.columns]


def test_the_json_document_maps_every_recipe_to_its_fields():
    document = list_recipes(None).document()
    assert document.keys() == RECIPES.keys()
    assert document["nano-rgb"] == to_flat_dict(RECIPES["nano-rgb"])


def test_every_recipe_is_a_row_and_the_chains_are_named():
    table, chains = list_recipes(None).lines()
    columns = cells(table)
    assert columns[0] == list(RECIPES)
    row = list(RECIPES).index("kinetics400-flow-r50-v1")
    assert [column[row] for column in columns[1:]] == ["lgd3d_r50 v1", "1", "16", "112", "64", "50", "0.01"]
    assert str(chains).startswith("chains for lgd reproduce: nano, nano-com, ")


def test_one_recipe_is_printed_with_the_options_of_its_fields():
    nano = list_recipes("nano-flow")
    assert nano.document() == {"recipe": "nano-flow", **to_flat_dict(RECIPES["nano-flow"])}
    (table,) = nano.lines()
    options = dict(zip(*cells(table), strict=True))
    assert (options["--optimizer.lr"], options["--optimizer.max-grad-norm"]) == ("0.02", "None")
    assert len(options) == len(to_flat_dict(RECIPES["nano-flow"]))


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UsageError, match="unknown recipe 'nano'"):
        list_recipes("nano")
