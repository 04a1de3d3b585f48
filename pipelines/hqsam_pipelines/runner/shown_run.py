"""What a stage run shows on the Prefect server: its place under the whole run, tags, log lines, a table, the report.

None of it is worth the work: where it fails there is one line on standard error.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from hqsam_base.safe_text import shown
from hqsam_base.terminal import say

PARENT = "HQSAM_PARENT_TASK_RUN"
"""The variable by which a stage, or a whole run that a worker started, learns the task run that it belongs to."""
PARENT_S = 3.0
"""How long the server may take to record the task run that has just begun."""
MAX_ROWS = 200


def tags(verb: str, names: Mapping[str, str], commit: str | None) -> list[str]:
    """The tags of a stage run: `stage:score`, `benchmark:coco`, `model:nano`, `commit:0123456789`.

    Args:
        verb: The stage.
        names: Section of params.yaml to the entry that the run is for.
        commit: What is checked out.
    """
    found = [f"stage:{verb}"]
    found += [f"{section.removesuffix('s')}:{name}" for section, name in names.items()]
    return [*found, *([f"commit:{commit[:10]}"] if commit else [])]


async def parent(client: Any) -> Any:
    """The id of the task run that started this process, once the server knows it; None if there is none."""
    from prefect.exceptions import ObjectNotFound

    given, begin = os.environ.get(PARENT), time.monotonic()
    while given and time.monotonic() - begin < PARENT_S:
        with contextlib.suppress(ObjectNotFound, ValueError):
            return (await client.read_task_run(given)).id
        time.sleep(0.1)
    return None


async def begun(flow: Any, name: str, parameters: Mapping[str, Any], tags: Iterable[str]) -> Any:
    """Make the flow run on the server, as a child of the run that started this process, if one did.

    Args:
        flow: Prefect's.
        name: The run's.
        parameters: Shown on the server.
        tags: Shown on the server.
    """
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        return await client.create_flow_run(
            flow,
            name=name,
            parameters=dict(parameters),
            tags=list(tags),
            parent_task_run_id=await parent(client),
        )


def environment() -> dict[str, str]:
    """Return the variable by which a process learns that the task run that is active here started it; empty outside of one."""
    context = sys.modules.get("prefect.context")
    active = context.TaskRunContext.get() if context is not None else None
    return {PARENT: str(active.task_run.id)} if active is not None else {}


@contextlib.contextmanager
def logged() -> Iterator[Callable[[str], None]]:
    """Send the lines that the block prints to the log of the Prefect run that is active here, too; gives its logger."""
    from prefect.logging import get_run_logger

    log = get_run_logger()

    def info(line: str) -> None:
        log.info("%s", shown(line))

    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = cast(TextIO, _Tee(out, info)), cast(TextIO, _Tee(err, info))
    try:
        yield info
    finally:
        sys.stdout, sys.stderr = out, err


class _Tee:
    """A text stream that passes everything on, and hands whole lines to a function."""

    def __init__(self, stream: TextIO, take: Callable[[str], None]) -> None:
        self._stream = stream
        self._take = take
        self._rest = ""

    def write(self, text: str) -> int:
        self._stream.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip() and "\x1b" not in line and "\r" not in line:  # not a progress bar's
                self._take(line.rstrip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def table(verb: str, names: tuple[str, ...], root: Path, result: Any) -> list[dict[str, Any]]:
    """What a stage run found, as rows: metrics of a score, epochs of a training, else the counts that it returned.

    Args:
        verb: The stage.
        names: The entries that it ran for.
        root: The repository.
        result: What the library returned.
    """
    if verb == "score":
        found = json.loads((root / "reports" / "metrics" / f"{'-'.join(names)}.json").read_bytes())
        return [
            {"prompts": r["prompt_set"], "system": r["system"], "metric": metric, "value": value}
            for r in found["results"]
            for metric, value in r["metrics"].items()
        ]
    curves = root / "models" / names[0] / "curves.csv" if verb == "train" else None
    if curves is not None and curves.is_file():
        with curves.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if verb == "report":
        with (root / "reports" / "tables" / "overview.csv").open(encoding="utf-8") as file:
            kept = ("benchmark", "prompt_set", "metric", "model", "sam", "hq_sam", "delta")
            return [{name: row[name] for name in kept} for row in csv.DictReader(file)]
    plain = result if isinstance(result, Mapping) else {}
    return [
        {"what": str(name), "value": value}
        for name, value in plain.items()
        if isinstance(value, int | float | str) and len(str(value)) <= 200
    ]


def line(row: Mapping[str, Any]) -> str:
    """A row of a table as a line of the log: `n_images: 16`, or `epoch 3, loss 0.69`."""
    if row.keys() == {"what", "value"}:
        return f"{row['what']}: {row['value']}"
    return ", ".join(f"{name} {value}" for name, value in row.items() if value != "")


def publish(name: str, rows: list[dict[str, Any]], figures: Mapping[str, float]) -> None:
    """Show the table of a stage run, its figures of speed among the rows; nothing where there is none.

    Args:
        name: The run's name, which gives the key: `score-coco-nano`.
        rows: See `table`.
        figures: What the library says of its own speed.
    """
    from prefect.artifacts import create_table_artifact

    shown_rows = [{k: shown(str(v)) for k, v in row.items()} for row in rows[:MAX_ROWS]]
    shown_rows += [{"what": k, "value": f"{v:g}"} for k, v in figures.items()]
    if not shown_rows:
        return
    # a key of artifacts is of lower-case letters, digits and dashes
    key = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()) + "-table"
    left = f"; the first {MAX_ROWS} of {len(rows)} rows" if len(rows) > MAX_ROWS else ""
    try:
        create_table_artifact(shown_rows, key=key, description=f"{name}{left}")
    except Exception as error:
        say(f"  {name}: no artifact of its figures: {error}", err=True)


def publish_report(root: Path) -> None:
    """Show where the report lies."""
    from prefect.artifacts import create_link_artifact

    page = root / "reports" / "report.html"
    if not page.is_file():
        return
    try:
        create_link_artifact(
            link=page.resolve().as_uri(),
            link_text=str(page),
            key="report-page",
            description="The report; browsers open a file's address where it lies only.",
        )
    except Exception as error:
        say(f"  no link to the report: {error}", err=True)
