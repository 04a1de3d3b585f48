"""Which files of this repository a stage's code consists of, and their digests: what the stage `code` writes.

`data/code/<verb>.json` is the code dependency of every stage of that verb in dvc.yaml. It names
exactly the files that can move what the stage writes, so a changed file runs again the stages that
import it and no other; a new module needs no edit of dvc.yaml. Imports are read from the syntax
trees, so those inside functions count and nothing is executed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam.systems import SECTION
from hqsam_base.atomic import atomic_folder, json_bytes, write_json
from hqsam_datasets.prompts import DEFAULT
from hqsam_datasets.prompts.base import DRAWN_PREFIX
from hqsam_pipelines.config.env import PACKAGES
from hqsam_pipelines.config.outline import PROTOCOL_KEY
from hqsam_pipelines.config.params import Params
from hqsam_pipelines.config.yaml_file import read_yaml

STAGE = "code"
"""The stage that writes the digests; all others wait for it."""

PLUMBING = ("hqsam_pipelines.config", "hqsam_pipelines.runner")
"""Packages of modules that start, watch and record a stage or check its parameters, and cannot move a
number. They are left out: an edit of the progress bar must not train a model again. The values of
the parameters themselves are tracked by DVC."""

SEAMS = {
    "fetch": ("hqsam_datasets.embedded",),
    "normalise": ("hqsam_datasets.sources",),
    "index": ("hqsam_datasets.benchmarks", "hqsam_datasets.prompts"),
    "validate": ("hqsam_datasets.prompts",),
    "augment": ("hqsam_datasets.prompts",),
    "train": ("hqsam.model.backbones", "hqsam.model.variants", "hqsam_datasets.prompts"),
    "predict": (
        "hqsam.model.backbones",
        "hqsam.model.variants",
        "hqsam_datasets.prompts",
        "hqsam.systems",
        "hqsam.refiners",
    ),
    "score": ("hqsam_metrics.scores",),
    "report": ("hqsam_datasets.prompts", "hqsam_metrics.scores"),
}
"""Packages of modules that a stage finds by name: no import statement shows them."""

RECORDS = {"report": ("hqsam.systems",)}
"""Packages of which a stage reads what the files say of themselves, and runs nothing: what they import does not matter to it."""

SECTIONS = {"predict": ("systems",), "report": ("systems",)}
"""Sections of params.yaml that need not be there, by the stages that read them. DVC knows no such parameter: it would refuse a
params.yaml without it. So their digest stands among those of the code."""

OWN_FILES = {
    "normalise": (("hqsam_datasets.sources", "SOURCE", "${item.kind}"),),
    "index": (("hqsam_datasets.benchmarks", "BENCHMARK", "${item.kind}"),),
    "train": (
        ("hqsam.model.backbones", "BACKBONE", "${item.backbone}"),
        ("hqsam.model.variants", "VARIANT", "${item.variant}"),
    ),
    "predict": (
        ("hqsam.model.backbones", "BACKBONE", None),
        ("hqsam.model.variants", "VARIANT", None),
    ),
}
"""Stages that run per entry of one or more seams: the package, the constant that marks an entry's file, and how dvc.yaml
names that file beside the digests, so that a new entry runs nothing but itself. None: another
stage's output changes with the file (models/<model>/ with the backbone's and the variant's, see
dvc.yaml).
"""

DATA = {
    "validate": ("datasets/hqsam_datasets/quality/templates",),
    "report": (
        "pipelines/hqsam_pipelines/report/data",
        "pipelines/hqsam_pipelines/report/templates",
    ),
}
"""Folders of files that are not modules but are read as part of the code."""


@dataclass(frozen=True)
class _Module:
    """One parsed file.

    Attributes:
        path: The file.
        imports: Names that it imports, as written or resolved; modules and members of modules
            alike.
        homes: The module behind each public name that the package resolves on first use (`_HOMES`).
        empty: It holds nothing but a docstring.
    """

    path: Path
    imports: frozenset[str]
    homes: Mapping[str, str]
    empty: bool


class CodeGraph:
    """The import graph of a checkout as it is now; each file is parsed once.

    Args:
        root: The repository.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, _Module | None] = {}
        params = root / "params.yaml"
        found = read_yaml(params) if params.is_file() else {}
        self._params: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        self._used = _used(self._params)

    def verbs(self) -> list[str]:
        """Return the stages that have digests: all but the one that writes them."""
        return [verb for verb in modules_of(self._root, "hqsam_pipelines.stages") if verb != STAGE]

    def digested(self, verb: str) -> list[str]:
        """Return the files of a stage's code that dvc.yaml does not name itself: sorted, relative to the repository."""
        entries = {}
        for package, constant, _ in OWN_FILES.get(verb, ()):
            # the entries of a seam, not their helpers: the files that define its constant
            mark = re.compile(rf"^{constant}\b", re.MULTILINE)
            every = _folder(self._root, package).glob("*.py")
            entries[package] = {p.stem for p in every if mark.search(p.read_text("utf-8"))}
        own = {
            f"{self._place(package)}/{name}.py"
            for package, names in entries.items()
            for name in names
        }
        inside = (
            path for folder in DATA.get(verb, ()) for path in (self._root / folder).rglob("*")
        )
        files = (path for path in inside if path.is_file() and "__pycache__" not in path.parts)
        data = {path.relative_to(self._root).as_posix() for path in files}
        return sorted((self.code_of(verb, entries if entries else None) - own) | data)

    def sections(self, verb: str) -> dict[str, str]:
        """Return digests of the sections of params.yaml that a stage reads and DVC cannot watch, where they exist."""
        there = [name for name in SECTIONS.get(verb, ()) if name in self._params]
        return {
            f"params.yaml:{name}": hashlib.sha256(json_bytes(self._params[name])).hexdigest()
            for name in there
        }

    def named(self, verb: str) -> list[str]:
        """Return the code files that dvc.yaml itself names for a stage: its entry's, with DVC's placeholders."""
        places = [
            (self._place(package), name)
            for package, _, name in OWN_FILES.get(verb, ())
            if name is not None
        ]
        return [f"{place}/{name}.py" for place, name in places]

    def code_of(self, verb: str, names: Mapping[str, Iterable[str]] | None = None) -> set[str]:
        """Return the files that a stage's code consists of, plumbing left out.

        Args:
            verb: The stage.
            names: Modules to include of each of the stage's seams (`dis5k`); None: all of them.

        Returns:
            Paths relative to the repository, `/`-separated. `__init__.py` files that hold nothing
            but a docstring are left out.
        """
        start = [f"hqsam_pipelines.stages.{verb}"]
        for seam in SEAMS.get(verb, ()):
            every = modules_of(self._root, seam) if names is None else names.get(seam, ())
            chosen = self._used.get(seam, every)
            start += [f"{seam}.{name}" for name in chosen]
        found = {module for module in start if self._module(module) is not None}
        queue = list(found)
        while queue:
            for module in self._imports(queue.pop()) - found:
                found.add(module)
                queue.append(module)
        for seam in RECORDS.get(verb, ()):
            found |= {
                f"{seam}.{name}"
                for name in self._used.get(seam, ())
                if self._module(f"{seam}.{name}") is not None
            }
        paths = set()
        for module in found:
            # the module's own file, and those `__init__.py` above it that hold code
            parts = module.split(".")
            for above in (self._module(".".join(parts[: n + 1])) for n in range(len(parts))):
                if above is not None and not (above.path.name == "__init__.py" and above.empty):
                    paths.add(above.path.relative_to(self._root).as_posix())
        return paths

    def _place(self, package: str) -> str:
        return _folder(self._root, package).relative_to(self._root).as_posix()

    def _imports(self, module: str) -> set[str]:
        """Return modules of this repository that a module imports anywhere, `if TYPE_CHECKING` left out."""
        found = self._module(module)
        assert found is not None
        named = set(found.imports)
        for name in found.imports:
            # `package.name` stands for the module behind it where the package resolves the name on
            # first use.
            package, _, member = name.rpartition(".")
            behind = self._module(package) if package else None
            if behind is not None and member in behind.homes:
                named.add(behind.homes[member])
        parents = {
            ".".join(name.split(".")[:n]) for name in named for n in range(1, name.count(".") + 1)
        }
        every = {name for name in named | parents if self._module(name) is not None}
        plumbing = tuple(f"{package}." for package in PLUMBING)
        return {name for name in every if not f"{name}.".startswith(plumbing)}

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            places: tuple[Path, ...] = ()
            if name.partition(".")[0] in PACKAGES:
                base = _folder(self._root, name)
                places = (base.with_suffix(".py"), base / "__init__.py")
            path = next((place for place in places if place.is_file()), None)
            self._modules[name] = None if path is None else _parse(path, name)
        return self._modules[name]


def _used(params: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the entries that params.yaml names, by seam: a new file runs nothing again until it is used."""
    systems = [
        entry for entry in params.get("systems", SECTION).values() if isinstance(entry, Mapping)
    ]
    sets = [
        name
        for entry in params.get("benchmarks", {}).values()
        for name in entry["index"].get("prompt_sets", ())
    ]
    kinds = (*DEFAULT, *params.get("augment", {}).get("prompts", ()))
    return {
        "hqsam.systems": {str(entry.get("kind")) for entry in systems},
        "hqsam.refiners": {str(entry["refiner"]) for entry in systems if "refiner" in entry},
        "hqsam_datasets.prompts": {
            *kinds,
            *(str(name).removeprefix(DRAWN_PREFIX) for name in sets),
        },
    }


def write_digests(root: Path, out: Path) -> dict[str, int]:
    """Write `<verb>.json` for every stage: path to SHA-256 of each file of its code, sorted.

    Args:
        root: The repository.
        out: The folder; it is replaced as a whole.

    Returns:
        Verb to the number of files.
    """

    @functools.cache
    def digest(path: str) -> str:
        return hashlib.sha256((root / path).read_bytes()).hexdigest()

    graph, counts = CodeGraph(root), {}
    with atomic_folder(out, durable=False) as folder:
        for verb in graph.verbs():
            files = {path: digest(path) for path in graph.digested(verb)} | graph.sections(verb)
            write_json(folder / f"{verb}.json", dict(sorted(files.items())))
            counts[verb] = len(files)
    return counts


def write_protocols(root: Path, out: Path) -> None:
    """Write `<benchmark>.json` for every benchmark: what its key `protocol` stands for; `{}` without that key.

    DVC knows no parameter that need not be there, and cannot watch what is not in params.yaml.

    Args:
        root: The repository.
        out: The folder; it is replaced as a whole.
    """
    file = root / "params.yaml"
    raw = read_yaml(file)
    entries = raw.get("benchmarks", {}) if isinstance(raw, Mapping) else {}
    with atomic_folder(out, durable=False) as folder:
        for name, entry in entries.items():
            asks = isinstance(entry, Mapping) and PROTOCOL_KEY in entry
            write_json(
                folder / f"{name}.json", Params.of(raw, file).protocols(name) if asks else {}
            )


def modules_of(root: Path, package: str) -> list[str]:
    """Return names of the public modules and packages directly inside a package, sorted."""
    folder = _folder(root, package)
    if not folder.is_dir():
        return []
    names = {p.stem for p in folder.glob("*.py")} | {
        p.parent.name for p in folder.glob("*/__init__.py")
    }
    return sorted(name for name in names if not name.startswith("_"))


def _folder(root: Path, module: str) -> Path:
    return root / PACKAGES[module.partition(".")[0]] / module.replace(".", "/")


def _parse(path: Path, name: str) -> _Module:
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError):
        # Stages that import it will fail and say so; a file that is being edited must not stop the
        # others.
        return _Module(path, frozenset(), {}, empty=False)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imports = frozenset(found for node in _running(tree) for found in _names(node, package))
    empty = all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in tree.body
    )
    homes: dict[str, str] = {}
    for node in tree.body:
        # of a package that imports its public names on first use (PEP 562)
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "_HOMES" for t in node.targets
        ):
            homes = dict(ast.literal_eval(node.value))
            break
    return _Module(path, imports, homes, empty)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes that can run: the bodies of `if TYPE_CHECKING:` cannot."""
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
        base = (
            ".".join([*parts[: len(parts) - node.level + 1], node.module or ""])
            if node.level
            else node.module or ""
        )
        base = base.rstrip(".")
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)
