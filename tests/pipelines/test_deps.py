"""The digests of each stage's code against what it imports, and dvc.yaml against the code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hqsam_base.locks import is_held
from hqsam_pipelines.config.params import Params
from hqsam_pipelines.runner import codegraph
from tests import REPOSITORY
from tests.pipelines.working_copy import git, run

GRAPH = codegraph.CodeGraph(REPOSITORY)
VERBS = codegraph.modules_of(REPOSITORY, "hqsam_pipelines.stages")
DIGESTED = GRAPH.verbs()
PIPELINE: dict[str, dict[str, Any]] = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())[
    "stages"
]
SOURCES = ("datasets", "hqsam", "metrics", "pipelines")


def body(verb: str) -> dict[str, Any]:
    stage = PIPELINE[verb]
    found: dict[str, Any] = stage.get("do", stage)
    return found


def code_deps(verb: str) -> set[str]:
    return {
        dep
        for dep in body(verb)["deps"]
        if dep.split("/")[0] in SOURCES or dep.startswith("data/code")
    }


def test_the_code_stage_reads_every_package_and_writes_the_digests_of_every_stage() -> None:
    assert set(DIGESTED) == set(VERBS) - {codegraph.STAGE}
    folders = {
        (Path(folder) / package).as_posix() for package, folder in codegraph.PACKAGES.items()
    }
    assert (
        code_deps(codegraph.STAGE) | {"inputs", "params.yaml"}
        == set(body(codegraph.STAGE)["deps"])
        == folders | {"inputs", "params.yaml"}
    )
    assert body(codegraph.STAGE)["outs"] == ["data/code", "data/inputs", "data/protocols"]


@pytest.mark.parametrize("verb", DIGESTED)
def test_a_stage_depends_on_its_digests_and_the_files_of_its_entry(verb: str) -> None:
    assert code_deps(verb) == {f"data/code/{verb}.json", *GRAPH.named(verb)}


@pytest.mark.parametrize("verb", DIGESTED)
def test_digests_and_own_files_cover_the_whole_import_graph(verb: str) -> None:
    """Nothing that is imported falls between the digests and the file named by `${...}`."""
    digested, named = GRAPH.digested(verb), GRAPH.named(verb)
    assert digested == sorted(set(digested))
    for path in GRAPH.code_of(verb):
        parent = path.rpartition("/")[0]
        own = any(dep.rpartition("/")[0] == parent for dep in named)
        through = verb == "predict" and parent in (
            "hqsam/model/backbones",
            "hqsam/model/variants",
        )  # train has them
        assert path in digested or own or through, path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout's code with its digests written by the stage's real command."""
    root = tmp_path_factory.mktemp("sources")
    for name in git(REPOSITORY, "ls-files", "-co", "--exclude-standard").splitlines():
        if (
            name.split("/")[0] in (*SOURCES, "params.yaml", "dvc.yaml")
            and (REPOSITORY / name).exists()
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes((REPOSITORY / name).read_bytes())
    command(root)
    return root


def command(root: Path, **extra: str) -> None:
    done = run(root, "python", "-m", "hqsam_pipelines.stages.code", HQSAM_HOST="0", **extra)
    assert done.returncode == 0, done.stderr


def written(root: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (root / "data" / "code").iterdir()}


def now(root: Path, out: Path) -> dict[str, bytes]:
    """What the stage would write now, without a process of its own."""
    codegraph.write_digests(root, out)
    return {path.stem: path.read_bytes() for path in out.iterdir()}


def test_the_digests_are_those_of_the_files_and_the_same_bytes_each_time(sources: Path) -> None:
    before = written(sources)
    assert sorted(before) == DIGESTED
    for verb, text in before.items():
        digests = {
            path: hashlib.sha256((sources / path).read_bytes()).hexdigest()
            for path in GRAPH.digested(verb)
        }
        assert json.loads(text) == digests
        assert list(json.loads(text)) == sorted(digests)
    command(sources, PYTHONHASHSEED="7")
    assert written(sources) == before
    assert not is_held(sources / ".hqsam" / "server.lock"), "hashing files needs no server"


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("metrics/hqsam_metrics/scores/_davis.py", {"score", "report"}),
        ("metrics/hqsam_metrics/ap/accumulate.py", {"score", "report"}),
        ("metrics/hqsam_metrics/masks/iou.py", {"score", "report", "train"}),
        ("datasets/hqsam_datasets/overlap/verify.py", {"overlap"}),
        ("datasets/hqsam_datasets/embedded/scenes.py", {"fetch"}),
        ("hqsam/prediction/benchmark.py", {"predict"}),
        ("hqsam/training/loss.py", {"train"}),
        ("hqsam/model/hq_decoder.py", {"train", "predict"}),
        ("pipelines/hqsam_pipelines/report/templates/report.html.j2", {"report"}),
        ("pipelines/hqsam_pipelines/stages/shard.py", {"shard"}),
        # Named in dvc.yaml for their own entry alone, found by name, plumbing, other commands:
        (
            "datasets/hqsam_datasets/sources/dis5k.py datasets/hqsam_datasets/benchmarks/coco.py "
            "hqsam/model/variants/hq.py "
            "pipelines/hqsam_pipelines/runner/progress.py "
            "pipelines/hqsam_pipelines/compare/comparison.py hqsam/refiners/grabcut.py "
            "hqsam/systems/refined.py",
            set(),
        ),
        ("hqsam/systems/sam_hq.py", {"predict", "report"}),
        (
            "datasets/hqsam_datasets/prompts/point.py",
            {"index", "validate", "augment", "train", "predict", "report"},
        ),
    ],
)
def test_a_changed_file_moves_the_digests_of_the_stages_that_import_it(
    sources: Path, tmp_path: Path, name: str, moved: set[str]
) -> None:
    old = {sources / file: (sources / file).read_bytes() for file in name.split()}
    try:
        for file, text in old.items():
            file.write_bytes(
                text + (b"\n{# a comment #}\n" if file.suffix == ".j2" else b"\n# a comment\n")
            )
        before, after = written(sources), now(sources, tmp_path / "code")
        assert {verb for verb in before if after[verb] != before[verb]} == moved
    finally:
        for file, text in old.items():
            file.write_bytes(text)


def test_a_new_prompt_kind_or_system_moves_nothing_until_params_names_it(
    sources: Path, tmp_path: Path
) -> None:
    kind = sources / "datasets" / "hqsam_datasets" / "prompts" / "circle.py"
    params = sources / "params.yaml"
    before, old = written(sources), params.read_text()
    try:
        kind.write_text("PROMPT = 1\n")
        assert now(sources, tmp_path / "code") == before
        refined = "  grabcut: {kind: refined, of: sam, refiner: grabcut}\n"
        params.write_text(
            f"{old.replace('views: 2,', 'views: 2, prompts: [box, circle],')}\nsystems:\n  sam: "
            f"{{kind: sam_hq}}\n{refined}"
        )
        after = now(sources, tmp_path / "code")
        assert {verb for verb in before if after[verb] != before[verb]} == {
            "index",
            "validate",
            "augment",
            "train",
            "predict",
            "report",
        }
        assert {"hqsam/refiners/grabcut.py", "hqsam/systems/refined.py"} <= json.loads(
            after["predict"]
        ).keys()
        assert "params.yaml:systems" in json.loads(after["predict"])
        assert "params.yaml:systems" in json.loads(after["report"])
    finally:
        kind.unlink()
        params.write_text(old)


def test_a_new_module_needs_no_edit_of_dvc_yaml(sources: Path, tmp_path: Path) -> None:
    module = sources / "datasets" / "hqsam_datasets" / "overlap" / "new.py"
    user = sources / "datasets" / "hqsam_datasets" / "overlap" / "shapes.py"
    before, old = written(sources), user.read_bytes()
    try:
        module.write_text("VALUE = 1\n")
        assert now(sources, tmp_path / "code") == before, "nobody imports it yet"
        user.write_bytes(old + b"\nfrom hqsam_datasets.overlap.new import VALUE\n")
        assert "datasets/hqsam_datasets/overlap/new.py" in json.loads(
            now(sources, tmp_path / "code")["overlap"]
        )
    finally:
        module.unlink()
        user.write_bytes(old)


def test_a_file_that_is_no_python_holds_up_only_the_stages_that_import_it(
    sources: Path, tmp_path: Path
) -> None:
    file = sources / "pipelines" / "hqsam_pipelines" / "report" / "html.py"
    before, old = written(sources), file.read_bytes()
    try:
        file.write_text("def half(:\n")
        after = now(sources, tmp_path / "code")
        assert {verb for verb in before if after[verb] != before[verb]} == {"report"}
        name = file.relative_to(sources).as_posix()
        assert json.loads(after["report"])[name] == hashlib.sha256(file.read_bytes()).hexdigest()
    finally:
        file.write_bytes(old)


@pytest.mark.parametrize(
    "verb",
    ["fetch", "normalise", "index", "overlap", "validate", "shard", "augment", "score", "report"],
)
def test_static_imports_cover_what_really_gets_loaded(verb: str) -> None:
    """The graph is read from source text; here Python itself says which of our files an import of the stage's library loads."""
    code = (
        "import importlib, sys; from hqsam_pipelines.runner import stage;"
        f"m = importlib.import_module('hqsam_pipelines.stages.{verb}');"
        "[importlib.import_module(name) for name in m.STAGE.imports];"
        "print('\\n'.join(m.__file__ for n, m in sys.modules.items() if n.startswith('hqsam') and "
        "m.__file__))"
    )
    done = run(REPOSITORY, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    loaded = {Path(line).relative_to(REPOSITORY).as_posix() for line in done.stdout.split()}
    rooms = tuple(f"pipelines/{name.replace('.', '/')}/" for name in codegraph.PLUMBING)
    plumbing = {path for path in loaded if path.startswith(rooms)}
    # Used by the plumbing itself.
    light = ("errors", "atomic", "locks", "own_code", "progress", "safe_text", "terminal")
    plumbing |= {f"datasets/hqsam_base/{name}.py" for name in light}
    empty = {path for path in loaded if path.endswith("__init__.py")}
    assert loaded - GRAPH.code_of(verb) - empty - plumbing == set()


def test_every_plumbing_package_exists_and_no_library_imports_it() -> None:
    for name in codegraph.PLUMBING:
        assert (REPOSITORY / "pipelines" / name.replace(".", "/") / "__init__.py").is_file(), name
    for verb in DIGESTED:
        for path in GRAPH.code_of(verb):
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
        "from typing import TYPE_CHECKING\nfrom hqsam_pipelines import a\nif TYPE_CHECKING:\n    "
        "from hqsam_pipelines import b\n"
        "def f():\n    from ..c import thing\n"
    )
    prefix = "pipelines/hqsam_pipelines"
    assert codegraph.CodeGraph(tmp_path).code_of("x") == {
        f"{prefix}/stages/x.py",
        f"{prefix}/a.py",
        f"{prefix}/c.py",
    }


def test_the_graph_follows_names_that_a_package_resolves_on_first_use(tmp_path: Path) -> None:
    package = tmp_path / "pipelines" / "hqsam_pipelines"
    (package / "stages").mkdir(parents=True)
    (package / "__init__.py").write_text('_HOMES = {"thing": "hqsam_pipelines.home"}\n')
    (package / "home.py").write_text("thing = 1\n")
    (package / "stages" / "x.py").write_text("def f():\n    from hqsam_pipelines import thing\n")
    prefix = "pipelines/hqsam_pipelines"
    found = codegraph.CodeGraph(tmp_path).code_of("x")
    assert found == {f"{prefix}/stages/x.py", f"{prefix}/__init__.py", f"{prefix}/home.py"}


@pytest.mark.parametrize("profile", ["sample", "tiny", "paper"])
def test_every_dep_in_the_repository_exists(profile: str) -> None:
    params = Params.load(REPOSITORY / "configs" / f"{profile}.yaml")
    entries = {"sources": params.sources, "benchmarks": params.benchmarks, "models": params.models}
    tracked = set(git(REPOSITORY, "ls-files", "-co", "--exclude-standard").splitlines())
    for verb in VERBS:
        for dep in code_deps(verb) - {f"data/code/{verb}.json"}:
            section = {"normalise": "sources", "index": "benchmarks", "train": "models"}.get(verb)
            items = (
                [(name, params.raw[section][name]) for name in entries[section]]
                if section
                else [("", {})]
            )
            for key, item in items:
                path = dep.replace("${key}", key)
                for name in ("backbone", "kind", "variant"):
                    path = path.replace(f"${{item.{name}}}", str(item.get(name)))
                assert path in tracked or any(name.startswith(f"{path}/") for name in tracked), (
                    verb,
                    path,
                )


def test_each_command_runs_its_own_stage() -> None:
    assert sorted(PIPELINE) == VERBS
    for verb in VERBS:
        assert body(verb)["cmd"] == f"python -m hqsam_pipelines.stages.{verb}", (
            "no word of params.yaml may reach the shell"
        )


def test_large_outputs_are_not_in_git_and_reports_are() -> None:
    for verb in VERBS:
        for out in [*body(verb)["outs"], *body(verb).get("metrics", [])]:
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            assert path.startswith("reports/") == (options.get("cache", True) is False), path
