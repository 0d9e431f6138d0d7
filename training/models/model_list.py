"""`lgd models`: list the networks with their sizes."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.table import Table

from lgd.pipeline.console.command_line import IS_THE_DOCUMENT, CommandResult, Line
from lgd.pipeline.console.errors import UsageError
from lgd.training.models.config import MODELS, ModelConfig
from lgd.training.models.zoo import count


@dataclass(frozen=True)
class ModelRow:
    """One network. Sizes are those for RGB and training crops."""

    name: str
    """Name of the network family."""
    stage: int
    """Training stage, 1 or 2."""
    classes: int
    """Number of classes."""
    parameters: int
    """Number of parameters."""
    gmac: float
    """10^9 multiply-accumulates per clip."""
    input: tuple[int, int, int, int]
    """Channels, frames, height and width of a clip."""


@dataclass(frozen=True)
class ModelList(CommandResult):
    """Result of `lgd models`. The JSON document is the list of rows."""

    rows: tuple[ModelRow, ...] = field(metadata=IS_THE_DOCUMENT)
    """One row per network, number of frames and training stage."""

    def document(self) -> list[dict[str, Any]]:
        return [{**asdict(row), "input": list(row.input)} for row in self.rows]

    def lines(self) -> list[Line]:
        table = Table("name", "stage", "parameters", "GMAC", "input")
        for row in self.rows:
            shape = " x ".join(map(str, row.input))
            table.add_row(row.name, str(row.stage), f"{row.parameters:,}", f"{row.gmac:.3f}", shape)
        return [table]


def list_models(classes: int) -> ModelList:
    """Return the size of every family at both training stages, 3D families with 16 and 128 frames.

    Raises UsageError for less than one class."""
    if classes < 1:
        raise UsageError(f"--classes must be 1 or more, not {classes}")
    stages: tuple[Literal[1, 2], ...] = (1, 2)
    rows = []
    for name, family in MODELS.items():
        for frames in (16, 128) if family.temporal else (family.frames,):
            for stage in stages:
                size = count(ModelConfig(name=name, stage=stage, frames=frames), classes, channels=3)
                rows.append(ModelRow(name, stage, classes, size.parameters, round(size.gmac, 4), size.input))
    return ModelList(tuple(rows))
