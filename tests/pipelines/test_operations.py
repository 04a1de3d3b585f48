"""docs/operations.md, from nothing to a nightly run: every block runs here as it is written there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hqsam_pipelines.runner import host_client, nightly, worktree
from tests import REPOSITORY
from tests.pipelines.servers import free_port, postgres, s3_server
from tests.pipelines.working_copy import PACKAGE_FOLDERS, clone, environment, git

TEXT = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh *(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
UNITS = ("hqsam-server", "hqsam-worker")


def test_every_block_is_of_a_kind_that_is_run() -> None:
    """Shell commands of the walk stand in blocks that the test below knows, and no line is too much for it."""
    assert {kind for kind, _ in BLOCKS} == {"", "settings", "install", "systemd", "postgres"}
    walk = TEXT[TEXT.index("## From nothing") : TEXT.index("## Containers")]
    assert walk.count("```") == 2 * len(BLOCKS) and not re.findall(r"^    \S", walk, re.MULTILINE)
    for line in (line for kind, text in BLOCKS if kind == "systemd" for line in text.splitlines()):
        assert re.match(
            r"systemctl --user (daemon-reload|(enable --now|restart) hqsam-(server|worker))$"
            r"|loginctl enable-linger( |$)|journalctl --user --vacuum-time=\d+d$",
            line,
        ), line


class Home:
    """A home folder with a shell in it whose variables and current folder outlive each block, and the units that were started."""

    def __init__(self, path: Path, **given: str) -> None:
        self.path = path
        self.state = path.parent / "state.sh"
        self.base = environment(path / "hqsam", HOME=str(path), **given)
        self.state.write_text(f"cd {shlex.quote(str(path))}\n")
        self.units: dict[str, subprocess.Popen[bytes]] = {}

    def sh(self, text: str) -> str:
        """Run a block, and return what it printed."""
        keep = f'{{ declare -px; umask -p; printf "cd %q\\n" "$PWD"; }} > {self.state}'
        words = ["bash", "-euo", "pipefail", "-c", f"source {self.state}\n{text}\n{keep}"]
        done = subprocess.run(
            words, env=self.base, capture_output=True, text=True, timeout=1200, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def unit(self, name: str) -> dict[str, str]:
        """The settings of a unit, its specifiers written out."""
        text = (self.path / ".config/systemd/user" / f"{name}.service").read_text()
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        return {key: value.replace("%h", str(self.path)) for key, _, value in pairs}

    def start(self, name: str) -> None:
        """Start, or start again, what systemd would, with the environment that it would give."""
        self.stop(name)
        found = self.unit(name)
        lines = Path(found["EnvironmentFile"]).read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines if line)
        with (self.path / f"{name}.log").open("ab") as log:
            self.units[name] = subprocess.Popen(
                shlex.split(found["ExecStart"]),
                cwd=found["WorkingDirectory"],
                env={**self.base, **given},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, *names: str) -> None:
        """End units with all that they started."""
        for process in filter(None, (self.units.pop(name, None) for name in names)):
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            psutil.wait_procs(family, 20)
            for child in family:
                if child.is_running():
                    child.kill()
            process.wait(20)


@pytest.fixture
def home(tmp_path: Path, open_folder: Path) -> Iterator[tuple[Home, bool]]:
    """A home, an origin, an S3 API and, if one is installed, Postgres; and whether it is."""
    git(tmp_path, "clone", "-q", "--bare", str(clone(tmp_path / "source")), "origin.git")
    path = tmp_path / "home"
    path.mkdir()
    who = {
        f"GIT_{n}_{k}": "t@example.org" for n in ("AUTHOR", "COMMITTER") for k in ("NAME", "EMAIL")
    }
    with s3_server("team-hqsam") as store, postgres(open_folder) as database:
        home = Home(path, **who, **store, **(database or {}))
        yield home, database is not None
        home.stop(*reversed(UNITS))
        host_client.stop(worktree.place(path / "hqsam", nightly.WORKTREE))


SETTINGS = {"SERVER": "127.0.0.1", "LISTEN": "127.0.0.1", "STORE": "s3://team-hqsam/dvc"}


@pytest.mark.full("a server with two databases, a worker, and the whole pipeline")
@pytest.mark.timeout(3000)
def test_from_nothing_to_a_nightly_run(home: tuple[Home, bool], tmp_path: Path) -> None:
    here, has_postgres = home
    for kind, text in BLOCKS:
        if kind == "settings":
            here.sh(text)
            ours = {**SETTINGS, "ORIGIN": str(tmp_path / "origin.git"), "PORT": str(free_port())}
            here.sh("\n".join(f"export {name}={value}" for name, value in ours.items()))
            here.sh("\n".join(f"export {n}={here.base[n]}" for n in here.base if n[:4] == "AWS_"))
        elif (
            kind == "install"
        ):  # test_containers.py runs these lines in an environment of their own
            here.sh(f"ln -s {shlex.quote(sys.prefix)} .venv")
        elif kind == "systemd":
            for name in re.findall(r"(?:--now|restart) (hqsam-\w+)", text):
                verify(here, name)
                here.start(name)
        elif kind == "" or has_postgres:
            here.sh(text)
    assert_delivered(here)
    assert_pulled(here, tmp_path)
    if not has_postgres:
        pytest.skip(
            "all but the lines on Postgres ran: it is not installed (apt-get install postgresql)"
        )


def verify(here: Home, name: str) -> None:
    """Let systemd itself read the unit, where it is installed."""
    if shutil.which("systemd-analyze"):
        unit = here.path / ".config/systemd/user" / f"{name}.service"
        words = ["systemd-analyze", "--user", "verify", "--man=no", "--recursive-errors=no"]
        kept = {**here.base, "XDG_RUNTIME_DIR": str(here.path)}
        done = subprocess.run(
            [*words, str(unit)], env=kept, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr


def assert_delivered(here: Home) -> None:
    """The branch is at the origin, the schedule is as it was asked for, the server keeps what it was told to."""
    assert "Run of origin/main" in here.sh("cd ~/hqsam && git log -1 origin/nightly")
    for path in (".config/hqsam/server.env", ".config/hqsam/worker.env"):
        assert (here.path / path).stat().st_mode & 0o077 == 0, path
    code = (
        "import json; from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as c:\n"
        "    d = c.read_deployment_by_name('nightly/hqsam')\n"
        "    s = c.request('GET', '/admin/settings').json()['server']\n"
        "print(d.parameters, d.schedules[0].schedule.cron, d.schedules[0].schedule.timezone)\n"
        "print(s['services']['db_vacuum']['enabled'], s['services']['db_vacuum']['retention_period'])\n"
        "print(s['database']['driver'], s['events']['retention_period'])\n"
    )
    told = here.sh(f"python -c {shlex.quote(code)}")
    for words in (
        "'revision': 'origin/main'",
        "0 2 * * *",
        "Europe/Zurich",
        "flow_runs",
        "7776000",
    ):
        assert words in told, told


def assert_pulled(here: Home, tmp_path: Path) -> None:
    """A fresh clone gets the outputs of the night from the S3 API; `dvc repro` then finds nothing to do."""
    here.sh(f"git clone -q -b nightly {tmp_path}/origin.git ~/fresh")
    here.base["PYTHONPATH"] = os.pathsep.join(str(here.path / "fresh" / f) for f in PACKAGE_FOLDERS)
    here.sh("cd ~/fresh && dvc pull --quiet")
    assert "Data and pipelines are up to date." in here.sh("cd ~/fresh && dvc repro")
    assert here.sh("cd ~/fresh && git status --porcelain").strip() == ""
