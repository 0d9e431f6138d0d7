"""A user's folder whose modules have the names of our folders and of all our dependencies: none may be executed."""

import importlib.metadata
import subprocess
import sys
from collections.abc import Set
from pathlib import Path

PYTHON_M = (sys.executable, "-m", "lgd")
CONSOLE_SCRIPT = (str(Path(sys.executable).parent / "lgd"),)
FOLDERS = (
    "pipeline",
    "preprocessing",
    "training",
    "prediction",
    "detection",
    "clusters",
    "benchmarks",
    "tests",
    "docs",
)
MODULES = ("cli", "triton", "torchvision", "psutil", "scipy", "skimage", "decord", "wandb", "tqdm", "utils", "models")


def write_modules(folder: Path, trace: Path, names: Set[str] | None = None) -> Set[str]:
    """Write modules to `folder` and return their names, by default those of our folders and dependencies.

    A module that is executed appends its name and the command line of its process to the file `trace`, then raises:
    the trace remains even where the exception is caught. `pipeline` is a package, the others are files."""
    if names is None:
        installed = {name for name in importlib.metadata.packages_distributions() if name.isidentifier()}
        names = (installed | {*FOLDERS, *MODULES}) - {"lgd"}
    code = (
        "import sys\n"
        f"with open({str(trace)!r}, 'a') as trace:\n"
        "    trace.write(f'{__name__}: {sys.argv}\\n')\n"
        "raise RuntimeError(f'{__file__} was executed')\n"
    )
    for name in names:
        path = folder / name / "__init__.py" if name == "pipeline" else folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return names


class UserFolder:
    """The folder, and the trace that its modules leave when they are executed."""

    def __init__(self, folder: Path):
        self.folder, self.trace = folder / "user", folder / "trace"
        self.names = write_modules(self.folder, self.trace)

    def run(
        self, launcher: tuple[str, ...], *words: object, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder, check that it succeeds without a trace, and return its result."""
        command = [*launcher, *map(str, words)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert not self.trace.exists(), f"{command}: {self.trace.read_text()}"
        assert done.returncode == 0, done.stderr
        return done
