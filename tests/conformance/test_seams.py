"""Walks the seams: every training source, evaluation set, metric, backbone, stage and command is what its folder promises.

There is no list of names in the code. A file is found by its name; what makes it an entry is the
seam's constant.
"""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from hqsam_pipelines.config.params import Params
from tests import REPOSITORY

SAMPLE = Params.load(REPOSITORY / "configs" / "sample.yaml")


@dataclass(frozen=True)
class Seam:
    """A folder of entries: the package, its folder, and the constant that each entry exposes."""

    package: str
    folder: str
    constant: str

    def entries(self) -> list[str]:
        """Names of the files that define the constant at the top level."""
        found = []
        for path in sorted((REPOSITORY / self.folder).glob("*.py")):
            names = {
                target.id
                for node in ast.parse(path.read_text()).body
                if isinstance(node, ast.Assign | ast.AnnAssign)
                for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
                if isinstance(target, ast.Name)
            }
            if self.constant in names:
                found.append(path.stem)
        return found

    def module(self, name: str) -> ModuleType:
        return importlib.import_module(f"{self.package}.{name}")


SOURCES = Seam("hqsam_datasets.sources", "datasets/hqsam_datasets/sources", "SOURCE")
BENCHMARKS = Seam("hqsam_datasets.benchmarks", "datasets/hqsam_datasets/benchmarks", "BENCHMARK")
SCORES = Seam("hqsam_metrics.scores", "metrics/hqsam_metrics/scores", "SCORE")
BACKBONES = Seam("hqsam.model.backbones", "hqsam/model/backbones", "BACKBONE")
VARIANTS = Seam("hqsam.model.variants", "hqsam/model/variants", "VARIANT")
REFINERS = Seam("hqsam.refiners", "hqsam/refiners", "REFINER")
STAGES = Seam("hqsam_pipelines.stages", "pipelines/hqsam_pipelines/stages", "STAGE")
COMMANDS = Seam("hqsam_pipelines.commands", "pipelines/hqsam_pipelines/commands", "app")
SEAMS = (SOURCES, BENCHMARKS, SCORES, BACKBONES, VARIANTS, REFINERS, STAGES, COMMANDS)
ENTRIES = [(seam, name) for seam in SEAMS for name in seam.entries()]
IDS = [f"{seam.folder.rpartition('/')[2]}/{name}" for seam, name in ENTRIES]


def test_every_seam_has_what_the_paper_needs() -> None:
    assert {"dis5k", "thinobject5k", "fss1000", "ecssd", "msra10k", "duts"} <= set(
        SOURCES.entries()
    )
    wanted = {
        "dis_vd",
        "coift",
        "hrsod",
        "thinobject5k_test",
        "big",
        "coco",
        "lvis",
        "uvo",
        "hq_ytvis",
        "davis",
    }
    assert wanted <= set(BENCHMARKS.entries())
    assert {"masks", "coco", "lvis", "ytvis", "davis"} <= set(SCORES.entries())
    assert {"nano", "vit_b", "vit_l", "vit_h"} <= set(BACKBONES.entries())
    assert {"hq", "context_tokens", "fpn_fusion", "finetune_decoder", "lora_encoder"} <= set(
        VARIANTS.entries()
    )
    assert {"cascadepsp", "crm"} <= set(REFINERS.entries())


@pytest.mark.parametrize(("seam", "name"), ENTRIES, ids=IDS)
def test_an_entry_is_documented_and_does_nothing_when_imported(seam: Seam, name: str) -> None:
    path = REPOSITORY / seam.folder / f"{name}.py"
    tree = ast.parse(path.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring, f"{path}: no docstring"
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.Assign,
        ast.AnnAssign,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.If,
        ast.Expr,
    )
    for node in tree.body:
        assert isinstance(node, allowed), f"{path}:{node.lineno}: work at import time"
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), (
                f"{path}:{node.lineno}: work at import time"
            )


@pytest.mark.parametrize("name", SOURCES.entries())
def test_a_source_has_a_data_sheet_and_the_protocol(name: str) -> None:
    from hqsam_datasets import sources

    source = SOURCES.module(name).SOURCE
    assert sources.load(name) is source
    assert callable(source.scan)
    if name in sources.names():
        sheet = source.sheet
        # A person's own data (no known count) has neither an address nor a citation.
        published = ("url", "citation") if sheet.n_pairs else ()
        for field in ("title", "licence", "layout", *published):
            assert getattr(sheet, field), f"{name}: the data sheet says nothing about {field}"


@pytest.mark.parametrize("name", BENCHMARKS.entries())
def test_a_benchmark_has_a_data_sheet_and_the_protocol(name: str) -> None:
    from hqsam_datasets import benchmarks

    benchmark = benchmarks.load(name)
    assert benchmark is BENCHMARKS.module(name).BENCHMARK
    assert benchmark.kind in ("masks", "coco", "lvis", "ytvis", "davis")
    assert benchmark.dataset_version
    assert isinstance(benchmark.class_agnostic, bool)
    assert callable(benchmark.read)
    text = (BENCHMARKS.module(name).__doc__ or "").lower()
    missing = [word for word in ("licence", "layout") if word not in text]
    assert not missing, f"{name}: the data sheet in the docstring does not speak of {missing}"
    own = hasattr(benchmark, "of_section")  # a person's own data have no known count
    assert own or re.search(r"\d", text), f"{name}: the data sheet gives no count"


@pytest.mark.parametrize("name", SCORES.entries())
def test_a_metric_satisfies_its_protocol_and_carries_its_version(name: str) -> None:
    from hqsam_metrics.base import Score, load_score

    score = load_score(name)
    assert isinstance(score, Score)
    assert score.name == name
    assert score.version == SCORES.module(name).VERSION >= 1
    used = [(b, SAMPLE.score(b)) for b in SAMPLE.benchmarks if SAMPLE.score(b).metric == name]
    # A metric of one benchmark that the sample leaves out is named like it.
    assert used or name in BENCHMARKS.entries(), f"no benchmark is scored by {name}"
    for benchmark, options in used:
        block = score.protocol(options)
        assert block, benchmark
        assert options.version == score.version, (
            f"params.yaml: benchmarks.{benchmark}.score.version is not the code's"
        )


@pytest.mark.parametrize("name", BACKBONES.entries())
def test_a_backbone_describes_itself(name: str) -> None:
    from hqsam.model import backbones

    backbone = backbones.load(name)
    assert backbone.name == name
    assert backbone.mask_size == 4 * backbone.embedding_size
    assert backbone.early.split(".")[0]


@pytest.mark.parametrize("name", VARIANTS.entries())
def test_a_variant_describes_itself_and_builds(name: str) -> None:
    from hqsam.model import backbones, variants
    from hqsam.model.head import Head

    variant = variants.load(name)
    assert variant is VARIANTS.module(name).VARIANT
    assert variant.name == name
    assert all(re.match(r"(\d+|text-[\d.]+): \S", row) for row in variant.paper)
    head = variants.build(name, backbones.load("nano"))
    assert isinstance(head, Head)
    assert (head.variant, head.changes_encoder) == (name, variant.changes_encoder)


def test_every_file_of_the_variants_folder_is_found_by_name() -> None:
    from hqsam.model import variants

    assert variants.names() == VARIANTS.entries()


def test_hq_parameter_counts_are_the_published_ones() -> None:
    """1,071,104 / 1,333,248 / 1,595,392 / 448,512 for B / L / H / tiny: a closed form of the two widths."""
    from hqsam.model import backbones

    def count(v: int, c: int = 256) -> int:
        head = c + 2 * (c * c + c) + (c * c // 8 + c // 8)
        vit = 4 * v * c + c + 2 * c + 4 * c * c // 8 + c // 8
        encoder = 4 * c * c // 4 + c // 4 + 2 * (c // 4) + 4 * (c // 4) * (c // 8) + c // 8
        mask = 9 * (c // 8) * (c // 4) + c // 4 + 2 * (c // 4) + 9 * (c // 4) * (c // 8) + c // 8
        return head + vit + encoder + mask

    published = {"vit_b": 1_071_104, "vit_l": 1_333_248, "vit_h": 1_595_392, "vit_tiny": 448_512}
    for name in BACKBONES.entries():
        backbone = backbones.load(name)
        if name in published:
            assert count(backbone.vit_dim, backbone.decoder_dim) == published[name]


@pytest.mark.parametrize("name", STAGES.entries())
def test_a_stage_exposes_its_constant(name: str) -> None:
    from hqsam_pipelines.runner.stage import Stage

    stage = STAGES.module(name).STAGE
    assert isinstance(stage, Stage)
    assert stage.verb == name
    for word in ("Reads", "Writes"):
        assert word in (STAGES.module(name).__doc__ or ""), (
            f"{name}: the docstring does not say what it {word.lower()}"
        )


def test_every_file_of_the_stage_and_command_folders_is_an_entry() -> None:
    for seam in (STAGES, COMMANDS):
        files = {p.stem for p in (REPOSITORY / seam.folder).glob("*.py")} - {"__init__"}
        assert {name for name in files if not name.startswith("_")} == set(seam.entries())


def _names(profile: str, section: str) -> set[str]:
    return set(Params.load(REPOSITORY / "configs" / f"{profile}.yaml").raw[section])


@pytest.mark.parametrize("profile", sorted(p.stem for p in (REPOSITORY / "configs").glob("*.yaml")))
def test_every_entry_of_params_has_its_file(profile: str) -> None:
    params = Params.load(REPOSITORY / "configs" / f"{profile}.yaml")
    kinds = {params.source(name).kind or name for name in params.sources}
    assert kinds <= set(SOURCES.entries())
    assert set(params.benchmarks) <= set(BENCHMARKS.entries())
    assert {params.score(name).metric for name in params.benchmarks} <= set(SCORES.entries())
    assert {params.model(name).backbone for name in params.models} <= set(BACKBONES.entries())
    assert {params.model(name).variant for name in params.models} <= set(VARIANTS.entries())


def test_the_sample_has_every_training_source() -> None:
    assert _names("sample", "sources") == {
        "dis5k",
        "thinobject5k",
        "fss1000",
        "ecssd",
        "msra10k",
        "duts",
    }


def test_embedded_urls_have_a_generator() -> None:
    from hqsam_datasets.embedded import archives

    for name, entry in SAMPLE.raw["archives"].items():
        files: list[dict[str, Any]] = entry["files"]
        for file in files:
            for url in file["urls"]:
                archive, _, published = url.removeprefix("embedded://").partition("/")
                assert archive in archives.names()
                assert published in archives.files(archive), (name, url)
