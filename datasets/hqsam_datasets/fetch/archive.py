"""Get the files of an archive from the first mirror that has them, verify them, and only then show them.

Downloads grow in a hidden sibling (`.<archive>.download/`) that outlives a kill, so that the next
run resumes; the archive's folder appears when every file is there and verified, with `fetch.json`
written last.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hqsam_base.atomic import atomic_folder, clear_stale, link_or_copy, read_json, write_json
from hqsam_base.errors import UserError
from hqsam_base.locks import locked
from hqsam_base.progress import Progress, with_rate
from hqsam_datasets.fetch import first_use
from hqsam_datasets.fetch.one_file import FileTask, digests_of, get_file, staging_of
from hqsam_datasets.fetch.places import (
    drop_folder,
    dropped,
    is_absent,
    on_this_machine,
    untold,
)
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.fetch.transfer import RetryPolicy, Transfer, check_space, size_of

VERSION = 1


def fetch(
    spec: ArchiveSpec,
    out: Path,
    *,
    progress: Progress,
    policy: RetryPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
    notice: Callable[[str], None] = lambda text: None,
    digests: Path | None = None,
    others: Mapping[str, ArchiveSpec] | None = None,
) -> dict[str, Any]:
    """Fetch and verify every file of an archive into `out` (its folder name is the archive's name).

    Where no digest is known, the first one seen is recorded in fetch.json and holds from then on,
    but for files of this machine (`file://`, drop folder): their owner may change them. A complete
    `out` of the same files is left alone.
    `digests` is where first digests of downloads are kept for all clones (`first_use`); without it
    this folder's fetch.json does.
    `others` are the specifications of the archives in the folders beside `out`: what one of them has
    from an address of this archive is not downloaded again.
    `notice` is told about such a change, and, in the words of the error that it would be otherwise,
    about each optional file that is unavailable.

    Returns:
        What fetch.json holds: `{"version", "archive", "licence", "files": [{"name", "bytes",
        "sha256", "checked_by"}]}`. `checked_by` names the digests that were known beforehand,
        `["first-use"]` if none. Where optional files are unavailable, also `"missing": {name: what
        a person can do}`; where files are those of the embedded sample, `"embedded": true`.

    Raises:
        UserError: if no mirror gives a file that passes; the message lists what each one said, and
            where to put a file fetched by hand.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out.parent / f".{out.name}.lock", remove=True):
        known = _still_the_same(_earlier(out), spec, out, notice)
        told = (
            {}
            if digests is None
            else first_use.of(digests, out.name, [file.name for file in untold(spec, out)])
        )
        if not _is_complete(spec, out, known, told):
            beside = {name: one for name, one in (others or {}).items() if name != out.name}
            words = (progress, policy or RetryPolicy(), sleep, notice)
            known = _fetch(spec, out, known, told, beside, *words)
        if digests is not None:
            names = {file.name for file in untold(spec, out)}
            found = {
                f"{out.name}/{record['name']}": record["sha256"]
                for record in known["files"]
                if record["name"] in names
            }
            new = first_use.add(digests, found) if found else []
            if new:
                notice(
                    f"nobody publishes a digest of {', '.join(new)}: that of this download is in "
                    f"{digests.name} now; commit it"
                )
        # Also what a run that was killed between publishing and tidying up has left.
        shutil.rmtree(staging_of(out), ignore_errors=True)
        clear_stale(out)
    progress(len(spec.files), len(spec.files), out.name)
    return known


def missing_by_hand(spec: ArchiveSpec, out: Path) -> tuple[list[str], list[str]]:
    """List files that must be placed by hand and are neither in `out` nor where they are expected.

    Those are the drop folder, and what a `file://` address names.

    Returns:
        Names of those without which its fetch stage fails, and of those without which something is
        left out.
    """
    found: tuple[list[str], list[str]] = ([], [])
    for file in spec.files:
        by_hand = all(urlsplit(url).scheme == "drop" or is_absent(url) for url in file.urls)
        if (
            by_hand
            and not (out / file.name).is_file()
            and not dropped(drop_folder(out), out.name, file)
        ):
            found[file.optional].append(file.name)
    return found


def renewed(archives: Path, specs: Mapping[str, ArchiveSpec]) -> dict[str, Path]:
    """Archives below `archives` that are worth fetching again though nothing that DVC watches has changed.

    Either the drop folder now holds an optional file that was missing, or a file of this machine
    has changed since.

    Returns:
        The archive's name to the file of this machine.

    Raises:
        UserError: a record of what was fetched is damaged.
    """
    found = {}
    for name, spec in specs.items():
        if (archives / name / "fetch.json").is_file():
            news = next(_news(spec, archives / name), None)
            if news is not None:
                found[name] = news
    return found


def _news(spec: ArchiveSpec, out: Path) -> Iterator[Path]:
    known, drop = _earlier(out), drop_folder(out)
    places = (
        folder / name for name in known.get("missing", {}) for folder in (drop / out.name, drop)
    )
    yield from (place for place in places if place.is_file())
    for record, source in _with_sources(known, spec, out):
        if source is None:
            continue
        facts, copy = source.stat(), out / record["name"]
        touched = (
            facts.st_size != record["bytes"]
            or not copy.is_file()
            or facts.st_ctime > copy.stat().st_mtime
        )
        # Reading gigabytes to compare them is for files that somebody has touched since they were
        # copied.
        if touched and not _is_same(source, record):
            yield source


def _fetch(
    spec: ArchiveSpec,
    out: Path,
    known: dict[str, Any],
    told: Mapping[str, str],
    others: Mapping[str, ArchiveSpec],
    progress: Progress,
    policy: RetryPolicy,
    sleep: Callable[[float], None],
    notice: Callable[[str], None],
) -> dict[str, Any]:
    staging = staging_of(out)
    # What is noted there for a resumption holds whole addresses.
    staging.mkdir(mode=0o700, exist_ok=True)
    there = [*staging.iterdir(), *(out / file.name for file in spec.files if file.bytes)]
    still = sum(file.bytes or 0 for file in spec.files) - sum(map(size_of, there))
    check_space(staging / "all", still)
    digests = {record["name"]: record["sha256"] for record in known.get("files", ())}
    records, missing = [], {}
    for number, file in enumerate(spec.files):
        progress(number, len(spec.files), file.name)
        remembered = told.get(file.name, digests.get(file.name))
        transfer = Transfer(
            file.bytes, bool(file.digests), policy, with_rate(progress, file.name), sleep
        )
        task = FileTask(out, file, transfer, others)
        if remembered and not task.done.exists() and (out / file.name).is_file():
            link_or_copy(out / file.name, task.done)  # an earlier run had it; it is verified again
        try:
            with locked(task.lock, remove=True) if task.lock else contextlib.nullcontext():
                records.append(get_file(spec, task, remembered))
        except UserError as error:
            if not file.optional:
                raise
            # What a person can do about it, the same on every machine.
            place = (
                f"put it into the drop folder as {out.name}/{file.name}, then run `dvc repro "
                f"--force fetch@{out.name}`"
            )
            missing[file.name] = f"{spec.instructions}; {place}" if spec.instructions else place
            notice(
                f"{error}\n  What needs it is left out. Once you have it: `dvc repro --force "
                f"fetch@{out.name}`"
            )
    return _publish(spec, out, records, missing)


def _publish(
    spec: ArchiveSpec, out: Path, records: list[dict[str, Any]], missing: dict[str, str]
) -> dict[str, Any]:
    """Put the verified files into a fresh folder and that into place; a crash leaves the staged files usable."""
    result: dict[str, Any] = {
        "version": VERSION,
        "archive": out.name,
        "licence": spec.licence,
        "files": records,
    }
    if missing:
        result["missing"] = missing
    if any(file.generated for file in spec.files):
        result["embedded"] = True
    with atomic_folder(out) as folder:
        for record in records:
            link_or_copy(staging_of(out) / record["name"], folder / record["name"])
        write_json(folder / "fetch.json", result)
    return result


def _earlier(out: Path) -> dict[str, Any]:
    record = out / "fetch.json"
    if not record.is_file():
        return {}
    found = read_json(record, cure=f"delete {out} and fetch again")
    fields = {"name", "bytes", "sha256", "checked_by"}
    try:
        whole = found["version"] == VERSION and all(
            set(entry) == fields for entry in found["files"]
        )
    except (KeyError, TypeError):
        whole = False
    return found if whole else {}


def _still_the_same(
    known: dict[str, Any], spec: ArchiveSpec, out: Path, notice: Callable[[str], None]
) -> dict[str, Any]:
    """What is known of files that are still the same.

    Not of those that the code of another day generated, which is not held against today's, nor of
    those that have changed where a person keeps them on this machine.
    """
    generated = {file.name for file in spec.files if file.generated}
    files = [record for record in known.get("files", ()) if record["name"] not in generated]
    kept = []
    for record, source in _with_sources({"files": files}, spec, out):
        if source is None or _is_same(source, record):
            kept.append(record)
        else:
            notice(f"{source} has changed since it was fetched: it is taken again")
    return {**known, "files": kept}


def _with_sources(
    known: dict[str, Any], spec: ArchiveSpec, out: Path
) -> Iterator[tuple[dict[str, Any], Path | None]]:
    """Yield each fetched file with its place on this machine; None if the specification has its digest."""
    files = {file.name: file for file in spec.files if not file.digests}
    for record in known.get("files", ()):
        file = files.get(record["name"])
        yield record, None if file is None else on_this_machine(file, out)


def _is_same(source: Path, record: dict[str, Any]) -> bool:
    same_size: bool = source.stat().st_size == record["bytes"]
    return same_size and digests_of(source, {"sha256"})["sha256"] == str(record["sha256"])


def _is_complete(
    spec: ArchiveSpec, out: Path, known: dict[str, Any], told: Mapping[str, str]
) -> bool:
    records = {record["name"]: record for record in known.get("files", ())}
    if set(records) != {file.name for file in spec.files} or known.get("licence") != spec.licence:
        return False
    for file in spec.files:
        path, record = out / file.name, records[file.name]
        if not path.is_file() or path.stat().st_size != record["bytes"]:
            return False
        if record["checked_by"] != (sorted(file.digests) or ["first-use"]):
            return False
        if told.get(file.name, record["sha256"]) != record["sha256"]:
            return False
        if file.sha256 not in (None, record["sha256"]) or file.bytes not in (None, record["bytes"]):
            return False
    return True
