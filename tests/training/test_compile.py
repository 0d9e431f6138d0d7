"""A network is compiled only on a node with a compiler."""

from pathlib import Path

import pytest
import torch

from lgd.pipeline.console.errors import UserError
from lgd.training.compile import compile_network

NETWORK = torch.nn.Linear(2, 2)


def test_a_node_without_a_compiler_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for device, needed in (("cpu", r"g\+\+"), ("cuda", "gcc or clang")):
        with pytest.raises(UserError, match=f"--compile needs {needed}, but .* has none") as caught:
            compile_network(NETWORK, torch.device(device))
        assert "\n" not in str(caught.value)
    compiler = tmp_path / "my-compiler"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(compiler))
    compile_network(NETWORK, torch.device("cpu"))
    monkeypatch.setenv("CC", "missing-compiler")
    with pytest.raises(UserError, match="needs missing-compiler"):
        compile_network(NETWORK, torch.device("cuda"))
