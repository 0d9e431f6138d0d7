"""The bytes of the numba solver, and its cache of compiled code."""

import os
import subprocess
import sys
from pathlib import Path

from lgd.preprocessing.flow.tvl1 import solver_version

# The output of DIGEST_PROGRAM by solver version. If it changes, solver_version must change too: shards with the old and
# the new bytes must not mix.
NUMBA_DIGEST = {"1": "2529d53162ff40a9"}
DIGEST_PROGRAM = """
import hashlib, numpy as np
from lgd.preprocessing.flow.tvl1 import BACKENDS, compute_flow
frames = np.random.default_rng(0).integers(0, 256, (3, 45, 70)).cumsum(1) % 256
print(hashlib.sha256(compute_flow(frames.astype(np.uint8)).tobytes()).hexdigest()[:16])
"""


def start_digest(cache: Path, **processor: str) -> "subprocess.Popen[str]":
    """Start DIGEST_PROGRAM in a process of its own. processor: numba settings of the processor to compile for."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **processor}
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", DIGEST_PROGRAM]
    return subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True)


def digest_of(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return output.strip()


def test_the_bytes_of_a_solver_version_are_the_same_on_any_processor_and_while_the_cache_is_filled(tmp_path):
    # Three processes start with an empty cache at once, one of them as on a processor without wide vectors.
    starting = [start_digest(tmp_path) for _ in range(2)]
    starting.append(start_digest(tmp_path, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=""))
    expected = NUMBA_DIGEST[solver_version("numba")]
    assert [digest_of(process) for process in starting] == [expected] * 3
    cached = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    assert len({path.parents[1] for path in cached}) == 2  # one folder per processor
    assert digest_of(start_digest(tmp_path)) == expected
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == cached
    assert not list(tmp_path.rglob("*.tmp.*"))


def test_the_flow_is_computed_without_a_folder_for_the_cache(tmp_path):
    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    assert digest_of(start_digest(not_a_folder)) == NUMBA_DIGEST[solver_version("numba")]
