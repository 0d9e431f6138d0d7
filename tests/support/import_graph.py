"""Which module imports which, read from the sources without importing anything."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Edges = dict[str, set[str]]  # node -> nodes that it imports


@dataclass(frozen=True)
class ImportGraph:
    """at_import: imports that run when the module is imported. all: these, those inside functions, and those for type
    checkers. Both contain only imports of modules of the project; outside: the first words of all other imports."""

    at_import: Edges
    all: Edges
    outside: Edges


def read_sources(root: Path, folders: Iterable[str]) -> dict[str, str]:
    """Return the sources by module name: the links in lgd/ make `pipeline/tasks.py` the module `lgd.pipeline.tasks`."""
    sources = {}
    for folder in folders:
        paths = (root / "lgd").rglob("*.py") if folder == "lgd" else (root / folder).rglob("*.py")
        for path in paths:
            words = path.relative_to(root).with_suffix("").parts
            if folder not in ("lgd", "tests"):
                words = ("lgd", *words)
            sources[".".join(words).removesuffix(".__init__")] = path.read_text()
    return sources


def build_graph(sources: Mapping[str, str]) -> ImportGraph:
    """Read the imports of all modules. Raises ValueError for an import of a project's module that does not exist."""
    roots = {module.partition(".")[0] for module in sources}
    graph = ImportGraph(*({module: set[str]() for module in sources} for _ in range(3)))
    for module, source in sources.items():
        for name, runs in _imports(ast.parse(source).body, True):
            if name.partition(".")[0] not in roots:
                graph.outside[module].add(name.partition(".")[0])
                continue
            target = name if name in sources else name.rpartition(".")[0]  # a module, or something in a module
            if target not in sources:
                raise ValueError(f"{module} imports {name}, which does not exist")
            if target != module:
                graph.all[module].add(target)
                if runs:
                    graph.at_import[module].add(target)
    return graph


def _imports(body: Iterable[ast.AST], runs: bool) -> Iterator[tuple[str, bool]]:
    """Yield the full name of everything that is imported, and whether that happens when the module is imported."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, runs) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", runs) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imports(node.body, False)
            yield from _imports(node.orelse, runs)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(ast.iter_child_nodes(node), runs and not inside)


def package_edges(edges: Edges, packages: set[str]) -> Edges:
    """Return the imports between packages, without those between a package and a package inside it."""
    between: Edges = {}
    for module, targets in edges.items():
        of = _package(module, packages)
        for target in (_package(each, packages) for each in targets):
            if not f"{of}.".startswith(f"{target}.") and not f"{target}.".startswith(f"{of}."):
                between.setdefault(of, set()).add(target)
    return between


def _package(module: str, packages: set[str]) -> str:
    return module if module in packages else module.rpartition(".")[0]


def cycles(edges: Edges) -> list[list[str]]:
    """Return the sets of nodes that import each other, directly or through others, sorted."""
    reachable = {node: _reachable(edges, node) for node in edges}
    found = {
        tuple(sorted(other for other in targets if node in reachable.get(other, set())))
        for node, targets in reachable.items()
        if node in targets
    }
    return [list(nodes) for nodes in sorted(found)]


def _reachable(edges: Edges, node: str) -> set[str]:
    found: set[str] = set()
    waiting = [node]
    while waiting:
        for target in edges.get(waiting.pop(), set()):
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found
