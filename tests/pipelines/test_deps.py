"""Each stage's code `deps` in dvc.yaml against what its code imports, and the rest of dvc.yaml against the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hqsam_pipelines import codegraph
from hqsam_pipelines.params import Params
from pipe_testing import REPOSITORY, git

VERBS = codegraph.modules_of(REPOSITORY, "hqsam_pipelines.stages")
PIPELINE: dict[str, dict[str, Any]] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]

SEAM_FILES = {
    "normalise": ("datasets/hqsam_datasets/sources/${key}.py", "hqsam_datasets.sources", "SOURCE"),
    "index": ("datasets/hqsam_datasets/benchmarks/${key}.py", "hqsam_datasets.benchmarks", "BENCHMARK"),
    "train": ("hqsam/model/backbones/${item.backbone}.py", "hqsam.model.backbones", "BACKBONE"),
}
"""Stages that run per entry list the entry's own file: the dep, its package, and the constant that marks such a file."""

FOLDERS = {
    "fetch": {"datasets/hqsam_datasets/embedded"},
    "report": {"metrics/hqsam_metrics"},
    "score": {"metrics/hqsam_metrics"},
}
"""Code deps that are whole folders. fetch: a real archive has no file of its own there. score: a matrix stage cannot
name the file of its benchmark's metric, and scoring again costs seconds; so does the report."""

THROUGH = {"predict": "hqsam.model.backbones"}
"""Seams whose files reach a stage through another one: models/<model>/ changes with the backbone's file, see dvc.yaml."""


def body(verb: str) -> dict[str, Any]:
    stage = PIPELINE[verb]
    found: dict[str, Any] = stage.get("do", stage)
    return found


def code_deps(verb: str) -> set[str]:
    return {dep for dep in body(verb)["deps"] if dep.split("/")[0] in ("datasets", "hqsam", "metrics", "pipelines")}


def adapters(package: str, constant: str) -> set[str]:
    """Modules of a seam that are entries of it, not helpers."""
    folder = REPOSITORY / codegraph.PACKAGES[package.partition(".")[0]] / package.replace(".", "/")
    pattern = re.compile(rf"^{constant}\b", re.MULTILINE)
    return {path.stem for path in folder.glob("*.py") if pattern.search(path.read_text())}


def imported(verb: str) -> set[str]:
    """What `code_deps` must be, folders left out."""
    if verb in SEAM_FILES or verb in THROUGH:
        package = SEAM_FILES[verb][1] if verb in SEAM_FILES else THROUGH[verb]
        constant = SEAM_FILES[verb][2] if verb in SEAM_FILES else "BACKBONE"
        names = adapters(package, constant)
        folder = f"{codegraph.PACKAGES[package.partition('.')[0]]}/{package.replace('.', '/')}".removeprefix("./")
        own = {f"{folder}/{name}.py" for name in names}
        found = codegraph.code_of(REPOSITORY, verb, names) - own
        return found | ({SEAM_FILES[verb][0]} if verb in SEAM_FILES else set())
    inside = tuple(f"{folder}/" for folder in FOLDERS.get(verb, ()))
    return {path for path in codegraph.code_of(REPOSITORY, verb) if not (inside and path.startswith(inside))}


@pytest.mark.parametrize("verb", VERBS)
def test_code_deps_are_exactly_what_is_imported(verb: str) -> None:
    listed = code_deps(verb) - FOLDERS.get(verb, set())
    if verb == "report":  # its templates and the paper's numbers are read, not imported
        listed -= {"pipelines/hqsam_pipelines/templates", "pipelines/hqsam_pipelines/data"}
    missing, superfluous = imported(verb) - listed, listed - imported(verb)
    assert not missing, f"add to the deps of {verb} in dvc.yaml: {sorted(missing)}"
    assert not superfluous, f"remove from the deps of {verb} in dvc.yaml: {sorted(superfluous)}"


@pytest.mark.parametrize("verb", VERBS)
def test_folder_deps_hold_what_is_imported_from_them(verb: str) -> None:
    for folder in FOLDERS.get(verb, ()):
        assert folder in code_deps(verb)
        assert any(path.startswith(f"{folder}/") for path in codegraph.code_of(REPOSITORY, verb))


@pytest.mark.parametrize("verb", ["fetch", "normalise", "index", "score"])
def test_static_imports_cover_what_really_gets_loaded(verb: str) -> None:
    """The graph is read from source text; here Python itself says which of our files an import of the stage's library loads."""
    code = (
        "import importlib, sys; from hqsam_pipelines import stage;"
        f"m = importlib.import_module('hqsam_pipelines.stages.{verb}');"
        "[importlib.import_module(name) for name in m.STAGE.imports];"
        "print('\\n'.join(m.__file__ for n, m in sys.modules.items() if n.startswith('hqsam') and m.__file__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {Path(line).relative_to(REPOSITORY).as_posix() for line in done.stdout.split()}
    plumbing = {f"pipelines/{name.replace('.', '/')}.py" for name in codegraph.PLUMBING}
    known = codegraph.code_of(REPOSITORY, verb) | plumbing
    plumbing |= {
        "datasets/hqsam_datasets/errors.py",
        "datasets/hqsam_datasets/atomic.py",
    }  # used by the plumbing itself
    empty = {path for path in loaded if path.endswith("__init__.py")}
    assert loaded - known - empty - plumbing == set()


def test_every_plumbing_module_exists_and_no_library_imports_it() -> None:
    for name in codegraph.PLUMBING:
        assert (REPOSITORY / "pipelines" / f"{name.replace('.', '/')}.py").is_file(), name
    for verb in VERBS:
        for path in codegraph.code_of(REPOSITORY, verb):
            if not path.startswith("pipelines/"):
                assert "hqsam_pipelines" not in (REPOSITORY / path).read_text(), path


def test_the_graph_sees_imports_inside_functions_and_not_those_for_types(tmp_path: Path) -> None:
    package = tmp_path / "pipelines" / "hqsam_pipelines"
    (package / "stages").mkdir(parents=True)
    for name in ("__init__", "stages/__init__"):
        (package / f"{name}.py").write_text('"""Nothing."""\n')
    for name in ("a", "b", "c"):
        (package / f"{name}.py").write_text("")
    (package / "stages" / "x.py").write_text(
        "from typing import TYPE_CHECKING\nfrom hqsam_pipelines import a\nif TYPE_CHECKING:\n    from hqsam_pipelines import b\n"
        "def f():\n    from ..c import thing\n"
    )
    prefix = "pipelines/hqsam_pipelines"
    assert codegraph.code_of(tmp_path, "x") == {f"{prefix}/stages/x.py", f"{prefix}/a.py", f"{prefix}/c.py"}


@pytest.mark.parametrize("profile", ["sample", "tiny", "paper"])
def test_every_dep_in_the_repository_exists(profile: str) -> None:
    params = Params.load(REPOSITORY / "configs" / f"{profile}.yaml")
    entries = {"sources": params.sources, "benchmarks": params.benchmarks, "models": params.models}
    tracked = set(git(REPOSITORY, "ls-files", "-co", "--exclude-standard").splitlines())
    for verb in VERBS:
        for dep in code_deps(verb):
            section = {"normalise": "sources", "index": "benchmarks", "train": "models"}.get(verb)
            items = [(name, params.raw[section][name]) for name in entries[section]] if section else [("", {})]
            for key, item in items:
                path = dep.replace("${key}", key).replace("${item.backbone}", str(item.get("backbone")))
                assert path in tracked or any(name.startswith(f"{path}/") for name in tracked), (verb, path)


def test_each_command_runs_its_own_stage() -> None:
    assert sorted(PIPELINE) == VERBS
    for verb in VERBS:
        assert body(verb)["cmd"].startswith(f"python -m hqsam_pipelines.stages.{verb}")


def test_large_outputs_are_not_in_git_and_reports_are() -> None:
    for verb in VERBS:
        for out in [*body(verb)["outs"], *body(verb).get("metrics", [])]:
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            assert path.startswith("reports/") == (options.get("cache", True) is False), path
