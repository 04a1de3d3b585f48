"""Which checkout this process runs the code of, and how it comes to run that of the repository that it works for.

An environment holds one installation, usually an editable one of the first checkout. In another
checkout (a clone, a worktree, the temporary folder of `dvc exp run --temp`) `python -m` finds the
package that lies in the current folder there and all others in the first checkout: code would run
that is not the code whose digests are recorded. So every entry point calls `use_here` or `use`
before it does anything. Standard library only: it runs first in each of many short processes.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from hqsam_base.errors import UserError

PLACES = (".", "datasets", "metrics", "pipelines")
"""The folders of a checkout that hold its packages."""

_PREFIX = "hqsam"
_CURE = (
    "install this checkout (`pip install --no-deps -e .` in it), or begin PYTHONPATH with its "
    "folders (., datasets, metrics,"
    " pipelines)"
)


def repository_of(start: Path) -> Path | None:
    """The nearest folder at or above `start` that holds both `dvc.yaml` and `params.yaml`, or None.

    Args:
        start: An absolute or relative folder.
    """
    here = start.resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            return folder
    return None


def packages(root: Path) -> dict[str, Path]:
    """The project's packages in a checkout, or in the folder of an installation: name to folder.

    Args:
        root: The checkout, or `site-packages`.
    """
    found = (
        path.parent for place in PLACES for path in (root / place).glob(f"{_PREFIX}*/__init__.py")
    )
    return {folder.name: folder for folder in found}


def foreign(wanted: Mapping[str, Path]) -> dict[str, Path | None]:
    """Packages that this process has imported, or would import, from another folder than the one wanted.

    Args:
        wanted: Name to folder, as `packages` gives them.

    Returns:
        Name to the folder that Python takes instead; None where it finds none.
    """
    taken = {name: _taken(name) for name in wanted}
    return {
        name: found
        for name, found in taken.items()
        if found is None or found.resolve() != wanted[name].resolve()
    }


def use_here() -> bool:
    """Have this process run the code of the repository around the current folder.

    Without a repository there, the packages must at least come from one place, which is where this
    module lies.

    Returns:
        See `use`.

    Raises:
        UserError: see `use`; or the packages are mixed.
    """
    root = repository_of(Path.cwd())
    if root is not None:
        return use(root)
    own = Path(__file__).resolve().parents[1]
    home = own.parent if own.name in PLACES and (own.parent / _PREFIX).is_dir() else own
    mixed = foreign(packages(home))
    if mixed:
        name, found = next(iter(mixed.items()))
        problem = f"the package {name} comes from {found}, the others from {home}"
        raise UserError(problem, cure="run this from another folder, or fix PYTHONPATH")
    return False


def use(root: Path) -> bool:
    """Have this process, and those that it starts, run the code of a repository.

    Args:
        root: The repository. One that holds no package of the project runs the code that is
            installed.

    Returns:
        Whether other code was loaded. It is forgotten then: the caller imports its own module again
        and goes on there.

    Raises:
        UserError: the repository is, wholly or in part, another user's; or packages still come from
            elsewhere after its folders were put in front.
    """
    wanted = packages(root)
    if not foreign(wanted):
        return False
    _refuse_another_users(root, wanted)
    places = [str((root / place).resolve()) for place in PLACES]
    sys.path[:] = places + [entry for entry in sys.path if entry not in places]
    given = [
        entry
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if entry and entry not in places
    ]
    os.environ["PYTHONPATH"] = os.pathsep.join(places + given)
    forget()
    refuse_foreign(root)
    return True


def _refuse_another_users(root: Path, wanted: Mapping[str, Path]) -> None:
    """Refuse code that merely lies above the current folder: in /tmp, anyone can put a repository there."""
    named = (
        root,
        root / "dvc.yaml",
        root / "params.yaml",
        *(root / place for place in PLACES),
        *wanted.values(),
    )
    for place in named:
        if place.exists() and place.stat().st_uid != os.geteuid():
            problem = (
                f"this repository is another user's (number {place.stat().st_uid}): its code is "
                f"not run"
            )
            raise UserError(
                problem, file=place, cure=f"work in another folder; or if you trust it, {_CURE}"
            )


def refuse_foreign(root: Path) -> None:
    """Raise unless all packages of a repository come from it.

    Raises:
        UserError: one does not; both folders are named.
    """
    wanted = packages(root)
    for name, found in foreign(wanted).items():
        problem = (
            f"the package {name} comes from {found or 'nowhere'}, not from this repository: other "
            f"code would run"
        )
        raise UserError(problem, file=wanted[name], cure=_CURE)


def forget() -> None:
    """Have `import` read the project's modules anew from the folders that now come first."""
    for name in list(sys.modules):
        package = name.partition(".")[0]
        if package == _PREFIX or package.startswith(f"{_PREFIX}_"):
            del sys.modules[name]
    importlib.invalidate_caches()


def _taken(name: str) -> Path | None:
    """The folder that a package was, or would be, imported from."""
    loaded = sys.modules.get(name)
    file = getattr(loaded, "__file__", None)
    if loaded is None:
        spec = importlib.util.find_spec(name)
        file = None if spec is None else spec.origin
    return None if file is None else Path(file).parent
