"""Real videos for the tests in this folder. They lie beside the project and are not part of it."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data. Without it the tests are skipped; in CI (CI=true) they fail."""
    folder = (Path(__file__).parents[2] / "../shared/data").resolve()
    if not folder.is_dir():
        reason = f"there is no folder of real videos {folder}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
