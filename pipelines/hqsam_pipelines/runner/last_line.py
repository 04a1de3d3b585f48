"""The last line of a run: the answer against the last committed report, and where the page lies."""

from __future__ import annotations

from pathlib import Path

from hqsam_base.errors import UserError


def last_line(root: Path) -> str:
    """One line for the end of `dvc repro` and `hqsam repro`.

    Args:
        root: the repository, whose report was just built.
    """
    page = root / "reports" / "report.html"
    return f"{_answer(root)}; report: {page}"


def _answer(root: Path) -> str:
    """The files on disk against HEAD; why there is no answer, if HEAD has no report or cannot be read."""
    from hqsam_pipelines.compare.answer import answer
    from hqsam_pipelines.compare.comparison import compare

    try:
        found = compare(root, "HEAD", running=True)
    except UserError as error:
        return f"No comparison with the last report ({error.problem})"
    except (
        Exception
    ) as error:  # whatever another report holds: this run, which is whole, does not fail for it
        return f"No comparison with the last report ({type(error).__name__})"
    return f"Against {found.a.label}: {answer(found).sentence('this run')}"
