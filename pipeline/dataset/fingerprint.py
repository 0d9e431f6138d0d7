"""The fingerprint of a dataset: changes with every key, label, split and number of frames, and with their order."""

import hashlib
import json
from collections.abc import Sequence


class Fingerprint:
    """SHA-256 of the classes of a dataset and of its videos, which are added in the order of the index."""

    def __init__(self, classes: Sequence[str]):
        self._digest = hashlib.sha256(json.dumps(list(classes)).encode())

    def add(self, key: str, label: int | None, split: str, *, frames: int) -> None:
        """Add a video. label: None if it has none. frames: of the rgb stream."""
        self._digest.update(json.dumps([key, label, split, frames]).encode())

    def hex(self) -> str:
        """Return the fingerprint as `dataset.json` stores it."""
        return self._digest.hexdigest()
