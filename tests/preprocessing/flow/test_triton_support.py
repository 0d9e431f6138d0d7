"""Whether a machine can run Triton."""

import importlib.util
import sysconfig

import pytest

from lgd.preprocessing.flow import triton_support
from lgd.preprocessing.flow.triton_support import reason_against_triton


@pytest.fixture
def triton_installed(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "triton" or find_spec(name))


@pytest.mark.usefixtures("triton_installed")
def test_a_machine_with_triton_a_compiler_and_headers_has_no_reason(monkeypatch, tmp_path):
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(triton_support, "missing_compiler", lambda _: None)
    assert reason_against_triton() is None


@pytest.mark.usefixtures("triton_installed")
def test_what_is_missing_and_what_to_install_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(triton_support, "missing_compiler", lambda _: None)
    assert "python3-dev" in str(reason_against_triton())
    monkeypatch.setattr(triton_support, "missing_compiler", lambda _: "gcc or clang")
    assert "(gcc or clang): install one (Debian and Ubuntu: gcc libc6-dev)" in str(reason_against_triton())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "a CUDA build of PyTorch" in str(reason_against_triton())
