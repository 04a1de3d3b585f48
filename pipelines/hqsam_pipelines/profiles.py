"""Ready profiles: configs/<name>.yaml, or one with an overlay, becomes params.yaml; and what a profile leaves behind for another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from hqsam_datasets.atomic import atomic_file
from hqsam_datasets.errors import UserError

from hqsam_pipelines import ablations, overlays
from hqsam_pipelines.params import FILE, Params, parse_yaml
from hqsam_pipelines.schema import unknown


def listing(root: Path) -> list[tuple[str, bool]]:
    """Name of each profile and whether params.yaml equals it."""
    active = _bytes(root / FILE)
    return [(name, content == active) for name, content in _contents(root).items()]


def switch(root: Path, name: str, *, force: bool = False) -> bool:
    """Replace params.yaml by a profile.

    Args:
        root: The repository.
        name: File name in configs/ without `.yaml`, or a profile that `ablations` or `overlays` puts together.
        force: Replace it even if it equals no profile, that is, holds somebody's edits.

    Returns:
        False if it was that profile already.

    Raises:
        UserError: no such profile, the profile is not valid, or there are edits and not `force`.
    """
    contents = _contents(root)
    if name not in contents:
        raise unknown(name, contents, what="profile", file=root / "configs", key=name)
    new, old = contents[name], _bytes(root / FILE)
    if new == old:
        return False
    if old is not None and not force and old not in contents.values():
        raise UserError(
            "params.yaml holds changes that no profile has; they would be lost", file=root / FILE,
            cure="save it as configs/<another name>.yaml, or switch with --force",
        )  # fmt: skip
    Params.of(parse_yaml(new, root / "configs" / name), root / "configs" / name)
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


def refuse_leftovers(root: Path) -> None:
    """What a stage that reads whole folders asks before it begins.

    Raises:
        UserError: the workspace holds outputs that the active profile does not have.
    """
    found = leftovers(root)
    if found:
        raise UserError(
            f"{len(found)} outputs in the workspace are not part of the active profile, but would be read with it",
            file=root / found[0], cure="take them away with `hqsam profile --prune` (DVC's cache keeps them), then run again",
        )  # fmt: skip


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


def restore(root: Path) -> list[Path]:
    """Bring back from DVC's cache what dvc.lock records of the active profile and the workspace lacks.

    DVC's own `repro` would run a stage again rather than look there: a training output is persistent, and DVC never restores
    those. A stage whose inputs have changed since runs again all the same.

    Returns:
        The outputs that are back, relative to `root`.
    """
    if not (root / ".dvc").is_dir():
        return []  # no cache to bring anything from
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        lost = [Path(out.fs_path) for out in repo.index.outs if out.use_cache and out.hash_info and not out.exists]
        if lost:
            repo.checkout(targets=[str(path) for path in lost], allow_missing=True)
    return [path.relative_to(root) for path in lost if path.exists()]


def _strangers(root: Path, folder: str, names: set[str]) -> Iterator[Path]:
    if (root / folder).is_dir():
        for path in sorted((root / folder).iterdir()):
            if path.name not in names and not path.name.startswith("."):
                yield path.relative_to(root)


def _contents(root: Path) -> dict[str, bytes]:
    """Name and content of every profile: the files, then those that are put together."""
    files = sorted((root / "configs").glob("*.yaml"))
    found = {path.stem: path.read_bytes() for path in files}
    composed = [
        name for name, base in ablations.PROFILES.items() if base in found and (root / ablations.FOLDER).is_dir()
    ]
    found |= {name: ablations.compose(root, name) for name in composed}
    return found | {name: overlays.compose(root, name) for name in overlays.names(root)}


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
