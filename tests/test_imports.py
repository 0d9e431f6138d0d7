"""The directions of imports between the folders, as each folder's `__init__.py` describes them."""

from pathlib import Path

import pytest

from tests.support.import_graph import ImportGraph, build_graph, cycles, package_edges, read_sources

ROOT = Path(__file__).parents[1]
MAY_IMPORT: dict[str, set[str]] = {  # folder -> other folders that its modules may import, also inside functions
    "pipeline": set(),
    "preprocessing": {"pipeline"},
    "training": {"pipeline"},
    "clusters": {"pipeline"},
    "prediction": {"pipeline", "preprocessing", "training"},
    "benchmarks": {"pipeline", "preprocessing", "training", "prediction", "clusters"},
}
FOLDERS = {*MAY_IMPORT, "lgd", "tests"}


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return read_sources(ROOT, FOLDERS)


@pytest.fixture(scope="module")
def graph(sources: dict[str, str]) -> ImportGraph:
    return build_graph(sources)


def forbidden_imports(graph: ImportGraph) -> list[str]:
    """Return the imports in a wrong direction, as `importer -> imported`."""
    found = []
    for module, targets in graph.all.items():
        folder = folder_of(module)
        for target in targets:
            to = folder_of(target)
            if folder in MAY_IMPORT and target != "lgd":  # the package itself: its folder and version
                wrong = to != folder and to not in MAY_IMPORT[folder]
            else:
                wrong = folder == "lgd" and to == "tests"
            dev = "lgd.benchmarks.dev"
            into_dev = target.startswith(dev) and not module.startswith((dev, "tests."))
            if wrong or into_dev:
                found.append(f"{module} -> {target}")
    return sorted(found)


def folder_of(module: str) -> str:
    """`lgd.training.run` -> training; `lgd.cli` -> lgd; `tests.conftest` -> tests."""
    words = module.split(".")
    return words[1] if len(words) > 1 and words[1] in MAY_IMPORT and words[0] == "lgd" else words[0]


def packages_of(sources: dict[str, str]) -> set[str]:
    return {module for module in sources if any(other.startswith(f"{module}.") for other in sources)}


def test_all_folders_are_checked(sources: dict[str, str]):
    links = {path.name for path in (ROOT / "lgd").iterdir() if path.is_symlink()}
    assert links == set(MAY_IMPORT)
    assert {folder_of(module) for module in sources} == FOLDERS


def test_imports_go_one_way(graph: ImportGraph):
    assert forbidden_imports(graph) == []


def test_no_modules_import_each_other(graph: ImportGraph):
    assert cycles(graph.at_import) == []


def test_no_packages_import_each_other(sources: dict[str, str], graph: ImportGraph):
    """A package and a package inside it may, as long as their modules do not."""
    ours = {module: targets for module, targets in graph.all.items() if not module.startswith("tests")}
    assert cycles(package_edges(ours, packages_of(sources))) == []


def test_the_folders_are_imported_as_parts_of_lgd(graph: ImportGraph):
    """`import pipeline` would be a user's own module, or nothing."""
    bare = {module: names & set(MAY_IMPORT) for module, names in graph.outside.items()}
    assert {module: names for module, names in bare.items() if names} == {}


MADE_UP = {
    "lgd": "",
    "lgd.cli": "from lgd.training import loop",
    "lgd.pipeline": "",
    "lgd.pipeline.reader": "import numpy\nimport pipeline.order\nfrom lgd.pipeline.order import ORDER",
    "lgd.pipeline.order": (
        "ORDER = 1\ndef f():\n    from lgd.pipeline import reader\n    from lgd.training.loop import LOOP"
    ),
    "lgd.training": "",
    "lgd.training.loop": "try:\n    import lgd.training.run\nexcept ImportError:\n    pass\nLOOP = 1",
    "lgd.training.run": "from lgd.training.loop import LOOP\nimport lgd.clusters\nimport tests.helper",
    "lgd.training.scoring": "",
    "lgd.training.scoring.score": "from lgd.training.fusion import join\nfrom lgd.training.run import RUN",
    "lgd.training.fusion": "",
    "lgd.training.fusion.join": "if TYPE_CHECKING:\n    from lgd.training.scoring.score import SCORE",
    "lgd.clusters": "import lgd",
    "lgd.benchmarks": "",
    "lgd.benchmarks.flow": "from lgd.benchmarks.dev.index import INDEX\nfrom lgd.cli import main",
    "lgd.benchmarks.dev": "",
    "lgd.benchmarks.dev.index": "from lgd.benchmarks import flow",
    "tests": "",
    "tests.helper": "from lgd.benchmarks.dev import index\nfrom lgd.cli import main",
}


def test_the_checks_find_every_kind_of_wrong_import():
    """In a made-up project: what the tests above rely on."""
    graph = build_graph(MADE_UP)
    assert forbidden_imports(graph) == [
        "lgd.benchmarks.flow -> lgd.benchmarks.dev.index",
        "lgd.benchmarks.flow -> lgd.cli",
        "lgd.pipeline.order -> lgd.training.loop",
        "lgd.training.run -> lgd.clusters",
        "lgd.training.run -> tests.helper",
    ]
    assert cycles(graph.at_import) == [
        [
            "lgd.benchmarks.dev.index",
            "lgd.benchmarks.flow",
            "lgd.cli",
            "lgd.training.loop",
            "lgd.training.run",
            "tests.helper",
        ]
    ]
    ours = {module: targets for module, targets in graph.all.items() if not module.startswith(("tests", "lgd.cli"))}
    assert ["lgd.training.fusion", "lgd.training.scoring"] in cycles(package_edges(ours, packages_of(MADE_UP)))
    assert graph.outside["lgd.pipeline.reader"] == {"numpy", "pipeline"}
    with pytest.raises(ValueError, match=r"lgd\.cli imports lgd\.nothing\.at_all, which does not exist"):
        build_graph(MADE_UP | {"lgd.cli": "def f():\n    from lgd.nothing import at_all"})
