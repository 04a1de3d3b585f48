"""What `hqsam doctor` looks at. Each check is a function that yields findings.

None changes anything but `_site_cache`, which has DVC keep its site cache in the checkout, and
`_kernels`, which compiles what stages use compiled if it is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hqsam_base import compiled, own_code
from hqsam_base.atomic import atomic_file, json_bytes
from hqsam_base.errors import UserError
from hqsam_pipelines.config import dvc_site, env, origin
from hqsam_pipelines.runner import doctor_operations as operations
from hqsam_pipelines.runner import provenance, server
from hqsam_pipelines.runner.finding import Finding
from hqsam_pipelines.runner.server_address import healthy

if TYPE_CHECKING:
    from hqsam_datasets.fetch.spec import ArchiveSpec

NEEDED_GB = {"embedded": 2, "paper": 250}
"""Free disk that a profile wants, in GB: archives, extracted trees, samples, shards and DVC's cache. By where its archives are from."""

_ON_THIS_MACHINE = ("embedded://", "file://", "drop://")


def examine(start: Path) -> list[Finding]:
    """Run every check.

    Args:
        start: A folder inside the repository.
    """
    findings = [*_installation(), *operations.variables(), *_kernels()]
    try:
        root = env.repository_root(start)
    except UserError as error:
        return [*findings, Finding("fail", "repository", str(error).replace("\n ", ";"))]
    if not os.access(root, os.W_OK):
        text = (
            f"{root} cannot be written: a run needs data/, models/, reports/ and {env.STATE_DIR}/ "
            f"there"
        )
        return [*findings, Finding("fail", "repository", text)]
    checks: tuple[Callable[[Path], Iterator[Finding]], ...] = (
        _code,
        _params,
        _archives,
        _disk,
        _git,
        operations.dvc,
        _site_cache,
        _server,
        _leftovers,
        operations.workers,
        operations.gpu,
        operations.ray,
    )
    return findings + [finding for check in checks for finding in check(root)]


def write(findings: list[Finding], path: Path) -> None:
    """Write the findings as JSON."""
    with atomic_file(path) as file:
        file.write(json_bytes({"findings": [asdict(finding) for finding in findings]}))


def _installation() -> Iterator[Finding]:
    """Python, the libraries, and the machine."""
    new = sys.version_info >= (3, 11)
    text = f"{sys.version.split()[0]} at {sys.executable} (3.11 or newer is needed)"
    yield Finding("ok" if new else "fail", "python", text)
    python = shutil.which("python")
    if python is None or Path(python).resolve() != Path(sys.executable).resolve():
        detail = (
            f"`python` is {python or 'not on PATH'}, this is {sys.executable}: activate the "
            f"environment before `dvc repro`"
        )
        yield Finding("warn", "python", detail)
    found = provenance.libraries()
    missing = [name for name in provenance.LIBRARIES if name not in found]
    if missing:
        yield Finding(
            "fail",
            "libraries",
            f"not installed: {', '.join(missing)}; pip install -c constraints.txt '.[pipeline]'",
        )
    yield Finding(
        "ok", "libraries", ", ".join(f"{name} {version}" for name, version in found.items())
    )
    with contextlib.suppress(metadata.PackageNotFoundError):
        metadata.version("lightning")
        yield Finding(
            "warn",
            "libraries",
            "`lightning` is installed; releases of 2026-04 were malicious, check its version",
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = origin.host()["cores"]
    text = f"{cores} cores, {memory:.0f} GB memory (the sample needs 4)"
    yield Finding("ok" if memory >= 6 else "warn", "machine", text)


def _code(root: Path) -> Iterator[Finding]:
    """Whether commands and stages run this checkout's packages, and whether those are what the environment has installed."""
    try:
        own_code.refuse_foreign(root)
    except UserError as error:
        yield Finding("fail", "code", " ".join(str(error).split()))
        return
    wanted = own_code.packages(root)
    if not wanted:
        yield Finding("ok", "code", f"{root} holds none of the packages: the installed ones run")
        return
    # Where the environment alone, without PYTHONPATH and the current folder, finds them.
    program = (
        "import importlib.util as u, json, sys; found = {n: u.find_spec(n) for n in sys.argv[1:]};"
        "print(json.dumps({n: s.origin for n, s in found.items() if s and s.origin}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *wanted], capture_output=True, text=True, check=True
    )
    folders = {name: Path(file).parent for name, file in json.loads(done.stdout).items()}
    installed = {
        name: folder
        for name, folder in folders.items()
        if folder.resolve() != wanted[name].resolve()
    }
    if not installed:
        yield Finding("ok", "code", f"{', '.join(sorted(wanted))} come from {root}")
        return
    name, folder = next(iter(installed.items()))
    detail = (
        f"the environment has {name} of {folder} installed; `hqsam` and the stages run this "
        f"checkout's own all the same"
    )
    yield Finding(
        "warn", "code", f"{detail}, other programs do not until `pip install --no-deps -e .` here"
    )


def _params(root: Path) -> Iterator[Finding]:
    from hqsam_pipelines.config.params import FILE, Params

    try:
        params = Params.load(root / FILE)
        count = params.check()
    except UserError as error:
        yield Finding("fail", "params", str(error).replace("\n ", ";"))
        return
    sizes = (
        f"{len(params.sources)} sources, {len(params.benchmarks)} benchmarks, "
        f"{len(params.models)} models"
    )
    yield Finding("ok", "params", f"profile {params.profile}: {sizes}, {count} sections valid")
    trained = {name: params.train(name) for name in params.models}
    demanding = [
        name for name, options in trained.items() if options.epochs and options.device == "cuda"
    ]
    if demanding and shutil.which("nvidia-smi") is None:
        text = (
            f"{', '.join(demanding)}: `train.device: cuda` demands a GPU, and no nvidia-smi was "
            f"found"
        )
        yield Finding("fail", "training", text)
    for name in params.models:
        checkpoint = params.model(name).checkpoint
        # A file below data/archives is one that the fetch stage brings.
        if (
            checkpoint is not None
            and not (root / checkpoint).exists()
            and checkpoint.parts[:2] != ("data", "archives")
        ):
            yield Finding(
                "fail", "params", f"models.{name}.checkpoint: {checkpoint} does not exist"
            )


def _archives(root: Path) -> Iterator[Finding]:
    """Files that only a person can get and that are not there yet, or that have changed since they were fetched."""
    from hqsam_datasets.fetch.archive import missing_by_hand, renewed
    from hqsam_pipelines.config.params import FILE, Params

    try:
        params = Params.load(root / FILE)
        specs = {name: params.archive(name) for name in params.archives}
    except UserError:
        return  # a finding of `_params` already
    for name, spec in specs.items():
        needed, optional = missing_by_hand(spec, root / "data" / "archives" / name)
        how = f"; {spec.instructions}" if spec.instructions else ""
        if needed:
            at = [
                u for f in spec.files if f.name in needed for u in f.urls if u.startswith("file:")
            ]
            where = f" ({', '.join(at)} is not there)" if at else ""
            yield Finding(
                "fail",
                "archives",
                f"{name}: put {', '.join(needed)} into the drop folder{where}{how}",
            )
        if optional:
            detail = f"{name}: without {', '.join(optional)} what needs them is left out{how}"
            yield Finding("warn", "archives", detail)
    yield from _digests(root, specs)
    try:
        news = renewed(root / "data" / "archives", specs)
    except UserError as error:
        yield Finding("fail", "archives", " ".join(str(error).split()))
        return
    for name, source in news.items():
        how = (
            f"`hqsam repro` takes it; with DVC alone: `dvc repro --force fetch@{name}`, then `dvc "
            f"repro`"
        )
        yield Finding("warn", "archives", f"{name}: {source} is newer than what was fetched; {how}")


def _digests(root: Path, specs: Mapping[str, ArchiveSpec]) -> Iterator[Finding]:
    """Downloads whose content nobody vouches for, or that are here but not those of `archives.sha256`."""
    from hqsam_datasets.fetch import first_use
    from hqsam_datasets.fetch.places import untold

    try:
        told = first_use.read(root / first_use.FILE)
    except UserError as error:
        yield Finding("fail", "digests", " ".join(str(error).split()))
        return
    names = {
        f"{name}/{f.name}": f
        for name, spec in specs.items()
        for f in untold(spec, root / "data/archives" / name)
    }
    trusted = [name for name in names if name not in told]
    if trusted:
        plain = [
            name for name in trusted if any(url.startswith("http:") for url in names[name].urls)
        ]
        how = f"; without encryption: {', '.join(plain)}" if plain else ""
        text = (
            f"the first download of {', '.join(trusted)} will be trusted and noted in "
            f"{first_use.FILE}{how}"
        )
        yield Finding("warn", "digests", text)
    for name in first_use.others(told, root / "data" / "archives"):
        text = f"data/archives/{name} has another digest than in {first_use.FILE}"
        yield Finding(
            "fail", "digests", f"{text}: `dvc repro --force fetch@{name.partition('/')[0]}`"
        )


def _disk(root: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(root).free / 1e9
    needed = _needed_gb(root)
    if needed is None:
        yield Finding(
            "ok",
            "disk",
            f"{free:.0f} GB free; what the profile's own downloads need is not known here",
        )
        return
    # What was fetched already takes none of the free space.
    begun = any((root / "data" / "archives").glob("*/fetch.json"))
    level: Literal["ok", "warn", "fail"] = "ok" if free >= needed else "warn" if begun else "fail"
    yield Finding(
        level,
        "disk",
        f"{free:.0f} GB free, the profile wants {needed}" + (" from nothing" if begun else ""),
    )


def _needed_gb(root: Path) -> int | None:
    """What the active profile needs; None where nobody knows: archives of the user that are downloaded."""
    from hqsam_pipelines.config.params import FILE, Params

    try:
        params = Params.load(root / FILE)
    except UserError:
        return None  # params.yaml is broken, which is a finding already
    files = [
        file for archive in params.raw["archives"].values() for file in archive.get("files", [])
    ]
    urls = [str(url) for file in files for url in file.get("urls", [])]
    if all(url.startswith(_ON_THIS_MACHINE) for url in urls):
        return NEEDED_GB["embedded"]
    return NEEDED_GB["paper"] if params.profile.startswith("paper") else None


def _git(root: Path) -> Iterator[Finding]:
    state = origin.git_state(root)
    if state["commit"] is None:
        yield Finding("fail", "git", "not a git repository, or git is not installed: DVC needs one")
        return
    changed = ", code differs from it" if state["code_changed"] else ""
    yield Finding("ok", "git", f"commit {state['commit'][:12]}{changed}")


def _site_cache(root: Path) -> Iterator[Finding]:
    mended = dvc_site.configure(root)
    found = dvc_site.fault(root)
    if found is not None:
        yield Finding("warn", "site cache", found)
    else:
        yield Finding(
            "ok",
            "site cache",
            "of DVC: this user's alone" + (", set in .dvc/config.local now" if mended else ""),
        )


def _kernels() -> Iterator[Finding]:
    for module in compiled.MODULES:
        why = compiled.fill(module)
        name = module.removeprefix("hqsam_")
        if why is None:
            yield Finding("ok", "kernels", f"{name} is compiled for this processor")
        else:
            yield Finding("warn", "kernels", f"{name} runs uncompiled, with equal numbers: {why}")


def _server(root: Path) -> Iterator[Finding]:
    try:
        found = server.status(root)
    except UserError as error:
        yield Finding("fail", "server", " ".join(str(error).split()))
        return
    if found is None:
        yield Finding("ok", "server", "none runs; the first stage starts one")
    elif healthy(found.api):
        yield Finding(
            "ok", "server", f"{found.page} ({'this checkout' if found.ours else 'PREFECT_API_URL'})"
        )
    else:
        yield Finding("fail", "server", f"{found.api} (PREFECT_API_URL) does not answer")


def _leftovers(root: Path) -> Iterator[Finding]:
    from hqsam_pipelines.config import profiles

    try:
        found = profiles.leftovers(root)
    except UserError:
        return  # params.yaml is broken, which is a finding already
    if found:
        names = ", ".join(str(path) for path in found[:6])
        yield Finding(
            "warn",
            "leftovers",
            f"not part of the profile: {names}; `hqsam profile --prune` takes them away",
        )
