"""The paper's published numbers (Segment Anything in High Quality, arXiv 2306.01567) and the layout of its tables.

The numbers live in ``data/paper_tables.csv`` (columns ``table, system, backbone, benchmark,
protocol, metric, value``; AP and IoU values times 100, as printed). This module finds a value by
our own names of benchmark, prompt set and metric, and says which benchmarks and metrics belong to
which table. A benchmark that the paper does not have needs no entry here: it appears in the
report's table of further benchmarks.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hqsam_pipelines.report.results import Result

System = Literal["SAM", "HQ-SAM"]

HQ4 = ("dis_vd", "coift", "hrsod", "thinobject5k_test")
"""The four sets whose unweighted mean is the paper's main number (Table 2)."""

HQ4_MEAN = "HQ4-mean"

REFERENCE_BACKBONE = "vit_l"
"""The backbone of every table of the paper unless a table says otherwise."""

PAPER_NAMES = {
    "dis_vd": "DIS-VD",
    "coift": "COIFT",
    "hrsod": "HRSOD",
    "thinobject5k_test": "ThinObject5K-TE",
    HQ4_MEAN: HQ4_MEAN,
    "coco": "COCO",
    "lvis": "LVIS",
    "uvo": "UVO",
    "big": "BIG-test",
    "hq_ytvis": "HQ-YTVIS-test",
    "ytvis19": "YTVIS19-val",
    "davis": "DAVIS17-val",
}

_PAPER_METRICS = {
    "APs": "AP_S",
    "APm": "AP_M",
    "APl": "AP_L",
    "AP_B_strict50": "AP_B50_strict",
    "AP_B_strict75": "AP_B75_strict",
}
_PAPER_TUBE_METRICS = {"AP": "AP_M", "AP50": "AP_M50", "AP75": "AP_M75"}

# The table that is asked first is the one made for the benchmark; the others repeat its rows.
_TABLE_ORDER = ("2", "5", "6", "7", "8", "11", "12", "4", "10", "9")

# The paper's evaluation where a run can choose (the authors' code and the paper's text).
_MASKS = {"resize": "stretch", "dilation_ratio": 0.02, "output": "hq_token", "score_rule": "none"}
_BOXES = {"resize": "longest_side", "dilation_ratio": 0.02, "output": "hq_sum"}
_PROTOCOLS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(HQ4, _MASKS),
    "big": _MASKS | {"resize": "longest_side"},
    "coco": _BOXES | {"score_rule": "detector_x_iou", "classes": "aware"},
    "lvis": _BOXES | {"score_rule": "detector", "max_dets": 300},
    "uvo": _BOXES | {"score_rule": "detector", "classes": "agnostic"},
    "hq_ytvis": _BOXES | {"score_rule": "detector", "classes": "aware"},
    "ytvis19": _BOXES | {"score_rule": "detector", "classes": "aware"},
    "davis": {"resize": "longest_side", "output": "hq_sum"},
    "sginw": _BOXES | {"score_rule": "detector"},
}

_TWINS = {"vit_tiny": {"SAM": "MobileSAM", "HQ-SAM": "Light HQ-SAM"}}
"""What Table 10 calls the two systems on a backbone with names of its own."""


@dataclass(frozen=True)
class Block:
    """One group of columns of a table: a benchmark under one kind of prompt.

    Attributes:
        benchmark: our name, as in ``params.yaml`` (or ``HQ4-mean``).
        metrics: our metric names, in the paper's order.
        prompt_set: our prompt set; ``None`` takes the benchmark's first.
    """

    benchmark: str
    metrics: tuple[str, ...]
    prompt_set: str | None = None


@dataclass(frozen=True)
class TableSpec:
    """Layout of one table.

    Attributes:
        name: file name without suffix.
        title: what it shows.
        source: which tables of the paper hold the reference numbers.
        blocks: its groups of columns.
    """

    name: str
    title: str
    source: str
    blocks: tuple[Block, ...]


_IOU = ("mIoU", "mBIoU")

TABLES = (
    TableSpec(
        "table02_hq_sets",
        "Four sets with fine structures, box prompts",
        "Tables 2 and 10",
        tuple(Block(name, _IOU, "gt_box") for name in (*HQ4, HQ4_MEAN)),
    ),
    TableSpec(
        "table04_coco",
        "COCO, detector boxes",
        "Tables 4, 7 and 10",
        (Block("coco", ("AP_B", "AP", "APl", "APm", "APs")),),
    ),
    TableSpec(
        "table05_uvo",
        "UVO, detector boxes, class-agnostic",
        "Table 5",
        (
            Block(
                "uvo",
                ("AP_B_strict", "AP_B_strict75", "AP_B_strict50", "AP_B", "AP_B75", "AP_B50", "AP"),
            ),
        ),
    ),
    TableSpec(
        "table06_big",
        "BIG, box prompts and coarse-mask prompts",
        "Table 6",
        (Block("big", _IOU, "gt_box"), Block("big", _IOU, "coarse_mask")),
    ),
    TableSpec(
        "table07_lvis",
        "LVIS, detector boxes",
        "Table 7",
        (Block("lvis", ("AP_B_strict", "AP_B_strict75", "AP_B", "AP_B75", "AP")),),
    ),
    TableSpec(
        "table08_hq_ytvis",
        "HQ-YTVIS, tracker boxes",
        "Table 8",
        (Block("hq_ytvis", ("AP_B", "AP_B75", "AP_B50", "AP", "AP75", "AP50")),),
    ),
    TableSpec(
        "table11_ytvis19",
        "YouTube-VIS 2019, tracker boxes",
        "Table 11",
        (Block("ytvis19", ("AP", "AP50", "AP75", "APl", "APm", "APs")),),
    ),
    TableSpec(
        "table12_davis",
        "DAVIS 2017, tracker boxes",
        "Table 12",
        (Block("davis", ("J&F", "J", "F")),),
    ),
)

TITLES = {
    "dis_vd": "DIS-VD",
    "coift": "COIFT",
    "hrsod": "HRSOD",
    "thinobject5k_test": "ThinObject-5K test",
    HQ4_MEAN: "Mean of the four",
    "coco": "COCO",
    "lvis": "LVIS",
    "uvo": "UVO",
    "big": "BIG",
    "hq_ytvis": "HQ-YTVIS",
    "ytvis19": "YouTube-VIS 2019",
    "davis": "DAVIS 2017",
    "ndd20": "NDD20",
    "sginw": "SGinW",
    **{f"dis_te{part}": f"DIS-TE{part}" for part in range(1, 5)},
}


_MAIN_PROMPTS = ("gt_box", "detector_box", "tracker_box", "coarse_mask")


def main_prompts(prompt_sets: Iterable[str]) -> list[str]:
    """The prompt sets of a benchmark whose numbers are headlines: those of the paper's main tables, else all.

    Noised boxes, points, clicks and the like are studies of a benchmark: with them every headline
    number would stand there many times, and all of them would be one family of tests.
    """
    sets = list(prompt_sets)
    return [name for name in sets if name in _MAIN_PROMPTS] or sets


def title(benchmark: str) -> str:
    """The name of a benchmark as people write it; an unknown one keeps its own."""
    return TITLES.get(benchmark, benchmark)


def titles(benchmarks: Iterable[str]) -> str:
    """The names of some benchmarks, each once."""
    return ", ".join(dict.fromkeys(title(name) for name in benchmarks))


@dataclass(frozen=True)
class Published:
    """A number of the paper, as printed (AP and IoU times 100): a line of ``data/paper_tables.csv``."""

    table: str
    system: str
    backbone: str
    benchmark: str
    protocol: str
    metric: str
    value: float

    @property
    def column(self) -> str:
        """The heading of its group of columns: the benchmark and, where it is no plain box, the protocol."""
        plain = self.protocol in ("gt_box", "-")
        return self.benchmark if plain else f"{self.benchmark}, {self.protocol}"


@functools.cache
def published() -> tuple[Published, ...]:
    """All numbers of the paper, in its order."""
    text = (
        resources.files("hqsam_pipelines.report")
        .joinpath("data/paper_tables.csv")
        .read_text(encoding="utf-8")
    )
    _, *lines = csv.reader(io.StringIO(text))
    return tuple(Published(t, s, b, k, p, m, float(v)) for t, s, b, k, p, m, v in lines)


@functools.cache
def _values() -> dict[tuple[str, str, str, str, str, str], float]:
    return {
        (p.table, p.system, p.backbone, p.benchmark, p.protocol, p.metric): p.value
        for p in published()
    }


def _metric_name(benchmark: str, metric: str) -> str:
    if benchmark == "hq_ytvis":
        return _PAPER_TUBE_METRICS.get(metric, metric)
    return _PAPER_METRICS.get(metric, metric)


def our_metric(benchmark: str, metric: str) -> str:
    """Our name of a metric of the paper."""
    names = _PAPER_TUBE_METRICS if benchmark == "hq_ytvis" else _PAPER_METRICS
    return {theirs: ours for ours, theirs in names.items()}.get(metric, metric)


def other_protocol(result: Result) -> list[str]:
    """The keys of a result's protocol block in which it differs from the paper's evaluation."""
    rules, own = _PROTOCOLS.get(result.benchmark, {}), result.protocol
    found = [key for key, theirs in rules.items() if key in own and own[key] != theirs]
    return [*found, *(["detector"] if "detector" in own else [])]


def is_protocol(protocol: str, prompt_set: str) -> bool:
    """Whether the paper's protocol text means our kind of prompt."""
    if prompt_set == "gt_box":
        return protocol == "gt_box"
    if prompt_set == "coarse_mask":
        return "mask prompt" in protocol
    return prompt_set in ("detector_box", "tracker_box") and "boxes" in protocol


def value(
    system: System, benchmark: str, prompt_set: str, metric: str, backbone: str = REFERENCE_BACKBONE
) -> float | None:
    """A number of the paper, times 100 as printed; ``None`` where the paper has none.

    Args:
        system: ``SAM`` or ``HQ-SAM``.
        benchmark: our name, or ``HQ4-mean``.
        prompt_set: our prompt set.
        metric: our metric name (DESIGN.md section 4).
        backbone: ``vit_b``, ``vit_l``, ``vit_h`` or ``vit_tiny``.
    """
    paper_name = PAPER_NAMES.get(benchmark)
    wanted = (system_name(system, backbone), backbone, paper_name)
    found = {
        table: number
        for (table, *who, protocol, name), number in _values().items()
        if tuple(who) == wanted
        and name == _metric_name(benchmark, metric)
        and is_protocol(protocol, prompt_set)
    }
    return next((found[table] for table in _TABLE_ORDER if table in found), None)


def row_value(table: str, system: str, benchmark: str, metric: str) -> float | None:
    """A number of one row of one table, whatever its backbone; None where that row has none.

    Args:
        table: as in ``paper_tables.csv``, e.g. ``3``.
        system: the row's name there.
        benchmark: our name, or ``HQ4-mean`` (the mean of the row's four sets where the table does
            not print it).
        metric: our metric name.
    """
    found = {
        name: number
        for (where, who, _, name, _, measure), number in _values().items()
        if (where, who) == (table, system) and measure == _metric_name(benchmark, metric)
    }
    four = [found.get(PAPER_NAMES[name]) for name in HQ4]
    if benchmark == HQ4_MEAN and HQ4_MEAN not in found:
        known = [number for number in four if number is not None]
        return sum(known) / len(known) if len(known) == len(HQ4) else None
    return found.get(PAPER_NAMES[benchmark])


def system_name(system: System, backbone: str) -> str:
    """What the paper calls a system on a backbone."""
    return _TWINS.get(backbone, {}).get(system, system)


def cost(system: System, backbone: str, metric: str) -> float | None:
    """A number of Table 10 (and 1) about running a system on the paper's GPU (RTX 3090); ``None`` where it has none.

    Args:
        system: ``SAM`` or ``HQ-SAM``.
        backbone: our name.
        metric: ``learnable_MiB``, ``total_MiB``, ``fps`` or ``memory_GB``.
    """
    return _values().get(
        ("10", system_name(system, backbone), backbone, "inference", "3090", metric)
    )


def reference_backbone(backbone: str) -> str:
    """The backbone of the paper that our backbone is set beside: itself where the paper has it, else ViT-L."""
    known = {who for (_, _, who, *_) in _values()}
    return backbone if backbone in known and backbone != "-" else REFERENCE_BACKBONE
