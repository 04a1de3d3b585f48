"""The digests of downloaded files whose publisher gives none: what the first download had, for everybody after.

`archives.sha256` in the repository's root has a line `<SHA-256>  <archive>/<file>` for each, as `sha256sum` writes them. The fetch
stage adds what it downloads first and holds later downloads against it; committed, it does so in
every clone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from hqsam_base.atomic import read_json, write_text
from hqsam_base.errors import UserError
from hqsam_base.locks import locked

FILE = "archives.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9_.-]*/[^/\\\0-\x1f]+)")
_HEAD = (
    "# Digests of downloaded files whose publisher gives none, as of their first download. Commit "
    "this file.\n"
)


def read(path: Path) -> dict[str, str]:
    """`<archive>/<file>` to SHA-256; empty if there is no file yet.

    Raises:
        UserError: A line is not a digest and name, or a name has two digests.
    """
    found: dict[str, str] = {}
    lines = (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    )
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or found.setdefault(match[2], match[1]) != match[1]:
            why = "is not a digest and name" if match is None else "gives a file a second digest"
            raise UserError(
                f"line {number} {why}",
                file=path,
                cure=f"`git checkout {path.name}`, or fix that line",
            )
    return found


def of(path: Path, archive: str, names: Iterable[str]) -> dict[str, str]:
    """The digests of those files of one archive that have one, by name; see `read`."""
    known = read(path)
    return {name: known[key] for name in names if (key := f"{archive}/{name}") in known}


def others(told: Mapping[str, str], archives: Path) -> list[str]:
    """Files that were fetched into `archives` and have another digest than `told`, sorted."""
    found = []
    for folder in sorted({name.partition("/")[0] for name in told}):
        record = archives / folder / "fetch.json"
        files = read_json(record).get("files", ()) if record.is_file() else ()
        here = {f"{folder}/{file['name']}": file["sha256"] for file in files}
        found += [name for name in sorted(here.keys() & told.keys()) if here[name] != told[name]]
    return found


def add(path: Path, digests: Mapping[str, str]) -> list[str]:
    """Write down the digests of files that have none there; several stages may do so at once.

    Returns:
        The files that are new there, sorted.
    """
    with locked(path.with_name(f".{path.name}.lock")):
        known = read(path)
        new = sorted(digests.keys() - known.keys())
        if new:
            rows = sorted((known | {name: digests[name] for name in new}).items())
            write_text(path, _HEAD + "".join(f"{digest}  {name}\n" for name, digest in rows))
    return new
