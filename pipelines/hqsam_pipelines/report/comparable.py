"""How far a number of ours is comparable with the paper's: the words that every table beside the paper's has."""

from __future__ import annotations

from collections.abc import Iterable

from hqsam_pipelines.report import paper, sources
from hqsam_pipelines.report.results import Result, Run

SAME = "same"
OTHER_DATA = "other data (sample)"


def words(run: Run, model: str, backbone: str, results: Iterable[Result] = ()) -> str:
    """`same` (protocol and data, at most the weights differ), or what is not the same.

    Args:
        run: the results.
        model: of the number.
        backbone: of the paper's number.
        results: that the number was made from; none for what has no protocol.
    """
    found = [OTHER_DATA] if sources.embedded(run) else []
    own = run.backbone(model)
    if own != backbone:
        found.append(f"other model ({own})")
    keys = sorted({key for result in results for key in paper.other_protocol(result)})
    if keys:
        found.append(f"other protocol ({', '.join(keys)})")
    return "; ".join(found) or SAME
