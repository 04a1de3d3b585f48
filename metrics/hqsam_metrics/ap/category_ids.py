"""Category ids that fit the annotations only if they are counted in another way: AP is near 0 then, and nothing else says why."""

from __future__ import annotations

import numpy as np

from hqsam_base.runs import Int
from hqsam_metrics.ap.columns import Ids, IdTable


def of_annotations(classes: Ids, categories: IdTable) -> list[str]:
    """Warns of annotations whose categories are those of the list, but for their first or last, one lower or higher.

    Args:
        classes: ids of the annotations' categories.
        categories: the list of categories.
    """
    if categories.names is not None or not isinstance(classes, np.ndarray):
        return []
    used = np.unique(classes)
    if np.isin(used, categories.numbers).all():
        return []
    for step, said in (
        (1, "1 lower than in `categories`: add 1 to"),
        (-1, "1 higher than in `categories`: take 1 from"),
    ):
        if np.isin(used + step, categories.numbers).all():
            return [
                f"the annotations seem to count categories {said} each `category_id`, or correct the list"
            ]
    return []


def of_detections(
    categories: IdTable, annotated: tuple[Int, Int], found: tuple[Int, Int], given: Int | None
) -> list[str]:
    """Warns of detections that are rarely of a category of their image or video, and often if counted otherwise.

    Args:
        categories: the ids of the categories.
        annotated: place of the image or video, and of the category, of each annotation: int64 [g].
        found: the same of each detection, -1 for an unknown category: int64 [n].
        given: the category's id of each detection, as its file has it: int64 [n]; None where ids
            are names.
    """
    if given is None or categories.names is not None or not len(given):
        return []
    n, unit = len(categories), found[0]
    pairs = np.unique(annotated[0] * n + annotated[1])

    def share(category: Int) -> float:
        """Returns how many of the detections are of a category that their image has."""
        return float((np.isin(unit * n + category, pairs) & (category >= 0)).mean())

    as_is = share(found[1])
    # A model counts classes from 0 (or 1) without gaps; ids of annotations have any beginning and
    # gaps.
    ranks = np.arange(n)
    ways = (
        ("1 too low (counted from 0?): add 1 to each", categories.place(given + 1)),
        ("1 too high: take 1 from each", categories.place(given - 1)),
        (
            "places in the list of categories, counted from 0: write the id at that place",
            np.where(np.isin(given, ranks), given, -1),
        ),
        (
            "places in the list of categories, counted from 1: write the id at that place",
            np.where(np.isin(given - 1, ranks), given - 1, -1),
        ),
    )
    text, best = max(((text, share(category)) for text, category in ways), key=lambda way: way[1])
    if best < 0.5 or as_is > best / 4:
        return []
    return [
        f"the `category_id` of detections (or those of the annotations) seem to be {text}; "
        f"{as_is:.0%} of the detections are of a category that is annotated in their image or video, "
        f"{best:.0%} would be then"
    ]
