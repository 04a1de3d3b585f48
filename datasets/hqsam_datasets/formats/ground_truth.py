"""Ground truth as `gt.json` holds it: in one form, whatever form the file had, so that the scorer takes it.

Ids and sizes are whole numbers, masks compressed run-length codes, `iscrowd` (and `ignore`, where
it is there) 0 or 1, areas numbers. Everything else of a record stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_base.ids import flag, plain_id

Json = dict[str, Any]
NO_ANNOTATIONS = "give the file of a split whose ground truth is public: those of test splits have no annotations"


def yes(record: Mapping[str, Any], name: str, path: Path) -> bool:
    """An optional 0/1 value of a record; the error names file and record."""
    try:
        return flag(record.get(name))
    except ValueError as error:
        key = f"{name} of record {str(record.get('id', ''))[:40]}"
        raise UserError(f"{name} {error}", file=path, key=key, cure="write 0 or 1") from None


def id_of(record: Mapping[str, Any], name: str, path: Path) -> int | str:
    """A required id of a record, a number or a name."""
    try:
        return plain_id(record[name])
    except KeyError:
        raise UserError(
            f"a record lacks {name!r}", file=path, key=str(record)[:120], cure="fix the record"
        ) from None
    except ValueError as error:
        key = f"{name} of record {str(record.get('id', ''))[:40]}"
        raise UserError(f"{name}: {error}", file=path, key=key, cure="fix the record") from None


def check_once(ids: Iterable[int | str], path: Path, what: str) -> None:
    """Stop on an id that two records have: the scorer would not know which is meant."""
    seen: set[int | str] = set()
    for one in ids:
        if one in seen:
            cure = "give each an id of its own"
            raise UserError(
                f"two entries of {what} have the same id", file=path, key=f"id {one}", cure=cure
            )
        seen.add(one)


def mask(counts: str, height: int, width: int) -> Json:
    """A compressed run-length mask as the COCO format has it."""
    return {"size": [height, width], "counts": counts}


def annotation(record: Mapping[str, Any], path: Path, **known: Any) -> Json:
    """An annotation in the one form.

    Args:
        record: as it was.
        path: its file, for messages.
        known: values that take the place of its own: ids, masks, areas.
    """
    out = {**record, **known, "iscrowd": int(yes(record, "iscrowd", path))}
    if "ignore" in record:
        out["ignore"] = int(yes(record, "ignore", path))
    return out
