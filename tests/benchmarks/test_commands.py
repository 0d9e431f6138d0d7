"""The commands of `lgd bench`: their checks of values, and what they import."""

import subprocess
import sys

import pytest

from lgd.benchmarks.commands import BENCHES, bench_flow, bench_loader, bench_preprocess, bench_train, check_minimum
from lgd.pipeline.console.errors import UsageError


@pytest.mark.parametrize(
    ("command", "arguments", "options", "message"),
    [
        (bench_flow, ["x"], {"videos": 0}, "--videos must be 1 or more, not 0"),
        (bench_flow, ["x"], {"pairs": -1}, "--pairs must be 1 or more, not -1"),
        (bench_preprocess, ["x"], {"limit": 0}, "--limit must be 1 or more, not 0"),
        (bench_preprocess, ["x"], {"rounds": 0}, "--rounds must be 1 or more, not 0"),
        (bench_loader, ["x"], {"short_side": 100}, "--short-side must be 112 or more, not 100"),
        (bench_loader, ["x"], {"seconds": -0.5}, "--seconds must be 0 or more, not -0.5"),
        (bench_train, ["nano-rgb"], {"threads": 0}, "--threads must be 1 or more, not 0"),
    ],
)
def test_values_below_the_minimum_are_usage_errors(command, arguments: list[str], options: dict, message: str):
    with pytest.raises(UsageError, match=f"^{message}$"):
        command(*arguments, **options)


def test_a_minimum_is_allowed_and_nan_is_not():
    check_minimum("--seconds", 0, 0)
    with pytest.raises(UsageError, match="not nan"):
        check_minimum("--seconds", float("nan"), 0)


def test_the_list_of_commands_imports_nothing_slow():
    assert list(BENCHES) == ["flow", "loader", "preprocess", "train"]
    code = "import sys, lgd.benchmarks.commands; print({'cv2', 'ray', 'torch', 'numba', 'av'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
