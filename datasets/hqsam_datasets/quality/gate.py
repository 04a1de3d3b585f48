"""The quality gate: Great Expectations on the manifests of every source and benchmark. A failure stops the pipeline.

What the pixels have to say is already in columns (`fg_fraction`, `soft_fraction`, `mask_encoding`,
...); here nothing is decoded. Three tables are checked (`hqsam_datasets.quality.tables`): one row
per training image, one per evaluation image, one per data set. Instances and prompts, which can be
millions, are counted into the latter two.

Outputs (docs/formats.md): ``results.json``, ``data_docs.html``, and last ``validation.json``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from hqsam_base.atomic import atomic_folder, write_json, write_text
from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_datasets.quality.options import QualityOptions

VERSION = 1
_SHOWN_FAILURES = 5


def validate(
    *,
    samples: dict[str, Path],
    benchmarks: dict[str, Path],
    out: Path,
    options: QualityOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Check all manifests and write the result.

    Args:
        samples: source name -> folder of its manifest, `data/samples/<source>`.
        benchmarks: benchmark name -> folder of its tables, `data/benchmarks/<benchmark>`.
        out: folder to write, whole or not at all.
        options: section `quality` of params.yaml.
        progress: called after each of the three steps.

    Returns:
        The content of `validation.json`.

    Raises:
        UserError: if a table is missing, or an expectation fails. In the latter case results and
            data docs are written to the sibling folder `<out>-failed`, and `out` is left as it was.
    """
    # Great Expectations takes seconds to import: not before it is needed.
    from hqsam_datasets.quality.docs import render
    from hqsam_datasets.quality.suite import check
    from hqsam_datasets.quality.tables import read_tables

    progress(0, 3, "reading manifests")
    tables = read_tables(samples, benchmarks, options)
    progress(1, 3, "expectations")
    results = check(tables, options)
    progress(2, 3, "data docs")
    failed = [row for row in results if not row["success"]]
    folder = out.with_name(f"{out.name}-failed") if failed else out
    failures = Counter(row["table"] for row in failed)
    total = Counter(row["table"] for row in results)
    summary = {
        "version": VERSION,
        "success": not failed,
        "n_expectations": len(results),
        "n_failed": len(failed),
        "by_table": {
            name: {"rows": len(frame), "expectations": total[name], "failed": failures[name]}
            for name, frame in tables.frames().items()
        },
        "n_samples": len(tables.samples),
        "n_images": len(tables.images),
        "n_instances": int(tables.sets["n_instances"].sum()),
        "n_prompts": int(tables.sets["n_prompts"].sum()),
        **({"missing": tables.missing} if tables.missing else {}),
    }
    with atomic_folder(folder) as tmp:
        write_json(
            tmp / "results.json",
            {"version": VERSION, "options": options.model_dump(mode="json"), "results": results},
        )
        write_text(tmp / "data_docs.html", render(tables, results, summary))
        summary["digest"] = hashlib.sha256((tmp / "results.json").read_bytes()).hexdigest()
        write_json(tmp / "validation.json", summary)
    progress(3, 3, "done")
    if failed:
        raise _failure(failed, folder)
    return summary


def _failure(failed: list[dict[str, Any]], folder: Path) -> UserError:
    """Name every failed expectation (the first few in full) with the data sets and the keys concerned."""
    lines = []
    for row in failed[:_SHOWN_FAILURES]:
        where = ", ".join(row["sets"]) or row["table"]
        keys = f": {', '.join(row['keys'][:5])}" if row["keys"] else ""
        more = f" and {row['unexpected_count'] - 5} more" if row["unexpected_count"] > 5 else ""
        lines.append(f"{row['title']} fails in {where}{keys}{more}")
    if len(failed) > _SHOWN_FAILURES:
        lines.append(f"{len(failed) - _SHOWN_FAILURES} more expectations fail")
    first = next((key for row in failed for key in row["keys"]), None)
    return UserError(
        f"{len(failed)} quality expectations fail. " + "; ".join(lines),
        file=folder / "data_docs.html",
        key=first,
        cure="fix these files, skip them (sources.<name>.skip, benchmarks.<name>.index.skip of "
        "own data), or change the limit in "
        "params quality",
    )
