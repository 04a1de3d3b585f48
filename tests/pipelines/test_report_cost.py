"""The committed cost measurement, what the report makes of it, and that its parameter counts are the code's."""

from __future__ import annotations

import csv
import io

import pytest
import torch

from hqsam.model import backbones
from hqsam.model.hq_decoder import HQHead
from hqsam_pipelines.report import cost, paper

PUBLISHED = {"vit_b": 1_071_104, "vit_l": 1_333_248, "vit_h": 1_595_392, "vit_tiny": 448_512}


def counts(name: str) -> tuple[int, int]:
    """Parameters of SAM and of the HQ head; nothing is allocated."""
    backbone = backbones.load(name)
    with torch.device("meta"):
        parts = backbone.build(), HQHead(decoder_dim=backbone.decoder_dim, vit_dim=backbone.vit_dim)
    sam, head = (sum(p.numel() for p in part.parameters()) for part in parts)
    return sam, head


def test_committed_parameters_are_those_of_the_code() -> None:
    rows = cost.rows()
    assert {row.backbone for row in rows} >= set(PUBLISHED)
    for sam, hq in zip(rows[::2], rows[1::2], strict=True):
        assert (sam.system, hq.system, sam.backbone) == ("SAM", "HQ-SAM", hq.backbone)
        expected = counts(sam.backbone)
        assert (sam.total, hq.learnable, hq.total) == (*expected, sum(expected)), sam.backbone
        assert hq.learnable == PUBLISHED.get(hq.backbone, hq.learnable)
        assert sam.learnable == sam.total


@pytest.mark.parametrize("backbone", ["vit_b", "vit_l", "vit_h"])
def test_parameters_are_the_papers(backbone: str) -> None:
    """Table 10 prints mebibytes, rounded."""
    for row in cost.rows():
        if row.backbone == backbone:
            learnable, total, *_ = row.ours()
            assert learnable == pytest.approx(
                paper.cost(row.system, backbone, "learnable_MiB"), abs=0.6
            )
            assert total == pytest.approx(paper.cost(row.system, backbone, "total_MiB"), abs=0.6)


def test_paper_names_and_gaps() -> None:
    assert paper.cost("HQ-SAM", "vit_tiny", "fps") == 41.2
    assert paper.system_name("SAM", "vit_tiny") == "MobileSAM"
    assert paper.cost("SAM", "nano", "fps") is None


def test_table_has_a_line_per_system() -> None:
    lines = list(csv.DictReader(io.StringIO(cost.cost_csv())))
    assert [(line["backbone"], line["system"]) for line in lines] == [
        (r.backbone, r.system) for r in cost.rows()
    ]
    vit_l = next(
        line for line in lines if line["backbone"] == "vit_l" and line["system"] == "HQ-SAM"
    )
    assert (vit_l["paper_fps"], vit_l["learnable_parameters"]) == ("4.8", "1333248")
    assert float(vit_l["fps"]) > 0 and float(vit_l["memory_GB"]) > 1.2  # its weights alone


def test_context_fits_the_template() -> None:
    context = cost.cost_context()
    assert all(len(line["cells"]) == 4 for line in context["lines"])
    assert {line["system"] for line in context["lines"]} >= {
        "SAM",
        "HQ-SAM",
        "MobileSAM",
        "Light HQ-SAM",
    }
