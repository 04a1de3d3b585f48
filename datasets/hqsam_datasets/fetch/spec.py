"""What an archive consists of: the sections `archives.<name>` of params.yaml."""

from __future__ import annotations

from typing import Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hqsam_base.foreign_names import NameRefusedError, PlainName
from hqsam_datasets.formats.stores import check_address

Scheme = Literal["embedded", "drop", "http", "https", "file", "gdrive", "s3", "gs", "az", "memory"]
_SCHEMES: tuple[str, ...] = get_args(Scheme)


class ArchiveFile(BaseModel):
    """One file of an archive: its URLs and what identifies it.

    Attributes:
        name: file name inside `data/archives/<archive>/`.
        urls: mirrors in order of preference.
        sha256, md5, sha1: known digests (hex); each one given is checked.
        bytes: known length.
        optional: if it is unavailable, that is said and recorded, and stops only what needs it
            (`fetch.json`, "missing").
        only_named_in: another file of the archive, listed before, with LVIS annotations (or a zip
            of them): of the zip at
            `urls` only the images that it names are fetched, as the tar `name`; their CRCs are
            checked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    urls: tuple[str, ...] = ()
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    md5: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    sha1: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    bytes: int | None = Field(default=None, gt=0)
    optional: bool = False
    only_named_in: str | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        try:
            PlainName(value)
        except NameRefusedError as error:
            raise ValueError(f"{value!r} is not a plain file name: {error}") from None
        return value

    @field_validator("urls")
    @classmethod
    def _known_schemes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            check_address(url)
            if urlsplit(url).scheme not in _SCHEMES:
                raise ValueError(f"{url!r}: the scheme must be one of {', '.join(_SCHEMES)}")
        return value

    @property
    def digests(self) -> dict[str, str]:
        """The known digests by algorithm."""
        known = {"sha256": self.sha256, "md5": self.md5, "sha1": self.sha1}
        return {name: digest for name, digest in known.items() if digest}

    @property
    def generated(self) -> bool:
        """Whether this checkout's own code writes the file (`embedded://`)."""
        return any(url.startswith("embedded://") for url in self.urls)


class ArchiveSpec(BaseModel):
    """A section `archives.<name>` of params.yaml.

    Attributes:
        files: what to fetch; names are unique.
        licence: shown and recorded in fetch.json.
        instructions: what a person has to do where no program may (login, terms to accept).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: tuple[ArchiveFile, ...] = Field(min_length=1)
    licence: str | None = None
    instructions: str | None = None

    @model_validator(mode="after")
    def _unique_names(self) -> ArchiveSpec:
        names = [file.name.casefold() for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("two files have the same name")
        for number, file in enumerate(self.files):
            if file.only_named_in is not None and file.only_named_in not in [
                f.name for f in self.files[:number]
            ]:
                raise ValueError(f"{file.name}: only_named_in must name a file listed before")
            if file.only_named_in is not None and (
                file.digests or file.bytes or not file.name.endswith(".tar")
            ):
                raise ValueError(
                    f"{file.name}: a part of a zip is a .tar without known digests and length"
                )
        return self
