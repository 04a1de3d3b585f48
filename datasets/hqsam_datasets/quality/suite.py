"""The expectations, and Great Expectations to evaluate them: ephemeral, silent, offline.

Results are stripped of run ids, batch ids and times, so the same data give the same bytes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hqsam_datasets.formats.masks import MASK_ENCODINGS

if TYPE_CHECKING:
    import pandas as pd

    from hqsam_datasets.quality.options import QualityOptions
    from hqsam_datasets.quality.tables import Tables

_KEY = r"^[a-z0-9_-]+$"
_XXH128 = r"^[0-9a-f]{32}$"
_IMAGE_MODES = ("RGB", "L", "LA", "RGBA", "P", "1", "I;16", "CMYK", "other")
_MAX_SIDE = 100_000
_SHOWN = 20


@dataclass(frozen=True)
class Check:
    """One expectation: the table it is for, what it says in plain words, the library's class name and arguments."""

    table: str
    title: str
    expectation: str
    arguments: dict[str, Any]


def check(tables: Tables, options: QualityOptions) -> list[dict[str, Any]]:
    """Evaluate all expectations.

    Returns:
        One dict per expectation in a fixed order: `table`, `title`, `expectation`, `column`,
        `arguments`, `success`,
        `element_count`, `unexpected_count`, `unexpected_percent`, `observed`, `sets` (data sets
        concerned) and `keys` (at most 20 offending keys, sorted).
    """
    checks = list(expectations(tables, options))
    results: list[dict[str, Any]] = []
    for name, frame in tables.frames().items():
        chosen = [item for item in checks if item.table == name]
        if len(frame):
            results += _evaluate(name, frame, chosen, tables)
    return results


def expectations(tables: Tables, options: QualityOptions) -> Iterator[Check]:
    """Yield every expectation of the gate, by table."""
    yield from _image_checks("samples", options)
    yield from _sample_checks(
        sorted(tables.sets.loc[tables.sets["role"] == "source", "set"]), options
    )
    yield from _image_checks("images", options)
    yield _between(
        "images", "image_id", -(2**63), 2**63 - 1, "every evaluation image has an official id"
    )
    yield _is_zero("images", "n_sizes_wrong", "instances and prompts have the size of their image")
    yield _is_zero("images", "n_boxes_outside", "prompt boxes lie inside their image")
    yield _is_zero("images", "n_boxes_empty", "prompt boxes have their corners in order")
    yield _is_zero("images", "n_areas_negative", "instance areas are not negative")
    yield from _set_checks(options)


def _image_checks(table: str, options: QualityOptions) -> Iterator[Check]:
    """Yield what holds for every image, of training or evaluation."""
    what = {"samples": "training", "images": "evaluation"}[table]
    yield Check(
        table,
        f"{what} keys are unique over all sets",
        "ExpectColumnValuesToBeUnique",
        {"column": "key"},
    )
    yield _matches(table, "key", _KEY, f"{what} keys are safe in file names, URLs and tars")
    yield _is_true(table, "key_has_prefix", f"{what} keys start with the name of their set")
    yield _is_true(table, "shard_exists", f"the archive of every {what} image is there")
    yield _between(
        table, "short_side", options.min_side, _MAX_SIDE, f"{what} images are large enough"
    )
    yield _between(table, "height", 1, _MAX_SIDE, f"{what} heights are pixels")
    yield _between(table, "width", 1, _MAX_SIDE, f"{what} widths are pixels")
    yield _matches(table, "pixel_digest", _XXH128, f"{what} pixels have a digest")
    yield _between(table, "pdq_bytes", 32, 32, f"{what} images have a perceptual hash")
    yield _between(
        table, "pdq_quality", 0, 100, f"the perceptual hash's quality of {what} images is in range"
    )
    yield _is_true(table, "tiles_ok", f"the local features of {what} images are readable")


def _sample_checks(sources: list[str], options: QualityOptions) -> Iterator[Check]:
    low, high = options.fg_fraction
    for column in (
        "source",
        "mask_encoding",
        "image_mode",
        "origin_image",
        "origin_mask",
        "n_instances",
    ):
        yield Check(
            "samples",
            f"column {column} has no nulls",
            "ExpectColumnValuesToNotBeNull",
            {"column": column},
        )
    yield _in_set("samples", "source", sources, "every training image names its source")
    yield _in_set(
        "samples",
        "mask_encoding",
        list(MASK_ENCODINGS),
        "the encoding of every mask is a known one",
    )
    yield _in_set(
        "samples", "image_mode", list(_IMAGE_MODES), "the mode of every image is a known one"
    )
    yield _between("samples", "exif_orientation", 1, 8, "EXIF orientations are 1 to 8")
    yield _between("samples", "n_instances", 1, 10_000, "every training image has a foreground")
    yield _between(
        "samples",
        "fg_fraction",
        low,
        high,
        "the foreground is neither a speck nor all of the image",
    )
    yield _between(
        "samples", "soft_fraction", 0, options.soft_fraction, "masks are masks, not pictures"
    )
    yield _matches("samples", "image_digest", _XXH128, "training files have a digest")


def _set_checks(options: QualityOptions) -> Iterator[Check]:
    yield _in_set("sets", "schema", ["ok"], "tables have the agreed columns and types")
    yield _between("sets", "n_rows", 1, 10**9, "no data set is empty")
    for first, second, title in (
        ("n_rows", "n_declared", "the number of rows is the one that the stage declared"),
        ("n_declared", "n_expected", "the number of images is the expected one"),
        (
            "n_instances",
            "n_instances_declared",
            "the number of instances is the one that index declared",
        ),
        ("n_prompts", "n_prompts_declared", "the number of prompts is the one that index declared"),
    ):
        arguments = {"column_A": first, "column_B": second}
        yield Check("sets", title, "ExpectColumnPairValuesToBeEqual", arguments)
    yield _between(
        "sets",
        "reject_fraction",
        0,
        options.reject_fraction,
        "few pairs were rejected beyond the known bad ones",
    )
    yield _is_zero("sets", "n_orphan_instances", "every instance belongs to an image of its set")
    yield _is_zero("sets", "n_orphan_prompts", "every prompt belongs to an image of its set")
    yield _is_zero("sets", "n_unknown_instances", "prompts name instances that exist")
    yield _is_zero(
        "sets", "n_duplicate_ids", "ids of instances and prompts are unique in their set"
    )
    yield _is_zero("sets", "n_duplicate_image_ids", "official image ids are unique in their set")
    yield _is_zero(
        "sets",
        "n_prompts_without_content",
        "every prompt has the box, points or mask that its kind says",
    )


def _between(table: str, column: str, low: float, high: float, title: str) -> Check:
    arguments = {"column": column, "min_value": low, "max_value": high}
    return Check(table, title, "ExpectColumnValuesToBeBetween", arguments)


def _is_zero(table: str, column: str, title: str) -> Check:
    return _between(table, column, 0, 0, title)


def _in_set(table: str, column: str, values: list[Any], title: str) -> Check:
    return Check(
        table, title, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": values}
    )


def _is_true(table: str, column: str, title: str) -> Check:
    return _in_set(table, column, [True], title)


def _matches(table: str, column: str, regex: str, title: str) -> Check:
    return Check(table, title, "ExpectColumnValuesToMatchRegex", {"column": column, "regex": regex})


# ---- the library ----


def _evaluate(
    name: str, frame: pd.DataFrame, checks: list[Check], tables: Tables
) -> list[dict[str, Any]]:
    """Run one table's suite.

    The library ignores nulls in most expectations: a null fails its own, added here.
    """
    # Without its telemetry and its log lines.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx
    import great_expectations.expectations

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    batch = (
        context.data_sources.add_pandas(name)
        .add_dataframe_asset(name)
        .add_batch_definition_whole_dataframe(name)
        .get_batch({"dataframe": frame})
    )
    checks = [*_null_checks(name, checks), *checks]
    suite = gx.ExpectationSuite(name=name)
    for position, item in enumerate(checks):
        make = getattr(gx.expectations, item.expectation)
        suite.add_expectation(make(**item.arguments, meta={"position": position}))
    outcome = batch.validate(
        suite,
        result_format={
            "result_format": "SUMMARY",
            "partial_unexpected_count": _SHOWN,
            "unexpected_index_column_names": ["set", "key"] if "key" in frame else ["set"],
        },
    )
    by_position = {r.expectation_config.meta["position"]: r for r in outcome.results}
    return [_plain(item, by_position[i], frame, tables) for i, item in enumerate(checks)]


def _null_checks(name: str, checks: list[Check]) -> list[Check]:
    """Return one expectation of no nulls per manifest column that any other expectation is about."""
    have = {
        c.arguments["column"] for c in checks if c.expectation == "ExpectColumnValuesToNotBeNull"
    }
    columns = dict.fromkeys(c.arguments["column"] for c in checks if "column" in c.arguments)
    # What `tables` computes has a value in every row.
    derived = {"key_has_prefix", "shard_exists", "tiles_ok"}
    wanted = [
        column
        for column in columns
        if not (column in have or name == "sets" or column.startswith("n_") or column in derived)
    ]
    return [
        Check(
            name,
            f"column {column} has no nulls",
            "ExpectColumnValuesToNotBeNull",
            {"column": column},
        )
        for column in wanted
    ]


def _plain(item: Check, outcome: Any, frame: pd.DataFrame, tables: Tables) -> dict[str, Any]:
    """Return the lasting part of one result."""
    if outcome.exception_info.get("raised_exception"):
        raise RuntimeError(f"{item.title}: {outcome.exception_info.get('exception_message')}")
    result = outcome.result
    places = result.get("partial_unexpected_index_list") or []
    column = item.arguments.get("column") or item.arguments.get("column_A", "")
    sets = sorted({str(place["set"]) for place in places})
    if item.table == "sets":
        keys = [key for name in sets for key in tables.examples.get((name, column), [])]
    else:
        keys = [str(place["key"]) for place in places]
    percent = result.get("unexpected_percent")
    return {
        "table": item.table,
        "title": item.title,
        "expectation": item.expectation,
        "column": column,
        "arguments": item.arguments,
        "success": bool(outcome.success),
        "element_count": int(result.get("element_count", len(frame))),
        "unexpected_count": int(result.get("unexpected_count", 0)),
        "unexpected_percent": 0.0 if percent is None else round(float(percent), 6),
        "observed": sorted({str(value) for value in result.get("partial_unexpected_list", [])})[:5],
        "sets": sets,
        "keys": sorted(set(keys))[:_SHOWN],
    }
