"""Which files of this repository a stage's code consists of: the source of truth for the code `deps` in dvc.yaml.

Imports are read from the syntax trees, so those inside functions count and nothing is executed. `python -m
hqsam_pipelines.codegraph` brings the code deps in dvc.yaml up to date; `--check` only says what differs, and so does
tests/pipelines/test_deps.py.
"""

from __future__ import annotations

import ast
import difflib
import functools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hqsam_datasets.atomic import atomic_file

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
        "clock", "codegraph", "dvc_run", "env", "flows", "graph", "host", "host_client", "launch", "launch_ray", "locks",
        "params", "profiles", "progress", "provenance", "schema", "reproduce", "server", "server_daemon", "stage",
    )
)  # fmt: skip
"""Modules that start, watch and record a stage or check its parameters, and cannot move a number. They are no `deps`:
an edit of the progress bar must not train a model again. The values of the parameters themselves are tracked by DVC."""

SEAMS = {
    "fetch": ("hqsam_datasets.embedded",),
    "normalise": ("hqsam_datasets.sources",),
    "index": ("hqsam_datasets.benchmarks",),
    "train": ("hqsam.model.backbones", "hqsam.model.variants"),
    "predict": ("hqsam.model.backbones", "hqsam.model.variants"),
    "score": ("hqsam_metrics.scores",),
}
"""Packages whose modules a stage finds by name: no import statement shows them."""


OWN_FILES = {
    "normalise": (("hqsam_datasets.sources", "SOURCE", "${item.kind}"),),
    "index": (("hqsam_datasets.benchmarks", "BENCHMARK", "${key}"),),
    "train": (
        ("hqsam.model.backbones", "BACKBONE", "${item.backbone}"),
        ("hqsam.model.variants", "VARIANT", "${item.variant}"),
    ),
    "predict": (("hqsam.model.backbones", "BACKBONE", None), ("hqsam.model.variants", "VARIANT", None)),
}
"""Stages that run per entry of one or more seams: the package, the constant that marks an entry's file, and how dvc.yaml
names that file, so that a new entry runs nothing but itself. None: another stage's output changes with the file
(models/<model>/ with the backbone's and the variant's, see dvc.yaml)."""

FOLDERS = {
    "fetch": ("datasets/hqsam_datasets/embedded",),
    "report": ("metrics/hqsam_metrics", "pipelines/hqsam_pipelines/data", "pipelines/hqsam_pipelines/templates"),
    "score": ("metrics/hqsam_metrics",),
}
"""Code deps that are whole folders. fetch: a real archive has no file of its own there. score: a matrix stage cannot name the
file of its benchmark's metric, and scoring again costs seconds; so does the report, which also reads data files."""


def deps_of(root: Path, verb: str) -> list[str]:
    """The code deps that a stage must have in dvc.yaml, in their order there: folders, files, the entry's own file.

    Args:
        root: The repository.
        verb: The stage.
    """
    folders = FOLDERS.get(verb, ())
    inside = tuple(f"{folder}/" for folder in folders)
    if verb not in OWN_FILES:
        files = code_of(root, verb)
        return [*folders, *sorted(path for path in files if not (inside and path.startswith(inside)))]
    names = {package: _entries(root, package, constant) for package, constant, _ in OWN_FILES[verb]}
    own = {f"{_place(root, package)}/{name}.py" for package, entries in names.items() for name in entries}
    last = [f"{_place(root, package)}/{place}.py" for package, _, place in OWN_FILES[verb] if place is not None]
    return [*folders, *sorted(code_of(root, verb, names) - own), *last]


def _place(root: Path, package: str) -> str:
    return _folder(root, package).relative_to(root).as_posix()


def _entries(root: Path, package: str, constant: str) -> set[str]:
    """Modules of a seam that are entries of it, not helpers: those that define its constant."""
    mark = re.compile(rf"^{constant}\b", re.MULTILINE)
    files = _folder(root, package).glob("*.py")
    return {path.stem for path in files if mark.search(path.read_text(encoding="utf-8"))}


def updated(root: Path) -> str:
    """The text of dvc.yaml with the code deps as they must be; everything else, comments too, stays as it is."""
    lines: list[str] = []
    verb, indent = "", None
    for line in (root / "dvc.yaml").read_text(encoding="utf-8").splitlines():
        name = re.fullmatch(r"  (\w+):", line)
        verb = name.group(1) if name else verb
        if line.strip() == "deps:" and verb:
            indent = line[: len(line) - len(line.lstrip())] + "  "
        elif indent is not None and not line.startswith(f"{indent}- "):
            lines += [f"{indent}- {path}" for path in deps_of(root, verb)]
            indent = None
        elif indent is not None and line.strip(" -").split("/")[0] in ("datasets", "hqsam", "metrics", "pipelines"):
            continue
        lines.append(line)
    return "\n".join(lines) + "\n"


def code_of(root: Path, verb: str, names: Mapping[str, Iterable[str]] | None = None) -> set[str]:
    """The files that a stage's code consists of, plumbing left out.

    Args:
        root: The repository.
        verb: The stage.
        names: Modules to include of each of the stage's seams (`dis5k`); None: all of them.

    Returns:
        Paths relative to `root`, `/`-separated. `__init__.py` files that hold nothing but a docstring are left out.
    """
    start = [f"hqsam_pipelines.stages.{verb}"]
    for seam in SEAMS.get(verb, ()):
        start += [f"{seam}.{name}" for name in (modules_of(root, seam) if names is None else names.get(seam, ()))]
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
    """Update dvc.yaml in the current folder, or with `--check` only compare. Returns the exit status."""
    root = Path.cwd()
    old, new = (root / "dvc.yaml").read_text(encoding="utf-8"), updated(root)
    changes = difflib.unified_diff(old.splitlines(), new.splitlines(), "dvc.yaml", "dvc.yaml", n=0, lineterm="")
    print("\n".join(changes) or "dvc.yaml names exactly the code that its stages import")
    if argv != ["--check"]:
        with atomic_file(root / "dvc.yaml") as file:
            file.write(new.encode())
        return 0
    return int(old != new)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
