"""The result of a benchmark that checks claims."""

from dataclasses import dataclass
from typing import Any, ClassVar

from lgd.pipeline.console.command_line import CommandResult


@dataclass(frozen=True, kw_only=True)
class ClaimsResult(CommandResult):
    """Result of a benchmark that fails if a claim is not met.

    claims_not_met: one sentence per claim; the JSON document calls it `failed`."""

    claims_not_met: list[str]

    OPTIONAL: ClassVar[tuple[str, ...]] = ()  # fields that the document leaves out if they are None

    def document(self) -> dict[str, Any]:
        fields = super().document()
        fields["failed"] = fields.pop("claims_not_met")
        return {name: value for name, value in fields.items() if value is not None or name not in self.OPTIONAL}

    @property
    def failed(self) -> str:
        return f"claims not met: {'; '.join(self.claims_not_met)}" if self.claims_not_met else ""
