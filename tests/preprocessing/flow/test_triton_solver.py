"""The Triton solver: its kernels in Triton's interpreter, and what the host does between them."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from lgd.preprocessing.flow import triton_kernels, triton_solver
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.flow.triton_solver import LOOK_ITERATIONS, Tiles, iterations_per_step, tile_counts
from lgd.preprocessing.flow.tvl1 import compute_flow, solver_version
from tests.preprocessing.flow.textures import moving_texture

# The bytes of `whole` below by solver version, see test_numba_solver.
TRITON_DIGEST = {"2": "b4ee48f3fe016471"}

WHOLE = TVL1Params(scales=2, warps=2, outer_iterations=2, inner_iterations=7, epsilon=0.05)
SHORT = TVL1Params(scales=1, warps=1, outer_iterations=1, inner_iterations=7, epsilon=0, median_filtering=3)
FRAMES = moving_texture(3, 20, 26)

# The interpreter is chosen when Triton is imported, so it needs a process of its own.
PROGRAM = """
import sys
import numpy as np, torch
from lgd.preprocessing.flow.triton_solver import Tiles, solve
from tests.preprocessing.flow import test_triton_solver as test

torch.set_num_threads(1)
frames = torch.from_numpy(test.FRAMES).float()
whole = solve(frames, torch.tensor([0, 1], dtype=torch.int32), test.WHOLE, tiles=Tiles((32, 32), (32, 32)))
alone = solve(frames, torch.tensor([1], dtype=torch.int32), test.SHORT, tiles=Tiles((32, 32), (32, 32)))
# Tiles that are smaller than the frame, and the pair in a different place.
tiles = solve(frames, torch.tensor([0, 1], dtype=torch.int32), test.SHORT, tiles=Tiles((32, 16), (16, 32)))
np.savez(
    sys.argv[1], whole=whole.flow, whole_iterations=whole.iterations, alone=alone.flow, tiles=tiles.flow,
    short_iterations=tiles.iterations,
)
"""


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """The results of PROGRAM."""
    path = tmp_path_factory.mktemp("triton") / "flow.npz"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, path],
        env=environment,
        cwd=Path(__file__).parents[3],
        check=True,
        timeout=300,
    )
    with np.load(path) as results:
        return dict(results)


def test_the_flow_is_that_of_numba(interpreted):
    flow = np.moveaxis(interpreted["whole"], 1, -1)
    reference = compute_flow(FRAMES, WHOLE)
    assert np.abs(reference).mean() > 0.2
    np.testing.assert_allclose(flow, reference, atol=1e-3)
    assert np.abs(flow - reference).mean() < 1e-5


def test_each_pair_stops_by_itself(interpreted):
    iterations = interpreted["whole_iterations"]
    assert iterations.shape == (2, 2)  # scales x pairs
    most = WHOLE.warps * WHOLE.outer_iterations * WHOLE.inner_iterations
    assert (iterations < most).any()
    assert (iterations[:, 0] != iterations[:, 1]).any()
    assert (interpreted["short_iterations"] == SHORT.outer_iterations * SHORT.inner_iterations).all()  # epsilon 0


def test_a_pair_has_the_same_bytes_alone_in_a_batch_and_in_other_tiles(interpreted):
    assert interpreted["alone"][0].tobytes() == interpreted["tiles"][1].tobytes()
    np.testing.assert_allclose(np.moveaxis(interpreted["tiles"], 1, -1), compute_flow(FRAMES, SHORT), atol=1e-3)


def test_the_bytes_change_only_with_the_solver_version(interpreted, monkeypatch):
    monkeypatch.setattr("lgd.preprocessing.flow.tvl1.reason_against_triton", lambda: None)
    version = solver_version("torch", "cuda")
    assert hashlib.sha256(interpreted["whole"].tobytes()).hexdigest()[:16] == TRITON_DIGEST[version.split()[0]]
    assert f"torch {torch.__version__}, triton " in version
    assert version.endswith(", cuda)")
    monkeypatch.setattr("lgd.preprocessing.flow.tvl1.reason_against_triton", lambda: "no compiler")
    assert solver_version("torch", "cuda") != version


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 300), (120, 160), (256, 340)])
def test_tiles_cover_the_frame(height, width):
    count = iterations_per_step(height, width, (64, 64))
    numbers = tile_counts(height, width, (64, 64), overlap=2 * count)
    for side, of_tile, tiles in zip((height, width), (64, 64), numbers, strict=True):
        assert (tiles - 1) * (of_tile - 2 * count) + of_tile >= side
        assert tiles == 1 or (tiles - 2) * (of_tile - 2 * count) + of_tile < side  # none too many


def test_the_number_of_iterations_in_a_step_is_that_whose_tiles_fit_the_frame():
    assert iterations_per_step(120, 160, (64, 64)) == 4  # 2 x 3 tiles; of 5 iterations 3 x 3
    assert iterations_per_step(118, 172, (64, 64)) == 5
    assert iterations_per_step(48, 64, (64, 64)) == 6
    assert iterations_per_step(48, 64, (16, 16)) == 4


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_the_host_looks_at_most_once_per_20_iterations_and_stops_soon_after_the_last_pair(monkeypatch, steps):
    launched = {"prepare": 0, "iterate": 0, "advance": 0}
    looks = 0

    def launch(kernel, grid, warps, *arguments, **constants):
        name = kernel.fn.__name__
        launched[name] += 1
        if name == "advance" and launched[name] == steps:
            arguments[0][:, triton_kernels.NEXT.value] = triton_kernels.DONE.value

    def take(look, plans, take=triton_solver._Look.take):
        nonlocal looks
        looks += 1
        take(look, plans)

    monkeypatch.setattr(triton_solver, "_launch", launch)
    monkeypatch.setattr(triton_solver._Look, "take", take)
    triton_solver.solve(torch.zeros(2, 48, 64), torch.tensor([0]), TVL1Params(scales=1), tiles=Tiles())
    count = iterations_per_step(48, 64, (64, 64))
    assert launched["prepare"] == launched["iterate"] == launched["advance"]
    assert looks * LOOK_ITERATIONS <= launched["iterate"] * count
    assert launched["iterate"] <= steps + 2 * -(-LOOK_ITERATIONS // count)


def test_the_kernels_compile_for_an_h100():
    # The interpreter accepts more than the compiler, which needs no GPU. Small tiles and filters, to be quick.
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = {"sums": "*i64", "limit": "*i64", "plans": "*i32", "firsts": "*i32"}
    pointers |= dict.fromkeys(("u", "p", "data", "images", "seconds"), "*fp32")
    types = pointers | dict.fromkeys(("lambda_theta", "theta", "step"), "fp32")
    for kernel, warps, constants in (
        (triton_kernels.iterate, 4, {"MEDIAN": 3, "HEIGHT": 16, "WIDTH": 32}),
        (triton_kernels.prepare, 4, {"MEDIAN": 3, "HEIGHT": 4, "WIDTH": 32}),
        (triton_kernels.advance, 4, {"MEDIAN": 3, "PAIRS": 128}),
    ):
        names = kernel.arg_names
        source = ASTSource(
            kernel,
            {name: "constexpr" if name in constants else types.get(name, "i32") for name in names},
            {(names.index(name),): value for name, value in constants.items()},
        )
        compiled = triton.compile(
            source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "enable_fp_fusion": True}
        )
        assert "sm_90" in compiled.asm["ptx"]
