"""The result of a benchmark that checks claims."""

from dataclasses import dataclass, field
from typing import Any

from lgd.pipeline.console.command_line import CommandResult, with_json_key


@dataclass(frozen=True, kw_only=True)
class ClaimsResult(CommandResult):
    """Result of a benchmark that fails if a claim is not met."""

    claims_not_met: list[str] = field(metadata=with_json_key("failed"))
    """The claims that the measurements do not support, one sentence per claim."""

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = super().document()
        document["failed"] = document.pop("claims_not_met")
        return document

    @property
    def failed(self) -> str:
        return f"claims not met: {'; '.join(self.claims_not_met)}" if self.claims_not_met else ""
