"""dvc.lock with one entry written anew and the rest left as it is, byte for byte what DVC writes.

DVC 3.67.1 parses and writes the whole file after each stage with a parser that keeps comments, 0.3
s for the sample. An entry's text depends on nothing around it, so DVC's own writer makes that entry
alone, and it takes the old one's place. The rest must be text that DVC would write as it is: that
is asked once of each text which is not ours, and a file for which it is not so, or that holds
comments, anchors or anything beside `stages`, is left to DVC. `install` changes this process only;
plain `dvc repro` is not touched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hqsam_base.atomic import atomic_file

HEAD = "schema: '2.0'\nstages:\n"
_FOREIGN = re.compile(r"^\S|#|(?<![^\s\[{,])[&*]\w", re.MULTILINE)
"""A further key at the top, a comment, an anchor or an alias; or what looks like one in a text."""


def spliced(text: str, name: str, entry: Mapping[str, Any], *, note: Path) -> str | None:
    """The file's text with the entry of a stage replaced, or added at the end.

    Args:
        text: The file.
        name: The stage.
        entry: What DVC is to write for it.
        note: Where the digest of the last text that is known to be DVC's is kept.

    Returns:
        The new text; None where the file is left to DVC.
    """
    from dvc.utils.serialize import dumps_yaml

    if not _is_dvcs(text, note):
        return None
    block: str = dumps_yaml({"stages": {name: entry}}).removeprefix("stages:\n")
    if _FOREIGN.search(block):
        return None
    key = block.partition("\n")[0]
    begin = text.find(f"\n{key}\n") + 1
    if not begin:
        found = text + block
    else:
        after = re.compile(r"^  \S", re.MULTILINE).search(text, begin + len(key))
        found = text[:begin] + block + (text[after.start() :] if after else "")
    note.write_text(_digest(found), encoding="ascii")  # half of it is only another text's
    return found


def _is_dvcs(text: str, note: Path) -> bool:
    """Whether DVC would write the text as it is."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    if not text.startswith(HEAD) or _FOREIGN.search(text, len(HEAD)):
        return False
    try:
        if note.read_text(encoding="ascii") == _digest(text):
            return True
    except (OSError, UnicodeDecodeError):
        pass  # asked anew below
    return bool(dumps_yaml(parse_yaml_for_update(text, "dvc.lock")) == text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def install() -> None:
    """Have DVC write its lock file by `spliced` in this process.

    A private class of the pinned DVC: tests/pipelines/test_dvc_lock_text.py compares with its own.
    """
    from dvc.dvcfile import Lockfile
    from dvc.log import logger
    from dvc.stage import serialize

    dump_by_dvc = Lockfile.dump_stages

    def dump_stages(self: Any, stages: Any, **options: Any) -> None:
        path = Path(self.path)
        if len(stages) != 1 or not path.is_file() or path.is_symlink():
            dump_by_dvc(self, stages, **options)
            return
        text = path.read_text(encoding="utf-8")
        name = stages[0].name
        entry = serialize.to_lockfile(stages[0], **options)[name]
        found = spliced(text, name, entry, note=Path(self.repo.tmp_dir) / "hqsam-lock-digest")
        if found is None:
            dump_by_dvc(self, stages, **options)
        elif found != text:
            logger.getChild("dvcfile").info("Updating lock file '%s'", self.relpath)
            with atomic_file(path) as file:
                file.write(found.encode())
            self.repo.scm_context.track_file(self.relpath)

    Lockfile.dump_stages = dump_stages
