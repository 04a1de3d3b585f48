"""Files outside the repository that the active profile reads: checked by every entry point, watched by DVC.

They are the models and predictions of `systems` and the detectors of `index.prompts`. DVC watches
paths that dvc.yaml names, and dvc.yaml cannot name what need not be there. So the stage `code`,
which runs before all others, depends on the folder `inputs`, and puts a link there to each such
file: when one changes, `code` runs, and writes its digest where the stages that read it look.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqsam_base.atomic import atomic_folder, write_json
from hqsam_base.digest import sha256_file
from hqsam_base.errors import UserError

if TYPE_CHECKING:
    from hqsam_pipelines.config.params import Params

LINKS = "inputs"
"""The folder of links, in git with nothing but its README.md."""

OUT = "data/inputs"

Files = dict[str, dict[str, Path]]
"""By section (`systems.sam2`): name in `inputs` and absolute path of each file."""


def files(params: Params, root: Path) -> Files:
    """List the files, each looked at as far as that takes no reading of large ones.

    Args:
        params: The active profile.
        root: The repository, from where relative paths lead.

    Raises:
        UserError: A file or folder is missing or of no use.
    """
    found: Files = {}
    with contextlib.chdir(root):
        for name in _with_detector(params):
            from hqsam import pretrained

            prompts, key = params.index(name).prompts, f"benchmarks.{name}.index.prompts"
            assert prompts is not None
            folder = pretrained.Source(
                prompts.detector, prompts.revision, f"{key}.detector", "detector"
            ).checked()
            inside = [] if folder is None else sorted(folder.rglob("*"))
            found[key] = _named([p for p in inside if p.is_file() and p.name[0] != "."])
        if "systems" in params.raw:
            from hqsam import systems

            for entry in params.systems:
                kind = systems.load(entry.options.kind)
                found[f"systems.{entry.name}"] = _named(kind.files(entry))
    return found


def _with_detector(params: Params) -> list[str]:
    entries: Mapping[str, Any] = params.raw["benchmarks"]
    return [
        n for n, e in entries.items() if isinstance(e["index"], dict) and "prompts" in e["index"]
    ]


def _named(paths: list[Path]) -> dict[str, Path]:
    return {f"{n:06d}-{path.name}": path.absolute() for n, path in enumerate(paths)}


def signature(found: Files) -> str:
    """Give a text that changes when a file is likely to have changed: its size or its time."""
    total = hashlib.sha256()
    for path in (path for of in found.values() for path in of.values()):
        seen = path.stat()
        total.update(f"{path}\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode())
    return total.hexdigest()


def check(params: Params, root: Path) -> None:
    """Check that detectors are of a known family, and that each system fits each benchmark that it is used with.

    Predictions are checked record by record where the benchmark was indexed as params.yaml has it;
    else for what every record must have.

    Raises:
        UserError: One is not, or does not.
    """
    with contextlib.chdir(root):
        for name in _with_detector(params):
            from hqsam import detector

            prompts = params.index(name).prompts
            if prompts is not None and (folder := Path(prompts.detector)).is_dir():
                detector.check(folder, f"benchmarks.{name}.index.prompts.detector")
        if "systems" not in params.raw:
            return
        from hqsam import systems
        from hqsam_datasets import benchmarks

        for name in params.benchmarks:
            entry = params.entry("benchmarks", name)
            kind = benchmarks.of_section(name, str(entry["kind"]), params.index(name)).kind
            folder = root / "data" / "benchmarks" / name
            for system in params.systems:
                of = systems.load(system.options.kind)
                if isinstance(of, systems.GivenKind):
                    of.check(system, name, kind, folder if _current(params, name, root) else None)


def _current(params: Params, benchmark: str, root: Path) -> bool:
    """Whether the benchmark's folder was made from what params.yaml says now: that of another profile has other images."""
    import yaml

    lock = root / "dvc.lock"
    if (
        not (root / "data" / "benchmarks" / benchmark / "index.json").is_file()
        or not lock.is_file()
    ):
        return False
    archive = params.entry("benchmarks", benchmark)["archive"]
    now = {f"archives.{archive}": params.raw["archives"][archive]}
    now |= {
        f"benchmarks.{benchmark}.{key}": params.entry("benchmarks", benchmark)[key]
        for key in ("archive", "kind", "index")
    }
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        stages = yaml.load(lock.read_bytes(), loader)["stages"]
        then = {}
        for stage in (f"fetch@{archive}", f"index@{benchmark}"):
            then |= stages[stage]["params"]["params.yaml"]
    except (yaml.YAMLError, OSError, KeyError, TypeError, UnicodeDecodeError):
        return False
    return bool(then == now)


def link(found: Files, root: Path) -> None:
    """Bring the folder of links up to date: every file has one, and nothing else does.

    Raises:
        UserError: Something that is no link stands in the way.
    """
    wanted = {root / LINKS / key / n: path for key, of in found.items() for n, path in of.items()}
    folder = root / LINKS
    for old in sorted(folder.rglob("*"), reverse=True):
        if old.is_symlink() and (old not in wanted or old.readlink() != wanted[old]):
            old.unlink()
        elif old.is_dir() and not any(old.iterdir()):
            old.rmdir()
    for place, target in wanted.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink():
            try:
                place.symlink_to(target)
            except FileExistsError as error:
                raise UserError(
                    "this is no link", file=place, cure="move it: the folder is for links alone"
                ) from error


def write_digests(params: Params, root: Path) -> None:
    """Link the files, and write what changes with them.

    `data/inputs/<benchmark>.json` holds the digests that the index stage depends on,
    `<benchmark>-<model>.json` those of the predict stage; `{}` without any.
    """
    found = files(params, root)
    link(found, root)
    digests = {
        key: {name: sha256_file(path) for name, path in of.items()} for key, of in found.items()
    }
    with atomic_folder(root / OUT, durable=False) as folder:
        for benchmark in params.benchmarks:
            key = f"benchmarks.{benchmark}.index.prompts"
            write_json(folder / f"{benchmark}.json", digests.get(key, {}))
            for model in params.models:
                mine = {
                    entry.name: digests[f"systems.{entry.name}"]
                    for entry in (params.systems_of(model) if "systems" in params.raw else ())
                    if benchmark in (getattr(entry.options, "benchmarks", ()) or (benchmark,))
                    and digests[f"systems.{entry.name}"]
                }
                write_json(folder / f"{benchmark}-{model}.json", mine)
