"""Where a command is going to write: looked at before minutes of work, so that nothing is lost and nothing overwritten."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from hqsam_base.errors import UserError


def check_outputs(
    outputs: Mapping[str, Path | None], *, inputs: Iterable[Path | None] = (), png: bool = False
) -> None:
    """Refuse output files that cannot be written or that something else would be lost by.

    Args:
        outputs: By option, the file; None: not asked for.
        inputs: What the command reads; None: nothing.
        png: Whether pictures are written: their names must end in `.png`, JSON's need not.

    Raises:
        UserError: A folder, a file of the input, one file twice, another suffix, or a place that
            cannot be written to.
    """
    taken = {path.resolve(): "the input" for path in inputs if path is not None}
    for option, path in outputs.items():
        if path is None:
            continue
        if path.is_dir():
            raise UserError(
                "this is a folder", file=path, key=option, cure="give the path of a file"
            )
        if path.resolve() in taken:
            what = taken[path.resolve()]
            raise UserError(
                f"this file is {what} already", file=path, key=option, cure="give another path"
            )
        if png and option != "--json" and path.suffix.lower() != ".png":
            raise UserError(
                "a PNG is written", file=path, key=option, cure="let the name end in .png"
            )
        taken[path.resolve()] = option
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise UserError(
                f"the file cannot be written ({error.strerror})",
                file=path,
                key=option,
                cure="give another path",
            ) from error
