"""One file of an archive: from its mirrors, verified, or why it is unavailable."""

from __future__ import annotations

import glob
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hqsam_base.errors import UserError
from hqsam_base.safe_text import without_secrets
from hqsam_datasets.fetch import cloud, first_use, members
from hqsam_datasets.fetch.content import ChangedContentError, WrongContentError, check_structure
from hqsam_datasets.fetch.http import download
from hqsam_datasets.fetch.places import drop_folder, dropped, local_path
from hqsam_datasets.fetch.spec import ArchiveFile, ArchiveSpec
from hqsam_datasets.fetch.transfer import CHUNK, NO_SPACE, SPACE_CURE, DownloadError, Transfer


def staging_of(out: Path) -> Path:
    """Folder beside that of an archive, in which its files grow."""
    return out.parent / f".{out.name}.download"


class FileTask:
    """One file on its way: where it grows, where it waits once verified, and how it is transferred.

    Attributes:
        also: archives that have the file from an address that both name: archive, file, address.
        lock: at which the second of two archives that name the same file waits for the first, whose
            bytes it then takes; None where no other can have it.
    """

    def __init__(
        self,
        out: Path,
        file: ArchiveFile,
        transfer: Transfer,
        others: Mapping[str, ArchiveSpec],
    ) -> None:
        staging = staging_of(out)
        self.out = out
        self.archive = out.name
        self.file = file
        self.drop = drop_folder(out)
        self.part = staging / f"{file.name}.part"
        self.done = staging / file.name
        self.transfer = transfer
        here = ("embedded", "drop", "file")
        remote = {url for url in file.urls if urlsplit(url).scheme not in here}
        self.also = [
            (name, one, min(common))
            for name, spec in others.items()
            for one in spec.files
            if one.only_named_in is file.only_named_in is None
            and (common := remote.intersection(one.urls))
        ]
        self.lock: Path | None = None
        if file.digests:
            self.lock = out.parent / f".{file.name}.lock"
        elif self.also:
            address = min(url for _, _, url in self.also)
            self.lock = out.parent / f".{hashlib.sha256(address.encode()).hexdigest()[:16]}.lock"


def get_file(spec: ArchiveSpec, task: FileTask, remembered: str | None) -> dict[str, Any]:
    """Get a file from the first place that has it, verify it, and put it at `task.done`.

    Args:
        spec: the archive.
        task: the file.
        remembered: the SHA-256 seen at first use, for a file whose digest nobody publishes.

    Returns:
        Its entry of fetch.json.

    Raises:
        UserError: if no place gives a file that passes; it lists what each one said.
    """
    failures, changed = [], False
    if task.done.exists() and task.file.generated:
        task.done.unlink()  # by the code of then
    if task.done.exists():
        # Verified before an interruption, but the specification may have changed since.
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


def _get(url: str, task: FileTask) -> None:
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


def _beside(task: FileTask) -> list[str]:
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
        for folder in (root / other, staging_of(root / other))
    )
    return [
        place.resolve().as_uri()
        for place in sorted({*by_url, *(by_name if task.file.digests else ())})
        if place.parent != task.out and place != task.done and place.is_file()
    ]


def _verified(task: FileTask, path: Path, remembered: str | None) -> dict[str, Any]:
    file, size = task.file, path.stat().st_size
    if size == 0:
        raise WrongContentError("the file is empty")
    if file.bytes and size != file.bytes:
        raise WrongContentError(f"{size} bytes, {file.bytes} were expected")
    found = digests_of(path, {"sha256", *file.digests})
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


def digests_of(path: Path, algorithms: set[str]) -> dict[str, str]:
    """Hexadecimal digests of a file by the names of the algorithms, in one reading."""
    running = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            for digest in running.values():
                digest.update(chunk)
    return {name: digest.hexdigest() for name, digest in running.items()}


def _unobtainable(
    spec: ArchiveSpec, task: FileTask, failures: list[str], changed: bool
) -> UserError:
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
