"""The versions on a node, found without importing anything of `lgd` there."""

import importlib.metadata
import importlib.util
import platform
import re
import socket
import time
from pathlib import Path

from lgd.clusters.doctor import advice
from lgd.clusters.doctor.rows import NODE, OK, WARNING, WRONG, Row

DISTRIBUTIONS = {  # names of the packages, by the name in the table
    "Ray": ("ray",),
    "torch": ("torch",),
    "DALI": ("nvidia-dali-cuda130", "nvidia-dali-cuda120", "nvidia-dali-cuda110"),
}
ADVICE = {  # where a version is different from that of the machine on which the command runs
    "lgd": (WRONG, advice.LGD),
    "Ray": (WRONG, advice.RAY),
    "Python": (WRONG, advice.PYTHON),
    "torch": (WARNING, advice.PACKAGE),
    "DALI": (WARNING, advice.PACKAGE),
}
MISSING_ADVICE = {"torch": advice.TORCH, "DALI": advice.DALI}


def introduce() -> dict[str, str]:
    """Return the host name of this node and its versions by name; "" for what is not installed. A task of Ray."""
    versions = {name: _distribution(names) for name, names in DISTRIBUTIONS.items()}
    return {"host": socket.gethostname(), "lgd": _lgd(), "Python": platform.python_version(), **versions}


def clock() -> float:
    """Return the time of this node, seconds since 1970. A task of Ray."""
    return time.time()


def _distribution(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _lgd() -> str:
    """The version of the package that `import lgd` would find: a copy on PYTHONPATH comes before an installed one."""
    found = importlib.util.find_spec("lgd")  # does not import it
    if found is not None and found.origin is not None:
        text = Path(found.origin).read_text()
        if version := re.search(r'^__version__ = "(.+?)"', text, re.MULTILINE):
            return version[1]
    return _distribution(("lgd",))


def version_rows(node: dict[str, str], expected: dict[str, str]) -> list[Row]:
    """Return a row for each version of a node. expected: the versions of the machine on which the command runs."""
    rows = []
    for name, (different, text) in ADVICE.items():
        version, own = node.get(name, ""), expected.get(name, "")
        if not version:
            todo = MISSING_ADVICE.get(name, text.format(version=own))
            rows.append(Row(NODE, name, "not installed", WRONG, todo))
        elif version != own:
            figure = f"{version}, but {own or 'none'} where the command runs"
            rows.append(Row(NODE, name, figure, different, text.format(version=own)))
        else:
            rows.append(Row(NODE, name, version, OK))
    return rows
