"""Options of `lgd train` that are not part of the recipe."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class ResumeOptions:
    """Where a run resumes."""

    resume_from: Annotated[int | None, arg(metavar="STEP")] = None
    """Go back to the checkpoint of this step, for example after the loss diverged; the options of the optimizer may be
    different from there on. Later checkpoints are deleted. Rerun without this option to resume from the newest
    checkpoint, which is the default."""
