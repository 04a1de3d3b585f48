"""Profiles that differ from a ready one in a few entries: configs/overlays/<name>.yaml.

The key `base` names the ready profile, the rest is merged into it, mapping by mapping; `null` takes
an entry away.
"""

from __future__ import annotations

from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_pipelines.ablations import mapping, merge, written
from hqsam_pipelines.config.yaml_file import read_yaml

FOLDER = Path("configs") / "overlays"


def names(root: Path) -> list[str]:
    """The profiles that overlays make, sorted."""
    files = (root / FOLDER).glob("*.yaml")
    return sorted(path.stem for path in files if not path.name.startswith("."))


def compose(root: Path, name: str) -> bytes:
    """The content of params.yaml for the profile `name`; the same files give the same bytes.

    Raises:
        UserError: the overlay is not one, or its base is not a ready profile.
    """
    path = root / FOLDER / f"{name}.yaml"
    changes = dict(mapping(read_yaml(path), path))
    base = root / "configs" / f"{changes.pop('base', None)}.yaml"
    if not base.is_file():
        cure = "name a file of configs/ without `.yaml`"
        raise UserError("the overlay names no ready profile", file=path, key="base", cure=cure)
    merged = merge(mapping(read_yaml(base), base), changes)
    made = f"configs/{base.name} with {FOLDER.as_posix()}/{name}.yaml"
    return written(merged, name, f"{made}, put together by `hqsam profile {name}`.")
