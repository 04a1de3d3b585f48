"""The index of a folder of shards, `index.json`, validated as a whole before it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from hqsam_base.errors import UserError
from hqsam_base.foreign_names import PlainName, TwinError, refuse_twins

FILE = "index.json"
MAX_BYTES = 256 << 20
"""An index may be so large; that of the paper's training set has 6 MB."""

_Count = Annotated[int, Field(ge=0, strict=True)]


class _Shard(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, Field(strict=True), AfterValidator(PlainName)]
    bytes: _Count
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    keys: list[str]
    offsets: list[_Count]

    @model_validator(mode="after")
    def _an_offset_per_key(self) -> _Shard:
        if len(self.keys) != len(self.offsets):
            raise ValueError(f"{len(self.keys)} keys and {len(self.offsets)} offsets")
        return self


class _Index(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)

    shards: list[_Shard]

    @model_validator(mode="after")
    def _unique_names(self) -> _Index:
        try:
            refuse_twins([FILE, *(shard.name for shard in self.shards)])
        except TwinError as error:
            raise ValueError(f"{error.name!r} is refused: {error}") from None
        return self


def parse(data: bytes, *, file: Path | str, cure: str) -> dict[str, Any]:
    """Check the bytes of an `index.json` whoever wrote it.

    Args:
        data: the file's content.
        file: where it comes from, for messages.
        cure: for messages.

    Returns:
        The content. Each shard's name is a plain file name of its own; sizes, digests, keys and
        offsets have their types.

    Raises:
        UserError: it is not JSON, no index, or one of these is not so; the key says where.
    """
    try:
        content = json.loads(data)
        _Index.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "shards"
        found = (
            f", found {first['input']!r:.80}"
            if isinstance(first["input"], (str, int, float, type(None)))
            else ""
        )
        raise UserError(
            f"not a shard index: {first['msg']}{found}", file=file, key=key, cure=cure
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"not a shard index: not JSON: {error}", file=file, cure=cure) from None
    return dict(content)
