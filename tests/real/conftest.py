"""Real videos for the tests in this folder. They lie beside the project and are not part of it."""

import os
from pathlib import Path

import pytest

REAL_VIDEOS = (Path(__file__).parents[2] / "../shared/data").resolve()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data. Without it the tests are skipped; in CI (CI=true) they fail."""
    if not REAL_VIDEOS.is_dir():
        reason = f"there is no folder of real videos {REAL_VIDEOS}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return REAL_VIDEOS
