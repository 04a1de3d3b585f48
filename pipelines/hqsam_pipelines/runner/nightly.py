"""The run that delivers: in a worktree of its own, to a branch, with a comparison, an artifact and a webhook.

What a person was working on in the checkout is neither read nor changed: the worktree is made from
a revision, shares DVC's cache with the checkout and keeps its outputs for the next run. By hand
remains to merge the branch.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_base.terminal import say
from hqsam_pipelines.config import env, variables
from hqsam_pipelines.runner import worktree

WORKTREE = "nightly"
WEBHOOK_URL = "HQSAM_WEBHOOK_URL"
WEBHOOK_ON = "HQSAM_WEBHOOK_ON"
WEBHOOK_S = 10.0


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
    _check_branch(root, branch)
    with worktree.at(root, WORKTREE, revision) as (tree, source):
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
        commit = _commit(tree, branch, f"Run of {revision}: {worktree.masked(line)}")
        if push and worktree.call(tree, [*worktree.DVC, "remote", "default"])[0] == 0:
            failed, output = worktree.call(tree, [*worktree.DVC, "push"])
            if failed:
                cure = "look at `dvc remote list`; the branch is committed, push by hand"
                raise UserError("`dvc push` failed", details=output[-10:], file=tree, cure=cure)
        if push and "origin" in worktree.git(root, "remote").split():
            worktree.git(tree, "push", "--quiet", "--force", "origin", f"refs/heads/{branch}")
    page = str(tree / "reports" / "report.html")
    return Delivery(event, worktree.masked(line), markdown, revision, source, branch, commit, page)


def _check_branch(root: Path, branch: str) -> None:
    """Check that a branch may be replaced, here and on the remote.

    Raises:
        UserError: it is no name of a branch, but stands for one (`@{-1}`), or the branch is checked
            out or the remote's default one.
    """
    if worktree.git(root, "check-ref-format", "--branch", branch) != branch:
        raise UserError("this is not a branch's own name", key="branch", cure="give its name")
    places = ("HEAD", "refs/remotes/origin/HEAD")
    taken = [worktree.call(root, ["git", "symbolic-ref", "--quiet", place])[1] for place in places]
    if [f"refs/heads/{branch}"] in taken or [f"refs/remotes/origin/{branch}"] in taken:
        cure = "give the run a branch of its own, such as `nightly`"
        problem = f"a run replaces its branch, and {branch} holds other work"
        raise UserError(problem, file=root, key="branch", cure=cure)


def _run(tree: Path, workers: int) -> tuple[Mapping[str, list[str]], list[str]]:
    """What `hqsam repro` did in the worktree, and its output.

    Raises:
        UserError: it ended before it ran anything.
    """
    found = tree / env.STATE_DIR / "outcome.json"
    found.unlink(missing_ok=True)
    words = [sys.executable, "-m", "hqsam_pipelines.cli", "repro", "--workers", str(workers)]
    _, output = worktree.call(tree, [*words, "--json", str(found)], said=True)
    if not found.is_file():
        raise UserError("the run did not begin", details=output[-20:], file=tree)
    outcome: Mapping[str, list[str]] = json.loads(found.read_bytes())
    return outcome, output


def compared(tree: Path, before: str, after: str = "workspace") -> tuple[int, str, str]:
    """The exit status of `hqsam compare` for two revisions of a checkout, its one line, and its table."""
    table = tree / env.STATE_DIR / "compare.md"
    table.unlink(missing_ok=True)
    words = [sys.executable, "-m", "hqsam_pipelines.cli", "compare", "--quiet", "--md", str(table)]
    status, output = worktree.call(tree, [*words, "--", before, after])
    line = output[0] if output else "no answer"
    if status > 1:
        problem = line.removeprefix("Error: ").partition(r"\n")[0]  # the rest is file and cure
        line = f"no comparison: {problem}"
    return status, line, table.read_text(encoding="utf-8") if table.is_file() else line


def _commit(tree: Path, branch: str, message: str) -> str:
    """Commit dvc.lock and reports/ and let the branch point there; returns the commit."""
    worktree.git(tree, "add", "--all", "--", "dvc.lock", "reports")
    if worktree.call(tree, ["git", "diff", "--cached", "--quiet"])[0]:
        known = worktree.call(tree, ["git", "config", "user.email"])[0] == 0
        who = [] if known else ["-c", "user.name=hqsam", "-c", "user.email=hqsam@localhost"]
        worktree.git(tree, *who, "commit", "--quiet", "--no-verify", "--message", message)
    worktree.git(tree, "branch", "--force", branch, "HEAD")
    return worktree.git(tree, "rev-parse", "HEAD")


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
            f"the webhook could not be told: {worktree.masked(f'{type(error).__name__}: {error}')}",
            err=True,
        )
        return False
    return True


def events() -> tuple[str, ...]:
    """The events that the webhook is told of.

    Raises:
        UserError: an unknown one.
    """
    found = os.environ.get(WEBHOOK_ON, ",".join(variables.EVENTS))
    names = tuple(name.strip() for name in found.split(",") if name.strip())
    if strange := set(names) - set(variables.EVENTS):
        cure = f"a comma-separated list of: {', '.join(variables.EVENTS)}"
        raise UserError(f"unknown event {min(strange)!r}", key=WEBHOOK_ON, cure=cure)
    return names
