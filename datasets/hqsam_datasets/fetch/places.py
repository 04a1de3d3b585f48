"""Where a file of an archive comes from: this machine or a server."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hqsam_datasets.fetch.spec import ArchiveFile, ArchiveSpec
from hqsam_datasets.fetch.transfer import DownloadError

DROP_FOLDER_VARIABLE = "HQSAM_DROP_DIR"
"""Environment variable: the drop folder, with files that a person has downloaded; by default `data/drop`.

`<drop folder>/<archive>/<file>` and `<drop folder>/<file>` are looked at before any mirror, and
verified alike.
"""


def drop_folder(out: Path) -> Path:
    """The drop folder of the archive that `out` is for."""
    return Path(os.environ.get(DROP_FOLDER_VARIABLE) or out.parent.parent / "drop")


def dropped(drop: Path, archive: str, file: ArchiveFile) -> list[str]:
    """`file://` addresses of a file in the drop folder, by any of the names that it may have there."""
    names = [file.name]
    names += [url.removeprefix("drop://") for url in file.urls if url.startswith("drop://")]
    if file.only_named_in is not None:
        names += [url.rpartition("/")[2] for url in file.urls]
    places = [folder / name for name in dict.fromkeys(names) for folder in (drop / archive, drop)]
    return [place.resolve().as_uri() for place in places if place.is_file()]


def local_path(url: str) -> Path:
    """The path of a `file://` URL, percent-encoded or as it is."""
    path = url.partition(":")[2].removeprefix("//").removeprefix("localhost")
    if not path.startswith("/"):
        raise DownloadError("a relative path; write file:///home/me/data.zip, with three slashes")
    return Path(path) if Path(path).exists() else Path(unquote(path))


def is_absent(url: str) -> bool:
    """Whether an address names a file of this machine that is not there."""
    try:
        return urlsplit(url).scheme == "file" and not local_path(url).is_file()
    except DownloadError:
        return True


def on_this_machine(file: ArchiveFile, out: Path) -> Path | None:
    """Where a fetch would copy the file from, if not from elsewhere."""
    urls = [*dropped(drop_folder(out), out.name, file), *file.urls][:1]
    try:
        found = [
            local_path(url)
            for url in urls
            if urlsplit(url).scheme == "file" and file.only_named_in is None
        ]
    except DownloadError:
        return None
    return found[0] if found and found[0].is_file() else None


def untold(spec: ArchiveSpec, out: Path) -> list[ArchiveFile]:
    """List files from elsewhere with neither a digest nor a copy on this machine."""
    return [
        file
        for file in spec.files
        if not file.digests
        and any(urlsplit(url).scheme not in ("embedded", "drop", "file") for url in file.urls)
        and on_this_machine(file, out) is None
    ]
