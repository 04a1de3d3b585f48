"""What `hqsam doctor` looks at for runs that nobody watches: variables, GPU, Ray, DVC's cache and remote, deployments and workers."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError
from hqsam_base.safe_text import redact
from hqsam_pipelines.config import dvc_site, preflight
from hqsam_pipelines.config import variables as known
from hqsam_pipelines.runner import server_address
from hqsam_pipelines.runner.finding import Finding

REMOTE_S = 30.0
"""How long DVC's remote may take to answer."""
RAY_S = 60.0
"""How long a Ray cluster may take to let this machine in."""
CACHE_GB = 5.0
"""With less space than this where DVC keeps its cache, a run may end for want of it."""


def variables() -> Iterator[Finding]:
    """Whether the HQSAM_ variables exist, and have values that they take."""
    found = list(known.faults(os.environ))
    for name, detail in found:
        yield Finding("fail", "environment", f"{name}: {detail}")
    named = sorted(name for name in os.environ if name.startswith(known.PREFIX))
    if not found:
        yield Finding("ok", "environment", ", ".join(named) or "no HQSAM_ variable is set")
    given = os.environ.get("HQSAM_CHECKOUT")
    if given and Path(given).is_dir():
        try:
            preflight.pipeline(Path(given))
        except (UserError, OSError) as error:
            yield Finding("fail", "environment", f"HQSAM_CHECKOUT: {_one_line(error)}")


def gpu(root: Path) -> Iterator[Finding]:
    """Whether there is a GPU, and whether torch can use it with the driver of this machine."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Finding("ok", "gpu", "none found; the sample needs none")
        return
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = _call(query, root, 30)
    if done.returncode:
        cure = "install or repair NVIDIA's driver"
        yield Finding("fail", "gpu", f"nvidia-smi fails: {_one_line(done.stderr)}; {cure}")
        return
    names = "; ".join(done.stdout.strip().splitlines())
    code = "import json, torch; c = torch.cuda.is_available(); print(json.dumps([torch.__version__, torch.version.cuda, c]))"
    asked = _call([sys.executable, "-c", code], root, 120)
    if asked.returncode:
        yield Finding("fail", "gpu", f"{names}; torch cannot be imported: {_end(asked.stderr)}")
        return
    version, build, usable = json.loads(asked.stdout.splitlines()[-1])
    if usable:
        yield Finding("ok", "gpu", f"{names}; torch {version} uses it")
    elif build is None:
        cure = "install the CUDA build of the same version (docs/operations.md)"
        yield Finding("fail", "gpu", f"{names}; torch {version} is a build for CPUs: {cure}")
    else:
        cure = f"update the driver to one for CUDA {build}, or install torch for an older CUDA"
        why = _end(asked.stderr) or "the driver does not serve it"
        yield Finding("fail", "gpu", f"{names}; torch {version} cannot use it: {why}; {cure}")


def ray(root: Path) -> Iterator[Finding]:
    """Whether Ray, where it is asked for, is the pinned release, and whether its cluster answers and is of the same release."""
    address = os.environ.get("RAY_ADDRESS")
    asked = address or "ray" in (os.environ.get("HQSAM_EXECUTOR"), os.environ.get("HQSAM_LAUNCHER"))
    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        if asked:
            cure = "pip install -c constraints.txt '.[ray]'"
            yield Finding(
                "fail", "ray", f"the environment asks for it, it is not installed: {cure}"
            )
        return
    pins = root / "constraints.txt"
    pinned = (
        re.search(r"^ray==(\S+)", pins.read_text(encoding="utf-8"), re.M)
        if pins.is_file()
        else None
    )
    if pinned and pinned[1] != version:
        cure = "pip install -c constraints.txt '.[ray]', on all nodes"
        yield Finding("warn", "ray", f"{version} is installed, {pinned[1]} is pinned: {cure}")
    elif not address:
        yield Finding(
            "ok", "ray", f"{version}, " + ("a local one is started" if asked else "not asked for")
        )
    if address:
        yield _cluster(address, version, root)


def _cluster(address: str, version: str, root: Path) -> Finding:
    host, _, port = (
        address.partition("//")[2].partition("/")[0].rpartition(":")
        if "//" in address
        else address.rpartition(":")
    )
    cure = "start its head (`ray start --head`), open its ports to this machine, or correct RAY_ADDRESS"
    if host and port.isdecimal():  # its own client tries for a minute where nobody listens
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            return Finding("fail", "ray", f"{address} does not answer ({error}): {cure}")
    code = (
        "import ray; ray.init(log_to_driver=False); r = ray.cluster_resources(); "
        "print(sum(n['Alive'] for n in ray.nodes()), 'nodes,', r.get('CPU', 0), 'CPUs,', r.get('GPU', 0), 'GPUs')"
    )
    done = _call([sys.executable, "-c", code], root, RAY_S)
    other = re.search(r"started with:\s*Ray: (\S+)\s*Python: (\S+)", done.stderr)
    if done.returncode and other:
        here = f"Ray {version} and Python {platform.python_version()} are here"
        cure = "pip install -c constraints.txt '.[ray]' with one Python on all nodes, then start them again"
        return Finding(
            "fail",
            "ray",
            f"{address} runs Ray {other[1]} with Python {other[2]}, {here}: {cure}",
        )
    if done.returncode:
        return Finding("fail", "ray", f"{address}: {_end(done.stderr)}; {cure}")
    return Finding("ok", "ray", f"{version}; {address}: {done.stdout.splitlines()[-1]}")


_ASK_DVC = """
import json, sys
from pathlib import Path
from hqsam_pipelines.config import dvc_site
with dvc_site.open_repo(Path(sys.argv[1])) as repo:
    name = repo.config["core"].get("remote")
    url = repo.config["remote"].get(name, {}).get("url") if name else None
    print(json.dumps([len(repo.index.stages), repo.cache.local.path, name, url]), flush=True)
    if name:
        found = repo.cloud.get_remote()
        fs, near = found.fs, [found.path, found.fs.parent(found.path)]
        while fs.protocol != "local" and fs.parent(near[-1]) not in ("", near[-1]):
            near.append(fs.parent(near[-1]))
        print(next((p for p in near if p and fs.exists(p)), ""))
"""
"""What DVC says of itself; then the place of its default remote, or the nearest one above it that exists: DVC makes what is missing below.

In a process of its own: DVC keeps hold of the streams that it finds when it is imported, and a store may be silent for minutes.
"""


def dvc(root: Path) -> Iterator[Finding]:
    """Whether DVC reads the pipeline, has space where it keeps its cache, and reaches its default remote."""
    done = _call([sys.executable, "-c", _ASK_DVC, str(root)], root, REMOTE_S)
    said = done.stdout.splitlines()
    if not said:
        yield Finding("fail", "dvc", _end(done.stderr))
        return
    stages, cache, name, url = json.loads(said[0])
    yield Finding("ok", "dvc", f"{stages} stages")
    yield _cache(Path(cache), root)
    if name is None:
        text = "DVC has none: outputs stay on this machine (docs/operations.md)"
        yield Finding("ok", "remote", text)
    elif said[1:] and said[1]:
        yield Finding("ok", "remote", f"{name} ({redact(url)}) answers")
    else:
        why = _end(done.stderr) if done.returncode else "neither it nor its folder is there"
        cure = "look at `dvc remote list`, the credentials in the environment, and the network"
        yield Finding("fail", "remote", f"{name} ({redact(url)}): {redact(why)}; {cure}")


def _cache(place: Path, root: Path) -> Finding:
    there = next(folder for folder in (place, *place.parents) if folder.is_dir())
    if not os.access(there, os.W_OK):
        cure = "make it yours, or name another with `dvc cache dir --local`"
        return Finding("fail", "cache", f"{place} cannot be written: {cure}")
    free = shutil.disk_usage(there).free / 1e9
    apart = "; on another file system than the checkout: outputs are copied, not linked"
    apart *= there.stat().st_dev != root.stat().st_dev
    if free >= CACHE_GB:
        return Finding("ok", "cache", f"{place}: {free:.0f} GB free{apart}")
    cure = "`dvc gc --workspace --all-branches --all-tags` frees what no branch needs"
    return Finding("warn", "cache", f"{place}: {free:.1f} GB free{apart}; {cure}")


def workers(root: Path) -> Iterator[Finding]:
    """Whether `hqsam deploy` has registered its flows on the named server, and whether a worker is there to run them."""
    try:
        server = server_address.given()
    except UserError:
        return  # a finding of the server's check already
    if server is None or not server_address.healthy(server.api):
        return
    try:
        with server_address.refusal_is_user_error(server.api):
            yield from _deployed()
    except UserError as error:
        yield Finding("fail", "worker", _one_line(error))


def _deployed() -> Iterator[Finding]:
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            pool = client.read_deployment_by_name("nightly/hqsam").work_pool_name
        except ObjectNotFound:
            yield Finding("warn", "worker", "nothing is registered on the server: `hqsam deploy`")
            return
        found: Any = client.request("GET", "/work_pools/{name}", path_params={"name": pool}).json()
        if found["is_paused"]:
            cure = f"`prefect work-pool resume {pool}`"
            yield Finding("fail", "worker", f"the pool {pool} is paused: {cure}")
            return
        every: Any = client.request(
            "POST",
            "/work_pools/{work_pool_name}/workers/filter",
            path_params={"work_pool_name": pool},
            json={},
        ).json()
    alive = [worker["name"] for worker in every if worker["status"] == "ONLINE"]
    if alive:
        yield Finding("ok", "worker", f"pool {pool}: {', '.join(alive)}")
        return
    last = max((worker["last_heartbeat_time"] for worker in every), default=None)
    seen = f"the last one was heard at {last}" if last else "there never was one"
    cure = f"`systemctl --user restart hqsam-worker`, or `prefect worker start --pool {pool}`"
    yield Finding("fail", "worker", f"no worker asks the pool {pool}, {seen}: {cure}")


def _call(words: list[str], root: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    given = dvc_site.environment(root, os.environ)
    try:
        return subprocess.run(
            words, cwd=root, env=given, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""  # bytes, whatever was asked for
        text = said.decode() if isinstance(said, bytes) else said
        return subprocess.CompletedProcess(words, 124, text, f"no answer in {seconds:g} s")


def _end(text: str) -> str:
    """The last line of what a program said: a traceback ends with the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
