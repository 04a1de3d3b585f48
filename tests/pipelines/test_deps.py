"""Each stage's code `deps` in dvc.yaml against what its code imports, and the rest of dvc.yaml against the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hqsam_pipelines import codegraph
from hqsam_pipelines.params import Params
from pipe_testing import REPOSITORY, environment, git, run

VERBS = codegraph.modules_of(REPOSITORY, "hqsam_pipelines.stages")
PIPELINE: dict[str, dict[str, Any]] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]


def body(verb: str) -> dict[str, Any]:
    stage = PIPELINE[verb]
    found: dict[str, Any] = stage.get("do", stage)
    return found


def code_deps(verb: str) -> set[str]:
    return {dep for dep in body(verb)["deps"] if dep.split("/")[0] in ("datasets", "hqsam", "metrics", "pipelines")}


@pytest.mark.parametrize("verb", VERBS)
def test_code_deps_are_exactly_what_is_imported(verb: str) -> None:
    listed, imported = code_deps(verb), set(codegraph.deps_of(REPOSITORY, verb))
    cure = "run `python -m hqsam_pipelines.codegraph`"
    assert not imported - listed, f"missing in the deps of {verb} in dvc.yaml; {cure}: {sorted(imported - listed)}"
    assert not listed - imported, f"superfluous in the deps of {verb} in dvc.yaml; {cure}: {sorted(listed - imported)}"


@pytest.mark.parametrize("verb", VERBS)
def test_folders_and_own_files_cover_the_whole_import_graph(verb: str) -> None:
    """Nothing that is imported falls between the exact files, the folders, and the file named by `${...}`."""
    listed = codegraph.deps_of(REPOSITORY, verb)
    for path in codegraph.code_of(REPOSITORY, verb):
        inside = any(path.startswith(f"{folder}/") for folder in codegraph.FOLDERS.get(verb, ()))
        parent = path.rpartition("/")[0]
        own = any("${" in dep and dep.rpartition("/")[0] == parent for dep in listed)
        through = verb == "predict" and parent in ("hqsam/model/backbones", "hqsam/model/variants")  # train has them
        assert path in listed or inside or own or through, path


def test_the_tool_repairs_dvc_yaml(tmp_path: Path) -> None:
    listed = git(REPOSITORY, "ls-files", "-co", "--exclude-standard", "--", "*.py", "dvc.yaml").splitlines()
    for name in listed:
        if not name.startswith("tests/") and (REPOSITORY / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    right = codegraph.updated(tmp_path)
    assert yaml.safe_load(right)["plots"] == yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["plots"]
    line = next(line for line in right.splitlines() if line.endswith("hqsam_datasets/overlap.py"))
    (tmp_path / "dvc.yaml").write_text(right.replace(line + "\n", line.replace("overlap.py", "shards.py") + "\n", 1))
    command, kept = [sys.executable, "-m", "hqsam_pipelines.codegraph"], environment(REPOSITORY)
    checked = subprocess.run([*command, "--check"], cwd=tmp_path, env=kept, capture_output=True, text=True, check=False)
    assert checked.returncode == 1
    assert "hqsam_datasets/overlap.py" in checked.stdout
    assert subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, check=False).returncode == 0
    assert (tmp_path / "dvc.yaml").read_text() == right


@pytest.mark.parametrize("verb", ["fetch", "normalise", "index", "score"])
def test_static_imports_cover_what_really_gets_loaded(verb: str) -> None:
    """The graph is read from source text; here Python itself says which of our files an import of the stage's library loads."""
    code = (
        "import importlib, sys; from hqsam_pipelines import stage;"
        f"m = importlib.import_module('hqsam_pipelines.stages.{verb}');"
        "[importlib.import_module(name) for name in m.STAGE.imports];"
        "print('\\n'.join(m.__file__ for n, m in sys.modules.items() if n.startswith('hqsam') and m.__file__))"
    )
    done = run(REPOSITORY, "python", "-c", code)
    assert done.returncode == 0, done.stderr
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
                path = dep.replace("${key}", key)
                for name in ("backbone", "kind", "variant"):
                    path = path.replace(f"${{item.{name}}}", str(item.get(name)))
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
