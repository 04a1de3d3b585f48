"""The answer of a comparison: is B better, worse, no different, or cannot it be told, in one sentence.

Terminal, Markdown, page, JSON and exit status all take it from here. It is about the headline rows
of HQ-SAM, which are one family (`hqsam_metrics.verdicts`): other thresholds, sizes and systems are
shown beside it and change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hqsam_pipelines.compare.rows import LONE, Change, hq_system
from hqsam_pipelines.report import paper
from hqsam_pipelines.report.results import further
from hqsam_pipelines.report.tables import interval_text, signed

if TYPE_CHECKING:
    from hqsam_pipelines.compare.comparison import Comparison

Outcome = Literal["better", "worse", "mixed", "no difference found", "cannot be told"]

FOLDED = ("cannot move", "equal up to rounding")
"""Verdicts of rows that are named in one line and not shown: they did not, or cannot, move."""

COUNTED = {
    "better": "better",
    "worse": "worse",
    "within noise": "within noise",
    "too few to tell": "too few to tell",
    "not tested": "not tested",
    "not comparable": "not comparable",
    "cannot move": "did not move",
    "equal up to rounding": "equal up to rounding",
    "only in A": "only in A",
    "only in B": "only in B",
}
"""How rows of each verdict are counted in words."""

_OWN = {"mixed": ("worse",), "no difference found": ("within noise", *FOLDED)}
"""Verdicts that stand for an answer with another name, in the order of preference."""
_UNKNOWN = ("too few to tell", "not tested", "not comparable", *LONE)
_DIRECTIONS = ("better", "worse")
_LEAD_METRIC = "mBIoU"


@dataclass(frozen=True)
class Answer:
    """What a comparison says.

    Attributes:
        outcome: ``mixed``: some rows are better and some are worse.
        rows: the headline rows that it is about, in their order.
        lead: the row that is named in the sentence; None: no row is in both revisions.
        why: the reason of ``cannot be told``.
    """

    outcome: Outcome
    rows: tuple[Change, ...]
    lead: Change | None
    why: str = ""

    @property
    def moved(self) -> tuple[Change, ...]:
        """The rows that are shown."""
        return tuple(row for row in self.rows if row.verdict not in FOLDED)

    @property
    def folded(self) -> tuple[Change, ...]:
        """The rows that are only named."""
        return tuple(row for row in self.rows if row.verdict in FOLDED)

    @property
    def status(self) -> int:
        """The exit status: 0 no regression, 1 a regression, 3 it cannot be told."""
        return {"worse": 1, "mixed": 1, "cannot be told": 3}.get(self.outcome, 0)

    def counts(self) -> dict[str, int]:
        """How many headline rows have each verdict, the answer's own verdict first."""
        found = {name: sum(r.verdict == name for r in self.rows) for name in COUNTED}
        order = _OWN.get(self.outcome, (self.outcome,))
        own = next((name for name in order if found.get(name)), max(found, key=lambda n: found[n]))
        return {own: found[own], **found}

    def sentence(self, name: str = "B", width: int | None = None) -> str:
        """The answer in one sentence.

        Args:
            name: what B is called.
            width: columns that there are; a shorter form is taken where the whole one is longer.
        """
        head = {
            "better": f"{name} is better",
            "worse": f"{name} is worse",
            "mixed": f"{name} is better in some rows and worse in others",
            "no difference found": "No difference found"
            if name == "B"
            else f"{name}: no difference found",
            "cannot be told": f"It cannot be told whether {name} is better",
        }[self.outcome]
        head += f", {self.why}" if self.why else ""
        head += f": {self._lead()}" if self._lead() else ""
        if not self.rows:
            return head
        whole = f"{head}; {self._counted()}"
        return whole if width is None or len(whole) <= width else f"{head}; {self._brief()}"

    def _lead(self) -> str:
        """The row that the sentence names, with its difference and interval."""
        row = self.lead
        if row is None or row.difference is None:
            return ""
        name = "mean of four" if row.benchmark == paper.HQ4_MEAN else paper.title(row.benchmark)
        model = f" ({row.model})" if len({r.model for r in self.rows}) > 1 else ""
        known = row.interval is not None and not row.interval.too_few
        interval = f" {interval_text(row.interval)}" if known else ""
        return f"{name}{model} {row.scale.label(row.metric)} {signed(row.difference)}{interval}"

    def _counted(self) -> str:
        counts = self.counts()
        always = () if self.outcome == "cannot be told" else ("better", "worse", "within noise")
        first, *rest = (
            f"{count} {COUNTED[name]}" for name, count in counts.items() if count or name in always
        )
        number, _, verdict = first.partition(" ")
        plural = "row" if len(self.rows) == 1 else "rows"
        return ", ".join([f"{number} of {len(self.rows)} headline {plural} {verdict}", *rest])

    def _brief(self) -> str:
        """Counts of the answer's own verdict, of rows that nobody could test, and of the opposite verdict."""
        counts = self.counts()
        own, *rest = counts
        untested = sum(counts[name] for name in _UNKNOWN if name != own)
        opposite = [n for n in rest if n in _DIRECTIONS and own in _DIRECTIONS]
        parts = [f"{counts[own]}/{len(self.rows)} {COUNTED[own]}"]
        parts += [f"{counts[name]} {name}" for name in opposite if counts[name] or not untested]
        return ", ".join([*parts, *([f"{untested} untested"] if untested else [])])


def answer(comparison: Comparison) -> Answer:
    """Answers whether B is better than A."""
    rows = headline(comparison)
    verdicts = {row.verdict for row in rows} - set(LONE)
    if verdicts & {"better", "worse"}:
        decided: Outcome = "better" if "worse" not in verdicts else "worse"
        outcome: Outcome = "mixed" if {"better", "worse"} <= verdicts else decided
        return Answer(outcome, rows, _lead(rows, outcome))
    if "within noise" in verdicts or (verdicts and verdicts <= set(FOLDED)):
        why = ""
        # the rows that did not have to be tested
        machines = [row.note for row in rows if row.verdict == "equal up to rounding"]
        if verdicts == {"cannot move"}:
            why = "because every instance is equal"
        elif machines:
            why = f"but for the rounding of {machines[0]}"
        return Answer("no difference found", rows, _lead(rows, "within noise"), why)
    reasons = {
        "not comparable": "the protocols differ",
        "not tested": "there are no intervals",
        "too few to tell": "there are too few images",
    }
    found = [text for name, text in reasons.items() if name in verdicts]
    why = "because " + " and ".join(found if verdicts else ["no headline row is in both revisions"])
    return Answer("cannot be told", rows, _lead(rows, "not tested"), why)


def headline(comparison: Comparison) -> tuple[Change, ...]:
    """The headline rows of HQ-SAM (the output that each set takes) and of further systems with a baseline."""
    rows = [change for change in comparison.changes if change.headline]
    names = {system.name for system in comparison.systems}
    asked = []
    for row in rows:
        side = comparison.a if row.verdict == "only in A" else comparison.b
        output = hq_system(side, row.benchmark)
        if output in names:
            others = (system.name for system in further(comparison.systems, output))
            asked += [row] if row.system in {output, *others} else []
    return tuple(asked or rows)


def _lead(rows: Sequence[Change], verdict: str) -> Change | None:
    four = [r for r in rows if r.benchmark == paper.HQ4_MEAN and r.metric == _LEAD_METRIC]
    like = [r for r in rows if r.verdict == verdict]
    known = [r for r in rows if r.difference is not None]
    return next(iter([*four, *like, *known]), None)
