"""The answer to a comparison in one line: the same words on the terminal, in Markdown, HTML and JSON.

It is read off the headline rows, whose verdicts `hqsam_metrics.verdicts` gave; nothing is decided
again here. The exit status of `hqsam compare` follows from it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from hqsam_pipelines.compare.comparison import Comparison
from hqsam_pipelines.compare.rows import Change, hq_system
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.results import further
from hqsam_pipelines.report.tables import interval_text, signed

_UNKNOWN = ("too few to tell", "not tested", "not comparable")
_ORDER = ("within noise", "equal up to rounding", "cannot move", *_UNKNOWN)


@dataclass(frozen=True)
class Answer:
    """What a comparison says.

    Attributes:
        status: ``mixed``: some headline rows are better and some are worse.
        line: one sentence.
    """

    status: Literal["better", "worse", "mixed", "no difference", "unknown"]
    line: str

    @property
    def exit_status(self) -> int:
        """Returns 0: no regression, 1: a headline row is worse, 3: nothing could be told."""
        return {"worse": 1, "mixed": 1, "unknown": 3}.get(self.status, 0)


def headlines(comparison: Comparison) -> list[Change]:
    """Returns the headline rows of HQ-SAM (the output that each set takes) and of further systems."""
    return [c for c in comparison.changes if c.headline and c.system in _judged(comparison, c)]


def _judged(comparison: Comparison, change: Change) -> set[str]:
    output = hq_system(comparison.b, change.benchmark)
    return {output, *(system.name for system in further(comparison.systems, output))}


def answer(comparison: Comparison) -> Answer:
    """Sums up the verdicts of the headline rows."""
    rows = headlines(comparison)
    counts: Counter[str] = Counter(change.verdict for change in rows)
    known = [verdict for verdict in counts if verdict not in _UNKNOWN]
    if not known:
        return Answer("unknown", f"cannot be told, because {_reason(comparison, rows)}")
    better, worse = counts["better"], counts["worse"]
    if better and worse:
        status, words = "mixed", "B is better in some rows and worse in others"
    elif worse:
        status, words = "worse", "B is worse"
    elif better:
        status, words = "better", "B is better"
    else:
        status, words = "no difference", "no difference found"
    first, second = ("worse", "better") if worse else ("better", "worse")
    parts = [f"{counts[first]} of {len(rows)} headline rows {first}", f"{counts[second]} {second}"]
    parts += [f"{counts[verdict]} {verdict}" for verdict in _ORDER if counts[verdict]]
    return Answer(status, f"{words}: {_mean(rows)}{', '.join(parts)}")  # type: ignore[arg-type]


def _mean(rows: list[Change]) -> str:
    """The mean of the four HQ sets, where it is one row with an interval."""
    found = [c for c in rows if (c.benchmark, c.metric) == (paper.HQ4_MEAN, "mBIoU")]
    if len(found) != 1 or found[0].interval is None or found[0].interval.too_few:
        return ""
    change = found[0]
    interval = interval_text(change.interval, 1)
    return f"mean of four mBIoU {' '.join([signed(change.difference, 1), interval]).strip()}; "


def _reason(comparison: Comparison, rows: list[Change]) -> str:
    if not rows:
        return "the revisions have no headline row in common"
    if all(change.verdict == "not comparable" for change in rows):
        return "the protocols differ"
    notes = dict.fromkeys(c.note for c in rows if c.verdict == "too few to tell" and c.note)
    if notes:
        return next(iter(notes))
    return "there are no intervals: per-instance tables are not at hand"
