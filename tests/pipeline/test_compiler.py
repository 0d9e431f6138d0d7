"""Compilers of this machine."""

import shutil

from lgd.pipeline.compiler import missing_compiler


def test_any_of_the_usual_compilers_is_sufficient(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda program: "/usr/bin/clang" if program == "clang" else None)
    assert missing_compiler("CC") is None
    monkeypatch.delenv("CXX", raising=False)
    assert missing_compiler("CXX") == "g++"


def test_a_compiler_that_the_environment_names_is_the_only_one(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}" if program == "gcc" else None)
    monkeypatch.setenv("CC", "icx")
    assert missing_compiler("CC") == "icx"
    monkeypatch.setenv("CC", "gcc")
    assert missing_compiler("CC") is None
