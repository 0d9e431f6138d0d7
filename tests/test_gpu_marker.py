"""The tests in tests/gpu without a GPU: skipped with the reason, unless GPU=true requires one."""

import os
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "gpu"
REASON = "needs an NVIDIA GPU that this PyTorch can use"
LINE = "-" * 8 + "between the runs"
BOTH = f"""
import os, pytest
words = ["-q", "-rsfE", "-p", "no:cacheprovider", "-m", "gpu", "--color=no", "tests/gpu"]
skipped = pytest.main(words)
print("{LINE}")
os.environ["GPU"] = "true"
failed = pytest.main(words)
print("{LINE}", int(skipped), int(failed))
"""


def test_without_a_gpu_the_tests_are_skipped_with_the_reason_and_with_gpu_true_they_fail():
    changes_output = ("GPU", "CI", "BUILD_NUMBER")  # with the last two, pytest prints each reason twice
    env = {name: value for name, value in os.environ.items() if name not in changes_output and name[:7] != "PYTEST_"}
    done = subprocess.run(
        [sys.executable, "-c", BOTH],
        cwd=FOLDER.parents[1],
        env={**env, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    without, required, codes = done.stdout.split(LINE)
    assert codes.split() == ["0", "1"]
    skipped = sum(int(count) for count in re.findall(r"^SKIPPED \[(\d+)\] .*", without, re.MULTILINE))
    reasons = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", without, re.MULTILINE)
    assert set(reasons) == {REASON}
    failed = re.findall(r"^(?:ERROR|FAILED) (tests/gpu/\S+)", required, re.MULTILINE)
    assert "SKIPPED" not in required
    assert len(failed) == skipped > 0
    assert required.count(f"{REASON}, and GPU=true\n") == len(failed)
    assert {name.partition("::")[0] for name in failed} == {
        f"tests/gpu/{path.name}" for path in FOLDER.glob("test_*.py")
    }
