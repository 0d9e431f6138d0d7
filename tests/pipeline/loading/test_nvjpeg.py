"""The version of nvJPEG, read from the installed library, which needs no GPU."""

import importlib.metadata
from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.loading import nvjpeg


def test_the_version_is_that_of_the_installed_package():
    packaged = importlib.metadata.version("nvidia-nvjpeg").split(".")[:3]
    assert nvjpeg.nvjpeg_version() == tuple(map(int, packaged))


@pytest.mark.parametrize("version", [(12, 4, 0), (13, 1, 9)])
def test_an_old_version_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]):
    monkeypatch.setattr(nvjpeg, "nvjpeg_version", lambda: version)
    installed = ".".join(map(str, version))
    with pytest.raises(UserError) as caught:
        nvjpeg.check_nvjpeg()
    assert str(caught.value) == (
        f"decoding on a GPU needs nvJPEG 13.2 or later, and {installed} is installed: "
        "pip install --upgrade 'nvidia-nvjpeg>=13.2'"
    )


@pytest.mark.parametrize("version", [(13, 2, 0), (13, 3, 2), (14, 0, 0)])
def test_newer_versions_are_accepted(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]):
    monkeypatch.setattr(nvjpeg, "nvjpeg_version", lambda: version)
    nvjpeg.check_nvjpeg()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nvjpeg, "_LIBRARY", "libnvjpeg.so.none")
    monkeypatch.setattr(nvjpeg, "_packaged", list[Path])
    assert nvjpeg.nvjpeg_version() is None
    with pytest.raises(UserError, match=r"needs nvJPEG 13\.2 or later, which is not installed: pip install"):
        nvjpeg.check_nvjpeg()
