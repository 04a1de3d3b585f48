"""Ready profiles: configs/<name>.yaml, or one with an overlay, becomes params.yaml; and what a profile leaves behind for another."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hqsam_base.atomic import atomic_file
from hqsam_base.errors import UserError
from hqsam_base.locks import is_held
from hqsam_pipelines import ablations
from hqsam_pipelines.config import dvc_site, env, overlays, profile_runs
from hqsam_pipelines.config.params import FILE, Params
from hqsam_pipelines.config.schema import unknown
from hqsam_pipelines.config.yaml_file import parse_yaml

METRICS = "reports/metrics"

STAGE_LOCKS = Path(env.STATE_DIR) / "stages"
"""Where each stage run holds a lock as long as it lives (`stage`)."""

ASIDE = Path(env.STATE_DIR) / "aside"
"""Where leftovers go that nothing else keeps, by their path in the repository."""


def listing(root: Path) -> list[tuple[str, bool]]:
    """Name of each profile and whether params.yaml equals it."""
    active = _bytes(root / FILE)
    return [(name, content == active) for name, content in _contents(root).items()]


def switch(root: Path, name: str, *, force: bool = False) -> bool:
    """Replace params.yaml by a profile.

    Args:
        root: The repository.
        name: File name in configs/ without `.yaml`, or a profile that `ablations` or `overlays`
            puts together.
        force: Replace it even if it equals no profile, that is, holds somebody's edits.

    Returns:
        False if it was that profile already.

    Raises:
        UserError: no such profile, the profile is not valid, there are edits and not `force`, or a
            stage is running.
    """
    contents = _contents(root)
    if name not in contents:
        raise unknown(name, contents, what="profile", file=root / "configs", key=name)
    new, old = contents[name], _bytes(root / FILE)
    if new == old:
        return False
    _refuse_while_running(root)
    if old is not None and not force and old not in contents.values():
        raise UserError(
            "params.yaml holds changes that no profile has; they would be lost",
            file=root / FILE,
            cure="save it as configs/<another name>.yaml, or switch with --force",
        )
    Params.of(parse_yaml(new, root / "configs" / name), root / "configs" / name).check()
    for known in (known for known, text in contents.items() if text == old):
        profile_runs.keep(root, known)
    with atomic_file(root / FILE) as file:
        file.write(new)
    profile_runs.bring_back(root, name)
    return True


def _refuse_while_running(root: Path) -> None:
    """Raise a UserError if a stage runs: it reads params.yaml and outputs that would be taken away under it."""
    running = [path.stem for path in sorted((root / STAGE_LOCKS).glob("*.lock")) if is_held(path)]
    if running:
        cure = "wait for it, or end it, then try again"
        raise UserError(
            f"a stage is running: {', '.join(running)}", file=root / STAGE_LOCKS, cure=cure
        )


def leftovers(root: Path) -> list[Path]:
    """Outputs in the workspace that the active profile does not have, relative to `root`.

    DVC hashes folders such as data/samples as a whole, so a source that the profile no longer has
    must not stay there: its samples would still reach the shards' key. Loose files beside the
    folders that stages write, and weights that the profile names, are nobody's output and stay.
    """
    params = Params.load(root / FILE)
    named = [params.model(name).checkpoint for name in params.models]
    weights = [root / path for path in named if path is not None]
    found = []
    for folder, names in _outputs(params).items():
        for path in sorted((root / folder).iterdir()) if (root / folder).is_dir() else ():
            is_output = path.is_file() if folder == METRICS else path.is_dir()
            if is_output and path.name not in names and not path.name.startswith("."):
                found.append(path.relative_to(root))
    return [
        path for path in found if not any(weight.is_relative_to(root / path) for weight in weights)
    ]


def _outputs(params: Params) -> dict[str, set[str]]:
    """Folder to the names of what stages write there under a profile."""
    runs = {f"{benchmark}-{model}" for benchmark in params.benchmarks for model in params.models}
    return {
        "data/archives": set(params.archives),
        "data/samples": set(params.sources),
        "data/benchmarks": set(params.benchmarks),
        "data/predictions": runs,
        "data/scores": runs,
        "models": set(params.models),
        METRICS: {f"{run}.json" for run in runs},
    }


def refuse_leftovers(root: Path) -> None:
    """What a stage that reads whole folders asks before it begins.

    Raises:
        UserError: the workspace holds outputs that the active profile does not have.
    """
    found = leftovers(root)
    if found:
        raise UserError(
            f"{len(found)} outputs in the workspace are not part of the active profile, but would "
            f"be read with it",
            file=root / found[0],
            cure=f"take them away with `hqsam profile --prune` (what DVC's cache does not hold "
            f"goes to {ASIDE}), then run again",
        )


def prune(root: Path) -> Iterator[str]:
    """Take `leftovers` away; yields what happened to each.

    What DVC's cache holds is removed. The rest, such as metrics, an unfinished training or
    download, or a folder of the user's, is put aside: `restore` brings it back with its profile.

    Raises:
        UserError: something of that name lies aside already, or a stage is running.
    """
    found = leftovers(root)
    if found:
        _refuse_while_running(root)
    cached = _cached(root, found) if found else set()
    for path in found:
        whole = root / path
        if path in cached:
            if whole.is_dir() and not whole.is_symlink():
                shutil.rmtree(whole)
            else:
                whole.unlink()
            yield f"removed {path} (not part of this profile)"
        else:
            _move(whole, root / ASIDE / path)
            yield (
                f"put aside {path} (not part of this profile, and not in DVC's cache): "
                f"{ASIDE / path}"
            )


def _cached(root: Path, paths: list[Path]) -> set[Path]:
    """Those of `paths` that can go: there is nothing in them, or DVC's cache holds just this content."""
    known = {
        path
        for path in paths
        if (root / path).is_dir()
        and not any(inner.is_file() or inner.is_symlink() for inner in (root / path).rglob("*"))
    }
    rest = [path for path in paths if path not in known]
    if not rest or not (root / ".dvc").is_dir():
        return known
    with dvc_site.open_repo(root) as repo:
        return known | {path for path in rest if _holds(repo, root / path)}


def _holds(repo: Any, path: Path) -> bool:
    from dvc_data.hashfile import check
    from dvc_data.hashfile.build import build
    from dvc_objects.errors import ObjectFormatError
    from dvc_objects.fs.local import localfs

    cache = repo.cache.local
    _, _, found = build(
        cache, str(path), localfs, cache.hash_name, dry_run=True, ignore=repo.dvcignore
    )
    with contextlib.suppress(FileNotFoundError, ObjectFormatError):
        check(cache, found)
        return True
    return False


def _move(source: Path, target: Path) -> None:
    if target.is_dir():
        cure = "move one of the two to a place of yours, then try again"
        raise UserError(
            f"{source} cannot be put aside: there is one already", file=target, cure=cure
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(
        source, target
    )  # an older metrics file is replaced: any of them can be made again from scores


def restore(root: Path) -> Iterator[str]:
    """Bring back what the active profile has and the workspace lacks; yields what came back, and from where.

    That is what `prune` put aside, and what dvc.lock records and DVC's cache holds. An output of
    another profile of the same name gives way if the cache holds it, too.
    DVC's own `repro` would run a stage again rather than look there: a training output is
    persistent, and DVC never restores those. A stage whose inputs have changed since runs again all
    the same.
    """
    for folder, names in _outputs(Params.load(root / FILE)).items():
        for path in (Path(folder) / name for name in sorted(names)):
            if (root / ASIDE / path).exists() and not (root / path).exists():
                _move(root / ASIDE / path, root / path)
                yield f"restored {path} (from {ASIDE})"
    if not (root / ".dvc").is_dir():
        return  # no cache to bring anything from
    with dvc_site.open_repo(root) as repo:
        lost = [
            Path(out.fs_path)
            for out in repo.index.outs
            if out.use_cache
            and out.hash_info
            and (not out.exists or (profile_runs.differs(out) and _holds(repo, Path(out.fs_path))))
        ]
        if lost:
            repo.checkout(targets=[str(path) for path in lost], force=True, allow_missing=True)
    for path in (path for path in lost if path.exists()):
        yield f"restored {path.relative_to(root)} (from DVC's cache)"


def _contents(root: Path) -> dict[str, bytes]:
    """Name and content of every profile: the files, then those that are put together."""
    files = sorted((root / "configs").glob("*.yaml"))
    # a name becomes a folder of .hqsam/profiles: that of `configs/...yaml` would be `..`
    found = {path.stem: path.read_bytes() for path in files if not path.name.startswith(".")}
    composed = [
        name
        for name, base in ablations.PROFILES.items()
        if base in found and (root / ablations.FOLDER).is_dir()
    ]
    found |= {name: ablations.compose(root, name) for name in composed}
    return found | {name: overlays.compose(root, name) for name in overlays.names(root)}


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
