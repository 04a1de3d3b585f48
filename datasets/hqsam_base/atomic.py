"""Files and folders that appear whole or not at all.

Everything is written to a temporary sibling (``.<name>.tmp-<random>``), flushed to disk and
renamed. A writer holds an advisory lock on its temporary, which the kernel drops when the process
dies, however it dies: that is how `clear_stale` tells the leftovers of a killed run from the work
of a live one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from hqsam_base.errors import UserError
from hqsam_base.locks import is_held, try_lock

_TMP = ".tmp-"
_OLD = ".old-"


def json_bytes(value: Any, *, ascii_only: bool = False) -> bytes:
    """Canonical JSON of this project: sorted keys, indent 1, UTF-8, newline at the end; NaN is refused.

    With `ascii_only`, other characters are escaped, as they always have been in the metrics files.
    """
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=ascii_only, allow_nan=False)
    return (text + "\n").encode()


def jsonl_bytes(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One compact JSON object with sorted keys per line, in the order given."""
    lines = (
        json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n" for row in rows
    )
    return "".join(lines).encode()


def temporary_sibling(path: Path, kind: str = _TMP) -> Path:
    """A fresh hidden name beside `path`; on the same file system, so that a rename is atomic."""
    return path.parent / f".{path.name}{kind}{secrets.token_hex(4)}"


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary sibling for binary writing; on a clean exit it replaces `path`, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_stale(path)
    tmp = temporary_sibling(path)
    try:
        with disk_full_is_user_error(path), tmp.open("xb") as file:
            try_lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
            tmp.replace(path)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give an empty temporary folder; on a clean exit it replaces `path`, else it is removed.

    The caller writes its manifest last. All files are flushed to disk before the rename, unless
    `durable` is false: then the caller sees to that itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_stale(path)
    tmp = temporary_sibling(path)
    tmp.mkdir()
    with disk_full_is_user_error(path), _locked_folder(tmp):
        try:
            yield tmp
            if durable:
                for root, _, files in os.walk(tmp):
                    for name in files:
                        fsync_file(Path(root) / name)
                    fsync_folder(Path(root))
            _replace_folder(tmp, path)
        except BaseException:
            shutil.rmtree(tmp, ignore_errors=True)
            raise


@contextlib.contextmanager
def disk_full_is_user_error(
    path: Path, cure: str = "free some space, then run it again"
) -> Iterator[None]:
    """Turn "no space left" inside the block into a message for a person that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError("the disk is full", file=path, cure=cure) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, ascii_only: bool = False) -> None:
    """Write `value` as canonical JSON (see `json_bytes`) atomically."""
    write_bytes(path, json_bytes(value, ascii_only=ascii_only))


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines (see `jsonl_bytes`) atomically."""
    write_bytes(path, jsonl_bytes(rows))


def read_json(path: Path, *, cure: str | None = None) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: if the file is missing or is not JSON; `cure` goes into the message.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            "the file does not exist", file=path, cure=cure or "run the stage that writes it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"the file is not valid JSON: {error}", file=path, cure=cure or "write it again"
        ) from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Parse a file of one JSON object per line; raises UserError naming the first bad line."""
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise UserError(
            f"the file cannot be read: {error}", file=path, cure="run the stage that writes it"
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(dict(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"line {number} is not a JSON object: {error}", file=path) from error
    return rows


def clear_stale(path: Path) -> list[Path]:
    """Remove temporaries of `path` that no live process holds; returns what was removed."""
    removed: list[Path] = []
    prefixes = (f".{path.name}{_TMP}", f".{path.name}{_OLD}")
    if not path.parent.is_dir():
        return removed
    for leftover in sorted(path.parent.iterdir()):
        if leftover.name.startswith(prefixes) and not is_held(leftover):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
            removed.append(leftover)
    return removed


def link_or_copy(source: Path, target: Path) -> None:
    """Hard link where the file system can, else copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def fsync_file(path: Path) -> None:
    """Flush a file's content to disk; for large ones best while other processes still compute."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut; quietly skipped where unsupported."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace_folder(tmp: Path, path: Path) -> None:
    old = temporary_sibling(path, _OLD)
    had_old = path.exists() or path.is_symlink()
    if had_old:
        path.rename(old)
    try:
        tmp.rename(path)
    except OSError:
        if had_old:
            old.rename(path)
        raise
    fsync_folder(path.parent)
    if had_old:
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try_lock(descriptor)
        yield
    finally:
        os.close(descriptor)
