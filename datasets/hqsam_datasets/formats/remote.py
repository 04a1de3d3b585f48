"""Finished shards on an object store: any folder URL that fsspec knows (`s3://bucket/shards`, `gs://`, `file://`).

A remote folder is complete when its `index.json` is there: it is written last, and lists every
shard with its size and SHA-256. A shard counts as there only if its bytes, read back, have that
digest, so a copy that was interrupted goes on where it was. Credentials and endpoints come from the
store's own environment variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hqsam_base.atomic import atomic_folder, write_bytes
from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_base.safe_text import without_secrets
from hqsam_datasets.formats import shard_index
from hqsam_datasets.formats.stores import AddressError, check_address, is_of_driver
from hqsam_datasets.formats.tar import read_index

_CHUNK = 8 << 20
_INDEX = shard_index.FILE


def push(folder: Path, url: str, *, progress: Progress) -> int:
    """Copy a folder of shards (`data/shards`, `data/prompts`) to `url`; files already there are skipped.

    Args:
        folder: local folder with an `index.json`.
        url: remote folder.
        progress: told about every shard that is there.

    Returns:
        Number of shards that were sent.

    Raises:
        UserError: for a missing index, an unknown kind of URL, or a store that refuses or returns
            other bytes.
    """
    shards = read_index(folder)["shards"]
    sent = 0
    with _store(url) as (system, base):
        system.makedirs(base, exist_ok=True)
        for number, shard in enumerate(shards, start=1):
            target = f"{base}/{shard['name']}"
            if not _is_there(system, target, shard):
                system.put_file(str(folder / shard["name"]), target)
                sent += 1
                if not _is_there(system, target, shard):
                    raise UserError(
                        "the shard does not read back as sent",
                        file=f"{url}/{shard['name']}",
                        cure="try again",
                    )
            progress(number, len(shards), f"shards at {url}")
        system.pipe_file(f"{base}/{_INDEX}", (folder / _INDEX).read_bytes())
    return sent


def pull(url: str, folder: Path, *, progress: Progress) -> dict[str, Any]:
    """Copy shards from `url` to a local folder, which appears whole and verified or not at all.

    The index is checked as a whole before anything is written; see `shard_index.parse` for what it
    may say.

    Returns:
        The content of `index.json`.

    Raises:
        UserError: if the remote folder is incomplete, its index is refused, a shard has other bytes
            than its index says, the store refuses, or `folder` holds something that is not a set of
            shards.
    """
    if (
        folder.exists()
        and not (folder / _INDEX).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        cure = (
            "name a folder that is new, empty, or an earlier copy of shards: it is replaced as a "
            "whole"
        )
        raise UserError("the folder holds files other than shards", file=folder, cure=cure)
    with _store(url) as (system, base):
        data = _index_bytes(system, f"{base}/{_INDEX}", url)
        index = shard_index.parse(
            data,
            file=f"{url}/{_INDEX}",
            cure="push the shards again, from a checkout that you trust",
        )
        with atomic_folder(folder) as tmp:
            for number, shard in enumerate(index["shards"], start=1):
                if not _is_copied(system, f"{base}/{shard['name']}", tmp / shard["name"], shard):
                    raise UserError(
                        "the shard is not the one of its index",
                        file=f"{url}/{shard['name']}",
                        cure="push it again",
                    )
                progress(number, len(index["shards"]), f"shards of {url}")
            write_bytes(tmp / _INDEX, data)
    return index


def _index_bytes(system: Any, path: str, url: str) -> bytes:
    try:
        with system.open(path, "rb") as file:
            data = bytes(file.read(shard_index.MAX_BYTES + 1))
    except FileNotFoundError as error:
        _refuse_silence(error, url)
        raise UserError(
            "there is no complete set of shards", file=url, key=_INDEX, cure="push it again"
        ) from None
    if len(data) > shard_index.MAX_BYTES:
        problem = f"the index is larger than {shard_index.MAX_BYTES >> 20} MiB"
        raise UserError(problem, file=url, key=_INDEX, cure="use larger shards, or fewer samples")
    return data


def _refuse_silence(error: FileNotFoundError, url: str) -> None:
    """Say what fsspec's HTTP driver calls a missing file: no connection, or another status than 404.

    Raises:
        UserError: it is not the file that is missing.
    """
    cause = error.__cause__
    status = getattr(cause, "status", None)
    said = without_secrets(cause, url)
    if isinstance(cause, OSError):
        problem = f"the server does not answer: {said}"
    elif isinstance(status, int) and status != 404:
        problem = f"the server refuses: {said}"
    else:
        return
    cure = "check the address, the network and the server, then try again"
    raise UserError(problem, file=url, cure=cure) from None


def _is_copied(system: Any, path: str, target: Path, shard: Mapping[str, Any]) -> bool:
    """Copy one shard, at most its indexed size; return whether size and digest match the index."""
    digest, left = hashlib.sha256(), shard["bytes"]
    with target.open("xb") as file:
        for chunk in _chunks(system, path):
            left -= len(chunk)
            if left < 0:
                return False
            file.write(chunk)
            digest.update(chunk)
    return left == 0 and digest.hexdigest() == str(shard["sha256"])


def _is_there(system: Any, path: str, shard: Mapping[str, Any]) -> bool:
    system.invalidate_cache()
    try:
        if int(system.info(path)["size"]) != shard["bytes"]:
            return False
    except FileNotFoundError:
        return False
    digest = hashlib.sha256()
    for chunk in _chunks(system, path):
        digest.update(chunk)
    return digest.hexdigest() == str(shard["sha256"])


def _chunks(system: Any, path: str) -> Iterator[bytes]:
    with system.open(path, "rb", block_size=_CHUNK) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@contextmanager
def _store(url: str) -> Iterator[tuple[Any, str]]:
    """The file system behind a URL and the path in it; what it raises becomes one message."""
    import fsspec  # type: ignore[import-untyped]

    try:
        check_address(url)
    except AddressError as error:
        raise UserError(str(error), file=url, key="URL", cure=error.cure) from None
    try:
        system, base = fsspec.core.url_to_fs(url.rstrip("/"))
        yield system, base
    except ImportError as error:
        cure = "install the driver, for S3: pip install 'hqsam-pipeline[s3]'"
        raise UserError(
            f"no driver for this kind of address: {without_secrets(error, url)}",
            file=url,
            cure=cure,
        ) from error
    except Exception as error:
        if isinstance(error, UserError) or not (
            isinstance(error, (OSError, ValueError)) or is_of_driver(error)
        ):
            raise
        cure = "check the address, the credentials and the endpoint in the environment"
        raise UserError(
            f"the object store refused the request: {type(error).__name__}: "
            f"{without_secrets(error, url)}",
            file=url,
            cure=cure,
        ) from error
