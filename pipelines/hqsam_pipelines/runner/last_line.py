"""The last line of a run: the answer against the last committed report, and where the page lies."""

from __future__ import annotations

from pathlib import Path

from hqsam_base.errors import UserError


def last_line(root: Path) -> str:
    """One line for the end of `dvc repro` and `hqsam repro`.

    Args:
        root: the repository, whose report was just built.
    """
    from hqsam_pipelines.compare.answer import answer
    from hqsam_pipelines.compare.comparison import compare

    try:
        found = compare(root, "HEAD", running=True)
    except Exception as error:
        # HEAD has no report, or one that holds whatever: this run, which is whole, does not fail
        # for it.
        why = error.problem if isinstance(error, UserError) else type(error).__name__
        said = f"No comparison with the last report ({why})"
    else:
        said = f"Against {found.a.label}: {answer(found).sentence('this run')}"
    return f"{said}; report: {root / 'reports' / 'report.html'}"
