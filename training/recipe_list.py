"""`lgd recipes`: list the recipes, or print one of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Column, Table

from lgd.pipeline.console.command_line import AT_TOP_LEVEL, IS_THE_DOCUMENT, CommandResult, Line
from lgd.training.chains import REPRODUCTIONS, TRANSFERS
from lgd.training.config_file import option_name, to_flat_dict
from lgd.training.recipes import RECIPES, TrainConfig, recipe_named


@dataclass(frozen=True)
class RecipeList(CommandResult):
    """Result of `lgd recipes`. The JSON document maps each name to the fields of that recipe."""

    recipes: Mapping[str, TrainConfig] = field(default_factory=lambda: RECIPES, metadata=IS_THE_DOCUMENT)
    """Recipes by name."""

    def document(self) -> dict[str, dict[str, Any]]:
        return {name: to_flat_dict(config) for name, config in self.recipes.items()}

    def lines(self) -> list[Line]:
        name = Column("recipe", min_width=26)
        table = Table(name, "network", "stage", "frames", "crop", "batch", "epochs", "lr")
        for recipe, config in self.recipes.items():
            model = config.model
            network = model.name if model.variant is None else f"{model.name} {model.variant}"
            numbers = (model.stage, model.clip_frames, config.transform.crop, config.batch_size, config.epochs)
            table.add_row(recipe, network, *(f"{number:g}" for number in numbers), f"{config.optimizer.lr:g}")
        return [table, "chains for lgd reproduce: " + ", ".join([*REPRODUCTIONS, *TRANSFERS])]


@dataclass(frozen=True)
class RecipeDetails(CommandResult):
    """Result of `lgd recipes NAME`. The JSON document has the name of the recipe and every field of it."""

    recipe: str
    """Name of the recipe."""
    config: TrainConfig = field(metadata=AT_TOP_LEVEL)
    """Its configuration."""

    def document(self) -> dict[str, Any]:
        return {"recipe": self.recipe, **to_flat_dict(self.config)}

    def lines(self) -> list[Line]:
        table = Table("option of lgd train", "value", title=self.recipe)
        for name, value in to_flat_dict(self.config).items():
            table.add_row(option_name(name), str(value))
        return [table]


def list_recipes(name: str | None) -> RecipeList | RecipeDetails:
    """Return all recipes, or one by name. Raises UsageError for a recipe that does not exist."""
    return RecipeList() if name is None else RecipeDetails(name, recipe_named(name))
