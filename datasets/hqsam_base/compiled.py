"""Compiled kernels: when they are used, where their machine code is kept, and who makes it.

A kernel module is a file of loops decorated with `jit`; it imports nothing heavy but numba, and its
kernels call only one another. Whoever has a kernel also has a plain path with the same numbers:

    if compiled.ready("hqsam_metrics.ap.kernels", size=len(detections), worth=20_000):
        from hqsam_metrics.ap import kernels

numba costs 0.3 to 0.5 s and 120 MB in every process that imports it, and compiling costs tens of
seconds. So it is imported only for work that is worth it, and nothing is compiled on the way: `hqsam
doctor` (or `python -m hqsam_base.compiled`, at installation) fills the cache, and without a filled
cache the plain path is taken.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

MODULES = (
    "hqsam.prediction.kernels",
    "hqsam_metrics.ap.json_kernels",
    "hqsam_metrics.ap.kernels",
    "hqsam_metrics.masks.kernels",
)
"""The kernel modules of this repository."""

SWITCH = "HQSAM_COMPILED"
"""Environment variable: 0 turns the compiled kernels off. It changes no result, so it is not a parameter."""

FOLDER = "HQSAM_KERNEL_CACHE"
"""Environment variable: the folder of the machine code; `hqsam/kernels` in the user's cache folder without it."""

_FILLED = "filled"
_SHARED = 0o022  # whoever may write there could have us run his code
_EVERYBODY, _STICKY = 0o002, 0o1000


def ready(module: str, *, size: float, worth: float) -> bool:
    """Returns whether a kernel module should be imported for a piece of work.

    Args:
        module: its full name.
        size: how much there is to do, in the caller's unit.
        worth: from which size on the import of numba pays off (measured).
    """
    off = os.environ.get(SWITCH) == "0" or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"
    return size >= worth and not off and _usable(module)


def loaded(module: str) -> Any:
    """Returns a kernel module that this process (or the one that it was forked from) has imported, else None.

    So that what works on small parts of a large job follows what was decided for the job.
    """
    return None if os.environ.get(SWITCH) == "0" else sys.modules.get(module)


@functools.cache
def _usable(module: str) -> bool:
    folder = cache_folder(module)
    try:
        return folder is not None and (folder / _FILLED).is_file() and _safe(folder)
    except OSError:
        return False


def _safe(folder: Path) -> bool:
    """Returns whether only this user and root can have written there: what is read there is run."""
    if not hasattr(os, "getuid"):
        return True
    owners, real = (0, os.getuid()), folder.resolve(strict=True)
    there = [one.stat() for one in (folder, folder.parent, real, real.parent)]
    if not all(one.st_uid in owners and not one.st_mode & _SHARED for one in there):
        return False
    # Who can rename a folder above could put another one of this user's there, such as an archive
    # that was unpacked. Of `/tmp` everybody can write only his own.
    above = [path.stat() for path in {*folder.absolute().parents, *real.parents}]
    return all(
        one.st_uid in owners and (not one.st_mode & _EVERYBODY or bool(one.st_mode & _STICKY))
        for one in above
    )


def cache_folder(module: str) -> Path | None:
    """Returns where the machine code of a module is kept, None without numba.

    The name holds a digest of the module's text, of the versions and of the processor: a worktree
    of the same text shares it, another processor or another text has its own.
    """
    spec = importlib.util.find_spec(module)
    if importlib.util.find_spec("numba") is None or spec is None or spec.origin is None:
        return None
    from importlib import metadata  # 20 ms

    versions = [metadata.version(name) for name in ("numba", "llvmlite")]
    key = [*versions, sys.version, platform.machine(), _processor()]
    text = Path(spec.origin).read_bytes() + "\n".join(key).encode()
    return _root() / f"{module}-{hashlib.sha256(text).hexdigest()[:16]}"


def _root() -> Path:
    given = os.environ.get(FOLDER)
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "hqsam" / "kernels"
    except RuntimeError:  # nobody's home
        return Path(os.devnull)


def _processor() -> str:
    """Returns what tells one kind of processor from another: its name and what it can do."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            first = file.read(1 << 14).partition("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "".join(line for line in first if line.startswith(("model name", "flags", "Features")))


def fill(module: str) -> str | None:
    """Compiles a kernel module into the cache; returns why that cannot be, None when it is there."""
    folder = cache_folder(module)
    if folder is None:
        return "numba is not installed: pip install 'hqsam-pipeline[fast]'"
    try:
        for one in (folder.parent, folder):  # whatever the umask lets others do
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _safe(folder):
            return f"{folder.parent}, or a folder above it, can be written by others"
        importlib.import_module(module)
        (folder / _FILLED).touch()
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror}); {FOLDER} names another folder"
    finally:
        _usable.cache_clear()
    return None


def jit(*signatures: Any, **options: Any) -> Callable[[Function], Function]:
    """Compiles a function for given signatures, or takes its machine code from the cache; it runs without the lock.

    Only kernel modules use it: to import one is to compile it where the cache is empty.

    Args:
        signatures: of numba's types, or as text (``"void(float64[::1], int64)"``); none for what
            only other kernels call.
        options: of `numba.njit`. Never `fastmath`: kernels give the plain path's numbers.
    """
    import numba

    def compiled(function: Function) -> Function:
        config: Any = numba.config
        before = config.CACHE_LOCATOR_CLASSES
        config.CACHE_LOCATOR_CLASSES = f"{__name__}.Place"
        try:
            made: Any = numba.njit(list(signatures) or None, nogil=True, cache=True, **options)(
                function
            )
        finally:
            config.CACHE_LOCATOR_CLASSES = before
        return cast(Function, made)

    return compiled


class Place:
    """Tells numba where the machine code of a function is: in the folder of its module (see `cache_folder`)."""

    def __init__(self, folder: Path, function: Callable[..., Any]) -> None:
        self._folder, self._line = folder, function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Callable[..., Any], _: str) -> Place | None:
        """Returns the place of a function."""
        folder = cache_folder(function.__module__)
        return None if folder is None else cls(folder, function)

    def ensure_cache_path(self) -> None:
        """Makes the folder."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        """Returns the folder."""
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """Returns what changes with the source; the folder's name does."""
        return self._folder.name

    def get_disambiguator(self) -> str:
        """Returns what tells apart functions of one name."""
        return str(self._line)


def main() -> int:
    """Fills the cache; a machine without numba is no error."""
    from hqsam_base.terminal import say

    for module in MODULES:
        why = fill(module)
        say(f"{module}: {'compiled' if why is None else 'not compiled: ' + why}")
    return 0


if __name__ == "__main__":
    from hqsam_base import own_code

    if own_code.use_here():  # other code was loaded: that of the repository compiles its kernels
        sys.exit(importlib.import_module("hqsam_base.compiled").main())
    sys.exit(main())
