"""The run that delivers: in a worktree of its own, to a branch, with a comparison, an artifact and a webhook.

What a person was working on in the checkout is neither read nor changed: the worktree is made from
a revision, shares DVC's cache with the checkout and keeps its outputs for the next run. By hand
remains to merge the branch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hqsam_base.atomic import write_bytes
from hqsam_base.errors import UserError
from hqsam_base.locks import FileLock
from hqsam_base.safe_text import shown
from hqsam_base.terminal import say
from hqsam_pipelines.config import env
from hqsam_pipelines.runner import dvc_locks

WORKTREE = Path(env.STATE_DIR) / "worktrees" / "nightly"
WEBHOOK_URL = "HQSAM_WEBHOOK_URL"
WEBHOOK_ON = "HQSAM_WEBHOOK_ON"
EVENTS = ("success", "failure", "regression")
WEBHOOK_S = 10.0
_SECRET_WORDS = ("SECRET", "TOKEN", "PASSWORD", "AUTH_STRING", "ACCESS_KEY", "WEBHOOK_URL")


@dataclass(frozen=True)
class Delivery:
    """What a run left.

    Attributes:
        event: success, failure (a stage failed) or regression (a headline number is worse).
        line: The answer in one line.
        markdown: The answer with the headline table.
        revision: What was asked for.
        source: Its commit.
        branch: Where dvc.lock and reports/ were committed.
        commit: The branch's commit.
        report: The report's page.
    """

    event: str
    line: str
    markdown: str
    revision: str
    source: str
    branch: str
    commit: str
    report: str


def deliver(
    root: Path, revision: str, *, branch: str, target: str, workers: int, push: bool
) -> Delivery:
    """Run the pipeline at a revision, and commit, push and compare what came out.

    Args:
        root: The checkout.
        revision: A commit, branch or tag.
        branch: Gets one commit on top of the revision; an earlier one of this name is replaced.
        target: The revision whose report is compared with.
        workers: Stages at the same time.
        push: Push the branch to the git remote `origin`, and outputs to DVC's default remote, if
            there are such.

    Raises:
        UserError: an unknown revision, a branch that cannot be written, or a failure left no report to deliver.
    """
    _git(root, "check-ref-format", "--branch", branch)
    lock = FileLock(env.make_state_dir(root) / "nightly.lock")
    dvc_locks.wait(lambda: lock.acquire(0), lambda: "another delivery", root / env.STATE_DIR)
    try:
        source = _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        tree = _worktree(root, source)
        outcome, output = _run(tree, workers)
        if "report" in (*outcome["failed"], *outcome["blocked"]):
            problem = f"no new report, as these failed: {', '.join(outcome['failed'])}"
            raise UserError(problem, details=output[-20:], file=tree)
        status, line, markdown = compared(tree, target)
        if outcome["failed"]:
            event = "failure"
            lacking = f"; the report lacks {', '.join(outcome['absent'])}" * bool(outcome["absent"])
            line = f"failed: {', '.join(outcome['failed'])}{lacking}. {line}"
        else:
            event = "regression" if status == 1 else "success"
        commit = _commit(tree, branch, f"Run of {revision}: {masked(line)}")
        if push and _call(tree, [sys.executable, "-m", "dvc", "remote", "default"])[0] == 0:
            failed, output = _call(tree, [sys.executable, "-m", "dvc", "push"])
            if failed:
                cure = "look at `dvc remote list`; the branch is committed, push by hand"
                raise UserError("`dvc push` failed", details=output[-10:], file=tree, cure=cure)
        if push and "origin" in _git(root, "remote").split():
            _git(tree, "push", "--quiet", "--force", "origin", f"refs/heads/{branch}")
    finally:
        lock.release()
    page = str(tree / "reports" / "report.html")
    return Delivery(event, masked(line), markdown, revision, source, branch, commit, page)


def _worktree(root: Path, commit: str) -> Path:
    """The worktree, at the commit, with what DVC's cache holds of that commit's outputs.

    It shares the cache and the remotes of the checkout's own configuration (`.dvc/config.local`).
    """
    from configobj import ConfigObj

    from hqsam_pipelines.config import dvc_site

    tree = root / WORKTREE
    if not (tree / ".git").exists():
        _git(root, "worktree", "prune")
        _git(root, "worktree", "add", "--force", "--detach", str(tree), commit)
    _git(tree, "checkout", "--quiet", "--force", "--detach", commit)
    with dvc_site.open_repo(root) as repo:
        cache = repo.cache.local.path
    local = root / ".dvc" / "config.local"
    config = ConfigObj(str(local)) if local.is_file() else ConfigObj()
    for section in config.sections:
        url = str(config[section].get("url", ""))
        if url.startswith("."):  # DVC writes local remotes relative to the file
            config[section]["url"] = str((root / ".dvc" / url).resolve())
    config.setdefault("core", {}).pop("site_cache_dir", None)  # each checkout has its own
    config.setdefault("cache", {})["dir"] = str(Path(cache).resolve())
    config.filename = None
    write_bytes(tree / ".dvc" / "config.local", "\n".join([*config.write(), ""]).encode())
    dvc_site.configure(tree)
    _call(tree, [sys.executable, "-m", "dvc", "checkout", "--force", "--allow-missing"])
    return tree


def _run(tree: Path, workers: int) -> tuple[Mapping[str, list[str]], list[str]]:
    """What `hqsam repro` did in the worktree, and its output.

    Raises:
        UserError: it ended before it ran anything.
    """
    found = tree / env.STATE_DIR / "outcome.json"
    found.unlink(missing_ok=True)
    words = [sys.executable, "-m", "hqsam_pipelines.cli", "repro", "--workers", str(workers)]
    _, output = _call(tree, [*words, "--json", str(found)], said=True)
    if not found.is_file():
        raise UserError("the run did not begin", details=output[-20:], file=tree)
    outcome: Mapping[str, list[str]] = json.loads(found.read_bytes())
    return outcome, output


def compared(tree: Path, before: str, after: str = "workspace") -> tuple[int, str, str]:
    """The exit status of `hqsam compare` for two revisions of a checkout, its one line, and its table."""
    table = tree / env.STATE_DIR / "compare.md"
    table.unlink(missing_ok=True)
    words = [sys.executable, "-m", "hqsam_pipelines.cli", "compare", "--quiet", "--md", str(table)]
    status, output = _call(tree, [*words, "--", before, after])
    line = output[0] if output else "no answer"
    if status > 1:
        problem = line.removeprefix("Error: ").partition(r"\n")[0]  # the rest is file and cure
        line = f"no comparison: {problem}"
    return status, line, table.read_text(encoding="utf-8") if table.is_file() else line


def _commit(tree: Path, branch: str, message: str) -> str:
    """Commit dvc.lock and reports/ and let the branch point there; returns the commit."""
    _git(tree, "add", "--all", "--", "dvc.lock", "reports")
    if _call(tree, ["git", "diff", "--cached", "--quiet"])[0]:
        known = _call(tree, ["git", "config", "user.email"])[0] == 0
        who = [] if known else ["-c", "user.name=hqsam", "-c", "user.email=hqsam@localhost"]
        _git(tree, *who, "commit", "--quiet", "--no-verify", "--message", message)
    _git(tree, "branch", "--force", branch, "HEAD")
    return _git(tree, "rev-parse", "HEAD")


def notify(delivery: Delivery) -> bool:
    """Tell the webhook, if one is set (`HQSAM_WEBHOOK_URL`) and wants this event (`HQSAM_WEBHOOK_ON`).

    The body is JSON; its `text` is what Slack and its like show. A webhook that fails ends no run.

    Returns:
        Whether it was told.

    Raises:
        UserError: `HQSAM_WEBHOOK_ON` names an unknown event.
    """
    url, wanted = os.environ.get(WEBHOOK_URL), events()
    if not url or delivery.event not in wanted:
        return False
    import httpx

    body = {name: value for name, value in asdict(delivery).items() if name != "markdown"}
    text = f"HQ-SAM pipeline, {delivery.event}: {delivery.line} (branch {delivery.branch})"
    try:
        answer = httpx.post(url, json={"text": text, **body}, timeout=WEBHOOK_S)
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        # httpx's text holds the address as it was sent, which `masked` does not know, and that of a
        # redirect
        say(f"the webhook could not be told: it answers {error.response.status_code}", err=True)
        return False
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        say(
            f"the webhook could not be told: {masked(f'{type(error).__name__}: {error}')}", err=True
        )
        return False
    return True


def events() -> tuple[str, ...]:
    """The events that the webhook is told of.

    Raises:
        UserError: an unknown one.
    """
    found = os.environ.get(WEBHOOK_ON, ",".join(EVENTS))
    names = tuple(name.strip() for name in found.split(",") if name.strip())
    if strange := set(names) - set(EVENTS):
        cure = f"a comma-separated list of: {', '.join(EVENTS)}"
        raise UserError(f"unknown event {min(strange)!r}", key=WEBHOOK_ON, cure=cure)
    return names


def masked(text: str) -> str:
    """Text without the secrets of this process's environment."""
    values = [v for k, v in os.environ.items() if any(word in k.upper() for word in _SECRET_WORDS)]
    for value in sorted((value for value in values if len(value) >= 6), key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def _git(folder: Path, *words: str) -> str:
    status, output = _call(folder, ["git", *words])
    if status:
        raise UserError(f"`git {words[0]}` failed", details=output[-5:], file=folder)
    return "\n".join(output).strip()


def _call(folder: Path, words: list[str], *, said: bool = False) -> tuple[int, list[str]]:
    """Run a command in a folder; its exit status and lines, secrets masked."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    lines: list[str] = []
    with subprocess.Popen(
        words,
        cwd=folder,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(masked(shown(line.rstrip())))
            if said and line.strip():
                say(lines[-1])
    return process.returncode, lines
