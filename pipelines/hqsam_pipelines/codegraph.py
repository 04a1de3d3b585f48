"""Which files of this repository a stage's code consists of: the source of truth for the code `deps` in dvc.yaml.

Imports are read from the syntax trees, so those inside functions count and nothing is executed. `python -m
hqsam_pipelines.codegraph [VERB ...]` prints the files of each stage; tests/pipelines/test_deps.py compares them with dvc.yaml.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGES = {
    "hqsam": ".",
    "hqsam_datasets": "datasets",
    "hqsam_metrics": "metrics",
    "hqsam_pipelines": "pipelines",
}
"""Package name and the folder that holds it."""

PLUMBING = frozenset(
    f"hqsam_pipelines.{name}"
    for name in (
        "clock", "codegraph", "dvc_run", "env", "flows", "graph", "host", "host_client", "locks", "params", "progress",
        "provenance", "schema", "reproduce", "server", "server_daemon", "stage",
    )
)  # fmt: skip
"""Modules that start, watch and record a stage or check its parameters, and cannot move a number. They are no `deps`:
an edit of the progress bar must not train a model again. The values of the parameters themselves are tracked by DVC."""

SEAMS = {
    "fetch": ("hqsam_datasets.embedded",),
    "normalise": ("hqsam_datasets.sources",),
    "index": ("hqsam_datasets.benchmarks",),
    "train": ("hqsam.model.backbones",),
    "predict": ("hqsam.model.backbones",),
    "score": ("hqsam_metrics.scores",),
}
"""Packages whose modules a stage finds by name: no import statement shows them."""


def code_of(root: Path, verb: str, names: Iterable[str] | None = None) -> set[str]:
    """The files that a stage's code consists of, plumbing left out.

    Args:
        root: The repository.
        verb: The stage.
        names: Modules of the stage's seam to include (`dis5k`); None: all of them.

    Returns:
        Paths relative to `root`, `/`-separated. `__init__.py` files that hold nothing but a docstring are left out.
    """
    start = [f"hqsam_pipelines.stages.{verb}"]
    for seam in SEAMS.get(verb, ()):
        start += [f"{seam}.{name}" for name in (modules_of(root, seam) if names is None else names)]
    found = {module for module in start if _file(root, module) is not None}
    queue = list(found)
    while queue:
        for module in _imports(root, queue.pop()):
            if module not in found and module not in PLUMBING:
                found.add(module)
                queue.append(module)
    files = {path for module in found for path in _files(root, module)}
    return {path.relative_to(root).as_posix() for path in files}


def modules_of(root: Path, package: str) -> list[str]:
    """Names of the public modules and packages directly inside a package, sorted."""
    folder = _folder(root, package)
    if not folder.is_dir():
        return []
    names = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    return sorted(name for name in names if not name.startswith("_"))


def _folder(root: Path, module: str) -> Path:
    return root / PACKAGES[module.partition(".")[0]] / module.replace(".", "/")


def _file(root: Path, module: str) -> Path | None:
    if module.partition(".")[0] not in PACKAGES:
        return None
    base = _folder(root, module)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _files(root: Path, module: str) -> Iterator[Path]:
    """The module's own file and those `__init__.py` above it that hold code."""
    own = _file(root, module)
    assert own is not None
    parts = module.split(".")
    parents = (_file(root, ".".join(parts[:n])) for n in range(1, len(parts)))
    for path in (*parents, own):
        if path is not None and not (path.name == "__init__.py" and _is_only_docstring(path)):
            yield path


def _is_only_docstring(path: Path) -> bool:
    body = _tree(path).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _imports(root: Path, module: str) -> set[str]:
    """Modules of this repository that a module imports anywhere, `if TYPE_CHECKING` left out."""
    path = _file(root, module)
    assert path is not None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    named = {name for node in _running(_tree(path)) for name in _names(node, package)}
    parents = {".".join(name.split(".")[:n]) for name in named for n in range(1, name.count(".") + 1)}
    return {name for name in named | parents if _file(root, name) is not None}


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that can run: the bodies of `if TYPE_CHECKING:` cannot."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield other
                yield from _running(other)
            continue
        yield child
        yield from _running(child)


def _names(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        base = ".".join([*parts[: len(parts) - node.level + 1], node.module or ""]) if node.level else node.module or ""
        base = base.rstrip(".")
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def main(argv: list[str]) -> int:
    """Print the files of the stages named (all by default)."""
    root = Path.cwd()
    for verb in argv or modules_of(root, "hqsam_pipelines.stages"):
        print(f"{verb}:")
        print("".join(f"  - {path}\n" for path in sorted(code_of(root, verb))), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
