"""Reads files, commits and their order from git, without a checkout; a commit's name "" is the files on disk."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path, PurePosixPath

from hqsam_base.errors import UserError
from hqsam_pipelines.config.strict import MAX_BYTES

METRICS = "reports/metrics"
_METRICS_NAME = re.compile(r"[A-Za-z0-9_.-]+\.json")
_MOST_METRICS = 2000
_MOST_METRICS_BYTES = 16 * MAX_BYTES  # git keeps a thousand equal files as one
_SUBJECT = 300  # characters of a commit's subject that are shown


class GitFiles:
    """The files of a folder in a git repository, at any commit.

    Args:
        root: the folder (may be below the git repository's top).

    Raises:
        UserError: git is not installed, or the folder is not in a git repository.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        done = _git(root, "rev-parse", "--show-prefix")
        if done.returncode:
            raise UserError(
                "this is not a git repository",
                file=root,
                cure="run the command inside the repository",
            )
        self._prefix = PurePosixPath(done.stdout.decode().strip())

    def read(self, sha: str, path: str) -> bytes | None:
        """A file at a commit, or on disk without one; None if there is none.

        Raises:
            UserError: it is larger than a file of ours can be.
        """
        if not sha:
            file = self.root / path
            return file.read_bytes() if file.is_file() else None
        place = f"{sha}:{self._prefix / path}"
        size = _git(self.root, "cat-file", "-s", place)
        if size.returncode:
            return None
        if int(size.stdout) > MAX_BYTES:
            problem = f"the file has {int(size.stdout)} bytes, the limit is {MAX_BYTES}"
            raise UserError(problem, file=f"{path} at {sha[:12]}", cure="choose another revision")
        done = _git(self.root, "cat-file", "blob", place)
        return done.stdout if not done.returncode else None

    def metrics(self, sha: str) -> list[tuple[str, bytes]]:
        """The metrics files of a commit: path and content, by name.

        Raises:
            UserError: there are too many, they are too large together, or one has a name that none
                of ours has.
        """
        if not sha:
            files = sorted((self.root / METRICS).glob("*.json"))
            return [(f"{METRICS}/{f.name}", f.read_bytes()) for f in files]
        listed = _git(self.root, "ls-tree", "-z", "--name-only", sha, f"{METRICS}/").stdout.decode(
            errors="replace"
        )
        names = sorted(
            PurePosixPath(path).name for path in listed.split("\0") if path.endswith(".json")
        )
        strange = next((name for name in names if not _METRICS_NAME.fullmatch(name)), None)
        if strange is not None or len(names) > _MOST_METRICS:
            problem = (
                f"{len(names)} metrics files" if strange is None else "no name of a metrics file"
            )
            raise UserError(
                f"{problem} at {sha[:12]}",
                file=METRICS,
                key=strange,
                cure="choose another revision",
            )
        found, total = [], 0
        for path in (f"{METRICS}/{name}" for name in names):
            found.append((path, self.read(sha, path) or b""))
            total += len(found[-1][1])
            if total > _MOST_METRICS_BYTES:
                raise UserError(
                    f"the metrics files have more than {_MOST_METRICS_BYTES} bytes together",
                    file=f"{METRICS} at {sha[:12]}",
                    cure="choose another revision",
                )
        return found

    def commit(self, name: str) -> tuple[str, str]:
        """The commit and the subject of a revision.

        Raises:
            UserError: git knows no such revision.
        """
        if name.startswith("-"):
            raise UserError("a revision cannot begin with a dash", key=name)
        done = _git(
            self.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        )
        if done.returncode:
            raise UserError(
                "git knows no such revision",
                file=self.root,
                key=name,
                cure="name a commit, branch or tag; a shallow clone needs `git fetch --unshallow`",
            )
        sha = done.stdout.decode().strip().splitlines()[-1]
        subject = (
            _git(self.root, "show", "--no-patch", "--format=%s", sha)
            .stdout.decode(errors="replace")
            .strip()
        )
        return sha, subject[:_SUBJECT]

    def commits_between(self, a: str, b: str) -> list[str]:
        """Short lines of the commits in b that are not in a, newest first; empty if either is the workspace."""
        if not a or not b:
            return []
        done = _git(
            self.root, "log", "--no-decorate", "--format=%h %s", f"{a}..{b}", "--max-count=50"
        )
        lines = done.stdout.decode(errors="replace").split("\n") if not done.returncode else []
        return [line[:_SUBJECT] for line in lines if line]

    def with_report(self, path: str, since: str | None) -> list[tuple[str, str, str]]:
        """The commits that changed a file, oldest first: commit, date, subject.

        Args:
            path: the file.
            since: the first revision; None: the whole history.

        Raises:
            UserError: the revision does not exist.
        """
        first = None if since is None else self.commit(since)[0]
        log = ["log", "--reverse", "--format=%H%x1f%cs%x1f%s"]
        found: list[tuple[str, str, str]] = []
        for span in [f"-1 {first}", f"{first}..HEAD"] if first else ["HEAD"]:
            done = _git(self.root, *log, *span.split(), "--", path)
            # not `splitlines`: a subject may hold what Python, unlike git, takes for a line's end
            for line in done.stdout.decode(errors="replace").split("\n")[:-1]:
                sha, date, subject = line.split("\x1f", 2)
                found.append((sha, date, subject[:_SUBJECT]))
        return found


def names(root: Path) -> list[str]:
    """Branches and tags of the repository around a folder; none if there is none."""
    done = _git(root, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags")
    return done.stdout.decode(errors="replace").split("\n")[:-1] if not done.returncode else []


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=False
        )
    except FileNotFoundError:
        raise UserError("git is not installed", cure="install git") from None
