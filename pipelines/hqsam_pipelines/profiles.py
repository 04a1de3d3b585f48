"""Ready profiles: configs/<name>.yaml becomes params.yaml; and what a profile leaves behind when another takes over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from hqsam_datasets.atomic import atomic_file
from hqsam_datasets.errors import UserError

from hqsam_pipelines.params import FILE, Params
from hqsam_pipelines.schema import unknown


def listing(root: Path) -> list[tuple[str, bool]]:
    """Name of each profile and whether params.yaml equals it."""
    active = _bytes(root / FILE)
    return [(path.stem, path.read_bytes() == active) for path in _files(root)]


def switch(root: Path, name: str, *, force: bool = False) -> bool:
    """Replace params.yaml by a profile.

    Args:
        root: The repository.
        name: File name in configs/ without `.yaml`.
        force: Replace it even if it equals no profile, that is, holds somebody's edits.

    Returns:
        False if it was that profile already.

    Raises:
        UserError: no such profile, the profile is not valid, or there are edits and not `force`.
    """
    files = {path.stem: path for path in _files(root)}
    if name not in files:
        raise unknown(name, files, what="profile", file=root / "configs", key=name)
    new, old = files[name].read_bytes(), _bytes(root / FILE)
    if new == old:
        return False
    if old is not None and not force and old not in {path.read_bytes() for path in files.values()}:
        raise UserError(
            "params.yaml holds changes that no profile has; they would be lost", file=root / FILE,
            cure="save it as configs/<another name>.yaml, or switch with --force",
        )  # fmt: skip
    Params.load(files[name])
    with atomic_file(root / FILE) as file:
        file.write(new)
    return True


def leftovers(root: Path) -> list[Path]:
    """Outputs in the workspace that the active profile does not have, relative to `root`.

    DVC hashes folders such as data/samples as a whole, so a source that the profile no longer has must not stay there:
    its samples would still reach the shards' key.
    """
    params = Params.load(root / FILE)
    runs = {f"{benchmark}-{model}" for benchmark in params.benchmarks for model in params.models}
    expected: dict[str, set[str]] = {
        "data/archives": set(params.archives),
        "data/samples": set(params.sources),
        "data/benchmarks": set(params.benchmarks),
        "data/predictions": runs,
        "data/scores": runs,
        "models": set(params.models),
        "reports/metrics": {f"{run}.json" for run in runs},
    }
    return [path for folder, names in expected.items() for path in _strangers(root, folder, names)]


def prune(root: Path) -> list[Path]:
    """Remove `leftovers`; returns them."""
    found = leftovers(root)
    for path in found:
        whole = root / path
        if whole.is_dir() and not whole.is_symlink():
            shutil.rmtree(whole)
        else:
            whole.unlink()
    return found


def _strangers(root: Path, folder: str, names: set[str]) -> Iterator[Path]:
    if (root / folder).is_dir():
        for path in sorted((root / folder).iterdir()):
            if path.name not in names and not path.name.startswith("."):
                yield path.relative_to(root)


def _files(root: Path) -> list[Path]:
    return sorted((root / "configs").glob("*.yaml"))


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
