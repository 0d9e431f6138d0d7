"""A network is compiled only on a node with a compiler, and computes the same."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo

from lgd.pipeline.console.errors import UserError
from lgd.training.models.config import MODELS, Family, ModelConfig
from lgd.training.models.lgd import Network, run_part
from lgd.training.models.normalization import ClipGroups, set_groups, update_running_statistics
from lgd.training.models.zoo import build
from lgd.training.steps.compile import MAX_SIZES, CompiledParts, compile_network, compiles

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family whose second and third block of res2 have the same shapes."""
    monkeypatch.setitem(MODELS, "tiny3d", Family((3, 1, 0, 0), True, "lgd", frames=16, size=16, width=4))
    torch.manual_seed(0)
    torch._dynamo.reset()


def network_of(**fields: Any) -> Network:
    return build(replace(ModelConfig("tiny3d", sketch_dimension=32), **fields), classes=3, channels=2)


def test_a_node_without_a_compiler_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    network = network_of()
    with pytest.raises(UserError, match=r"--compile needs g\+\+, but .* has none.* --compile false") as caught:
        compile_network(network, CPU)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--compile needs Triton, but .* install triton"):
        compile_network(network, GPU)
    assert compiles("auto", GPU)[0] is False
    assert "Triton" in compiles("auto", GPU)[1]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(UserError, match=r"--compile needs gcc or clang, but .* has none"):
        compile_network(network, GPU)
    compiler = tmp_path / "my-compiler"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(compiler))
    compile_network(network, CPU)
    monkeypatch.setenv("CC", "missing-compiler")
    with pytest.raises(UserError, match="needs missing-compiler"):
        compile_network(network, GPU)
    assert compiles("auto", GPU)[0] is False
    monkeypatch.setenv("CC", str(compiler))
    assert compiles("auto", GPU) == (True, "")
    assert compiles("auto", CPU) == (False, "")
    assert compiles(True, CPU) == (True, "")
    assert compiles(False, GPU) == (False, "")


def step(network: Network, groups: list[int] | None, clips: int = 4) -> list[torch.Tensor]:
    """Return losses, gradients and state after a step."""
    video = torch.randn(clips, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    network.zero_grad()
    set_groups(network, ClipGroups(groups, max(groups) + 1) if groups else None)
    losses = network.loss(network(video), torch.arange(clips) % 3)
    losses.total.backward()
    if groups:
        update_running_statistics(network)
    gradients = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    return [*losses.paths.values(), *gradients, *(value.clone() for value in network.state_dict().values())]


@pytest.mark.parametrize(
    ("fields", "groups"),
    [
        ({}, [0, 0, 1, 1]),
        ({"checkpoint_activations": True}, [0, 0, 1, 1]),
        ({"stage": 2, "convolutions": "2d"}, None),
    ],
)
def test_compiled_parts_give_the_same_step(fields: dict, groups: list[int] | None):
    eager = network_of(**fields)
    compiled = network_of(**fields)
    compiled.load_state_dict(eager.state_dict())
    # "aot_eager" traces and differentiates like "inductor", but generates no code.
    compile_network(compiled, CPU, backend="aot_eager", fullgraph=True)
    assert list(compiled.state_dict()) == list(eager.state_dict())
    for _ in range(2):
        torch.testing.assert_close(step(compiled, groups), step(eager, groups), rtol=2e-3, atol=1e-4)


def counted(network: Network) -> list[int]:
    """Let a network be compiled by a backend that counts its graphs; return the list to which it adds them."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    compile_network(network, CPU, backend=backend)
    return graphs


def test_blocks_of_the_same_shape_share_a_compiled_form_and_validation_is_not_compiled():
    network = network_of()
    graphs = counted(network)
    network.eval()
    with torch.no_grad():
        network(torch.randn(1, 2, 16, 20, 28))
    assert graphs == []
    network.train()
    step(network, [0, 0, 1, 1])
    # The stem, the first block of res2, its two equal ones, pool2, and res3.
    assert len(graphs) == 5
    step(network, [0, 1, 0, 1])
    assert len(graphs) == 5


def test_only_the_first_sizes_are_compiled(monkeypatch: pytest.MonkeyPatch):
    network, compiled = network_of(), list[int]()

    def fake_compile(function: Any, **options: Any) -> Any:
        assert function is run_part
        assert options == {"dynamic": False}

        def compiled_function(part: Any, *inputs: Any, checkpointing: bool) -> Any:
            compiled.append(len(inputs[0]))
            return function(part, *inputs)

        return compiled_function

    monkeypatch.setattr(torch, "compile", fake_compile)
    network.run_part = CompiledParts(network)
    for clips in range(1, MAX_SIZES + 3):
        step(network, None, clips=clips)
    assert set(compiled) == set(range(1, MAX_SIZES + 1))
    assert MAX_SIZES == 3


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++")
def test_generated_code_gives_the_same_block():
    network = network_of()
    block = network.res2[1]
    x, g = torch.randn(2, 16, 4, 4, 4), torch.randn(2, 16)
    compile_network(network, CPU)
    torch.testing.assert_close(network.run_part(block, x, g), run_part(block, x, g), rtol=1e-4, atol=1e-4)
    pooled = network.run_part(network.pool2, x)
    assert torch.equal(pooled, run_part(network.pool2, x))
