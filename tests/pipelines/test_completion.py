"""Completion in the real shells: what a Tab adds after the printed lines were sourced."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.pipelines.working_copy import bare_repository, environment, git

TABBED = {
    "hqsam hist": "hqsam history ",
    "hqsam compare feat": "hqsam compare feature-1",
    "hqsam compare --only mB": "hqsam compare --only mBIoU",
    "hqsam history --since v1": "hqsam history --since v1.0",
    "hqsam history --metric coi": "hqsam history --metric coift",
    "hqsam history --sin": "hqsam history --since",
}
HOSTILE = "x$(touch${IFS}hacked)"
SOURCED = {
    "bash": 'eval "$(hqsam completion bash)"',
    "zsh": 'autoload -Uz compinit; compinit -u -d .zcompdump; eval "$(hqsam completion zsh)"',
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = bare_repository(tmp_path / "repository")
    tables = root / "reports" / "tables"
    tables.mkdir(parents=True)
    (tables / "overview.csv").write_text("benchmark,prompt_set,metric\ncoift,gt_box,mBIoU\n")
    git(root, "init", "-q")
    git(root, "commit", "-q", "--allow-empty", "-m", "start")
    for name in ("feature-1", HOSTILE):
        git(root, "branch", name)
    git(root, "tag", "v1.0")
    return root


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} (Debian: apt-get install {name})")
    return found


@pytest.mark.parametrize("name", SOURCED)
def test_a_tab_completes_what_was_typed(repository: Path, name: str) -> None:
    plain = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}[name]
    terminal, inside = pty.openpty()
    started = subprocess.Popen(
        [shell(name), *plain],
        cwd=repository,
        env=environment(repository, TERM="dumb", PS1="$ ", HOME=str(repository)),
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    os.close(inside)
    try:
        # no Enter after the Tab: only what is on the line counts
        os.write(terminal, f"unsetopt beep 2>/dev/null; {SOURCED[name]}; echo rea''dy\n".encode())
        said = until(terminal, "ready\r\n")
        for typed, wanted in TABBED.items():
            os.write(terminal, f"{typed}\t".encode())
            assert wanted in until(terminal, wanted), (typed, said)
            os.write(terminal, b"\x15")  # Ctrl-U: an empty line again
        os.write(terminal, b"hqsam compare x\t; echo do''ne\n")
        assert "touch" not in until(terminal, "done\r\n")
    finally:
        started.kill()
        started.wait()
        os.close(terminal)
    assert not (repository / "hacked").exists()


def until(terminal: int, wanted: str, timeout: float = 30) -> str:
    """What a terminal shows until it has shown a text, or until the time is over."""
    shown, end = "", time.monotonic() + timeout
    while wanted not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def test_fish_offers_the_same(repository: Path) -> None:
    asked = "; ".join(f"complete -C '{typed}'" for typed in (*TABBED, "hqsam compare x"))
    done = subprocess.run(
        [shell("fish"), "--no-config", "-c", f"hqsam completion fish | source; {asked}"],
        cwd=repository,
        env=environment(repository, HOME=str(repository)),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    offered = {line.partition("\t")[0] for line in done.stdout.splitlines()}
    assert offered >= {"history", "feature-1", "mBIoU", "v1.0", "coift", "--since"}
    assert not any("touch" in name for name in offered)
