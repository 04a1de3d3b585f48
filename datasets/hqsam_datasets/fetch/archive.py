"""Get the files of an archive from the first mirror that has them, verify them, and only then show them.

Downloads grow in a hidden sibling (`.<archive>.download/`) that outlives a kill, so that the next
run resumes; the archive's folder appears when every file is there and verified, with `fetch.json`
written last.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hqsam_base.atomic import atomic_folder, clear_stale, link_or_copy, read_json, write_json
from hqsam_base.errors import UserError
from hqsam_base.locks import locked
from hqsam_base.progress import Progress, with_rate
from hqsam_base.safe_text import without_secrets
from hqsam_datasets.fetch import cloud, first_use, members
from hqsam_datasets.fetch.content import ChangedContentError, WrongContentError, check_structure
from hqsam_datasets.fetch.http import download
from hqsam_datasets.fetch.places import (
    drop_folder,
    dropped,
    is_absent,
    local_path,
    on_this_machine,
    untold,
)
from hqsam_datasets.fetch.spec import ArchiveFile, ArchiveSpec
from hqsam_datasets.fetch.transfer import (
    CHUNK,
    NO_SPACE,
    SPACE_CURE,
    DownloadError,
    RetryPolicy,
    Transfer,
    check_space,
    size_of,
)

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
        known = _but_changed(_but_generated(_earlier(out), spec), spec, out, notice)
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
            _write_down(known, spec, out, digests, notice)
        # Also what a run that was killed between publishing and tidying up has left.
        shutil.rmtree(_staging(out), ignore_errors=True)
        clear_stale(out)
    progress(len(spec.files), len(spec.files), out.name)
    return known


def _write_down(
    known: dict[str, Any],
    spec: ArchiveSpec,
    out: Path,
    digests: Path,
    notice: Callable[[str], None],
) -> None:
    """Keep the digests of a first download for all clones."""
    names = {file.name for file in untold(spec, out)}
    found = {f"{out.name}/{r['name']}": r["sha256"] for r in known["files"] if r["name"] in names}
    new = first_use.add(digests, found) if found else []
    if new:
        notice(
            f"nobody publishes a digest of {', '.join(new)}: that of this download is in "
            f"{digests.name} now; commit it"
        )


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
        # Reading gigabytes to compare them is for files that somebody has touched since they were
        # copied.
        if (
            source is not None
            and _is_touched(source, out / record["name"], record)
            and not _is_same(source, record)
        ):
            yield source


def _is_touched(source: Path, copy: Path, record: dict[str, Any]) -> bool:
    facts = source.stat()
    return (
        facts.st_size != record["bytes"]
        or not copy.is_file()
        or facts.st_ctime > copy.stat().st_mtime
    )


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
    staging = _staging(out)
    staging.mkdir(
        mode=0o700, exist_ok=True
    )  # what is noted there for a resumption holds whole addresses
    there = sum(
        size_of(path)
        for path in (*staging.iterdir(), *(out / file.name for file in spec.files if file.bytes))
    )
    check_space(staging / "all", sum(file.bytes or 0 for file in spec.files) - there)
    records, missing = [], {}
    for number, file in enumerate(spec.files):
        progress(number, len(spec.files), file.name)
        earlier = next(
            (r["sha256"] for r in known.get("files", ()) if r["name"] == file.name), None
        )
        remembered = told.get(file.name, earlier)
        transfer = Transfer(
            file.bytes, bool(file.digests), policy, with_rate(progress, file.name), sleep
        )
        task = _Task(out, file, transfer, others)
        if remembered and not task.done.exists() and (out / file.name).is_file():
            link_or_copy(out / file.name, task.done)  # an earlier run had it; it is verified again
        try:
            with _one_at_a_time(task):
                records.append(_one_file(spec, task, remembered))
        except UserError as error:
            if not file.optional:
                raise
            missing[file.name] = _to_do(spec, out.name, file.name)
            notice(
                f"{error}\n  What needs it is left out. Once you have it: `dvc repro --force "
                f"fetch@{out.name}`"
            )
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
    _publish(staging, out, result)
    return result


class _Task:
    """One file on its way: where it grows, where it waits once verified, and how it is transferred.

    Attributes:
        also: archives that have the file from an address that both name: archive, file, address.
    """

    def __init__(
        self,
        out: Path,
        file: ArchiveFile,
        transfer: Transfer,
        others: Mapping[str, ArchiveSpec],
    ) -> None:
        staging = _staging(out)
        self.out = out
        self.archive = out.name
        self.file = file
        self.drop = drop_folder(out)
        self.part = staging / f"{file.name}.part"
        self.done = staging / file.name
        self.transfer = transfer
        self.also = [
            (name, one, min(common))
            for name, spec in others.items()
            for one in spec.files
            if one.only_named_in is file.only_named_in is None
            and (common := {u for u in file.urls if _is_remote(u)}.intersection(one.urls))
        ]


def _is_remote(url: str) -> bool:
    return urlsplit(url).scheme not in ("embedded", "drop", "file")


@contextlib.contextmanager
def _one_at_a_time(task: _Task) -> Iterator[None]:
    """Let the second of two archives that name the same file wait for the first, whose bytes it then takes (`_beside`)."""
    names = [task.file.name] if task.file.digests else [url for _, _, url in task.also]
    if not names:
        yield
        return
    name = names[0] if task.file.digests else hashlib.sha256(min(names).encode()).hexdigest()[:16]
    with locked(task.out.parent / f".{name}.lock", remove=True):
        yield


def _one_file(spec: ArchiveSpec, task: _Task, remembered: str | None) -> dict[str, Any]:
    failures, changed = [], False
    if task.done.exists() and task.file.generated:
        task.done.unlink()  # by the code of then
    if (
        task.done.exists()
    ):  # verified before an interruption, but the specification may have changed since
        try:
            return _verified(task, task.done, remembered)
        except DownloadError:
            task.done.unlink()
    for url in (*dropped(task.drop, task.archive, task.file), *_beside(task), *task.file.urls):
        for attempt in (1, 2):
            try:
                _get(url, task)
                record = _verified(task, task.part, remembered)
            except DownloadError as error:
                failures.append(f"{url}: {without_secrets(error, url)}")
                changed = changed or isinstance(error, ChangedContentError)
                if not isinstance(error, WrongContentError):
                    break
                # A resumed part may mix two versions: once more from the first byte.
                for path in task.part.parent.glob(task.part.name + "*"):
                    path.unlink(missing_ok=True)
                if attempt == 2 or urlsplit(url).scheme in ("file", "embedded"):
                    break
            else:
                task.part.replace(task.done)
                return record
    raise _unobtainable(spec, task, failures, changed)


def _get(url: str, task: _Task) -> None:
    parts = urlsplit(url)
    by_ranges = parts.scheme not in ("embedded", "drop", "gdrive") and parts.path.endswith(".zip")
    if task.file.only_named_in is not None and by_ranges:
        names = members.image_names(task.part.with_name(task.file.only_named_in))
        members.download_members(url, names, task.part, task.transfer)
    elif parts.scheme == "embedded":
        from hqsam_datasets.embedded import archives

        task.part.unlink(missing_ok=True)
        archives.write(parts.netloc, unquote(parts.path).lstrip("/"), task.part)
    elif parts.scheme == "drop":
        raise DownloadError("a person has to put it into the drop folder")
    elif parts.scheme == "file":
        source = local_path(url)
        if source.is_dir():
            raise DownloadError(f"{source} is a folder; pack it as {task.file.name}")
        if not source.is_file():
            raise DownloadError(f"there is no file {source}")
        shutil.copyfile(source, task.part)
    elif parts.scheme in ("http", "https"):
        download(url, task.part, task.transfer)
    elif parts.scheme == "gdrive":
        cloud.download_from_drive(parts.netloc, task.part, task.transfer)
    else:
        cloud.download_with_fsspec(url, task.part, task.transfer)


def _beside(task: _Task) -> list[str]:
    """The same file in archives that are there already, such as COCO's images, which LVIS names, too.

    By its name, where its digest is known beforehand: the bytes are then those that a mirror would
    give. Else where the other archive has it from an address of this one.
    """
    root, name = task.out.parent, glob.escape(task.file.name)
    # Verified files of an archive that is not complete yet wait in its staging folder.
    by_name = (*root.glob(f"[!.]*/{name}"), *root.glob(f".*.download/{name}"))
    by_url = (
        folder / one.name
        for other, one, _ in task.also
        for folder in (root / other, _staging(root / other))
    )
    return [
        place.resolve().as_uri()
        for place in sorted({*by_url, *(by_name if task.file.digests else ())})
        if place.parent != task.out and place != task.done and place.is_file()
    ]


def _verified(task: _Task, path: Path, remembered: str | None) -> dict[str, Any]:
    file, size = task.file, path.stat().st_size
    if size == 0:
        raise WrongContentError("the file is empty")
    if file.bytes and size != file.bytes:
        raise WrongContentError(f"{size} bytes, {file.bytes} were expected")
    found = _digests(path, {"sha256", *file.digests})
    for algorithm, expected in file.digests.items():
        if found[algorithm] != expected:
            raise WrongContentError(f"{algorithm} is {found[algorithm]}, {expected} was expected")
    if remembered and not file.digests and found["sha256"] != remembered:
        raise ChangedContentError(
            f"sha256 is {found['sha256']}, but {remembered} was recorded at first use"
        )
    check_structure(path, file.name)
    checked_by = sorted(file.digests) or ["first-use"]
    return {"name": file.name, "bytes": size, "sha256": found["sha256"], "checked_by": checked_by}


def _digests(path: Path, algorithms: set[str]) -> dict[str, str]:
    running = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            for digest in running.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in running.items()}


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


def _but_generated(known: dict[str, Any], spec: ArchiveSpec) -> dict[str, Any]:
    """What is known of downloaded files: what the code of another day generated is not held against today's."""
    generated = {file.name for file in spec.files if file.generated}
    return {
        **known,
        "files": [record for record in known.get("files", ()) if record["name"] not in generated],
    }


def _but_changed(
    known: dict[str, Any], spec: ArchiveSpec, out: Path, notice: Callable[[str], None]
) -> dict[str, Any]:
    """What is known of files that are still the same where a person keeps them on this machine."""
    kept = []
    for record, source in _with_sources(known, spec, out):
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
    return same_size and _digests(source, {"sha256"})["sha256"] == str(record["sha256"])


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


def _publish(staging: Path, out: Path, result: dict[str, Any]) -> None:
    """Put the verified files into a fresh folder and that into place; a crash leaves the staged files usable."""
    with atomic_folder(out) as folder:
        for record in result["files"]:
            link_or_copy(staging / record["name"], folder / record["name"])
        write_json(folder / "fetch.json", result)


def _staging(out: Path) -> Path:
    return out.parent / f".{out.name}.download"


def _to_do(spec: ArchiveSpec, archive: str, name: str) -> str:
    """What a person can do about a missing optional file, the same on every machine."""
    place = (
        f"put it into the drop folder as {archive}/{name}, then run `dvc repro --force "
        f"fetch@{archive}`"
    )
    return f"{spec.instructions}; {place}" if spec.instructions else place


def _unobtainable(spec: ArchiveSpec, task: _Task, failures: list[str], changed: bool) -> UserError:
    said = [f"- {line}" for line in failures]
    cure = (
        f"put the file at {task.drop / task.archive / task.file.name} and run the stage again "
        f"(another folder: --from-dir); "
    )
    cure += "the drop folder for the whole archive:"
    steps = [f"{task.drop / task.archive}/", *(f"    {file.name}" for file in spec.files)]
    if spec.instructions:
        cure = f"{spec.instructions}; then {cure}"
    if not task.file.optional:
        steps.append(
            "Where only an evaluation set needs the file, `optional: true` in its entry "
            "lets the run go on without that set"
        )
    if any(NO_SPACE in line for line in failures):
        cure = f"{SPACE_CURE}; or {cure}"
    if changed:
        line = (
            f"the line `{task.archive}/{task.file.name}` of {first_use.FILE}, and "
            f"{task.part.parent.with_name(task.archive)}"
        )
        cure = (
            f"if its publisher has replaced the file and you trust the new one, delete {line}, "
            f"then run the stage again; else {cure}"
        )
    why = "" if said else " no mirror is listed"
    return UserError(
        f"{task.file.name} of archive {task.archive} is unavailable:{why}",
        details=said,
        file=task.done.name,
        key=f"archives.{task.archive}",
        cure=cure,
        steps=steps,
    )
