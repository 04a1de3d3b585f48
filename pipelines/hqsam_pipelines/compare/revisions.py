"""Reads a run at a git revision without a checkout: files from git, DVC outputs from the cache through dvc.lock.

The workspace (``WORKSPACE``) is a revision too: its files are read from disk, and a table that is
not there is looked for in the cache through the workspace's dvc.lock.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from hqsam_base.errors import UserError
from hqsam_pipelines.config import dvc_site
from hqsam_pipelines.config.strict import (
    MAX_BYTES,
    Digest,
    Name,
    Outline,
    outlined,
    parse_json,
    parse_yaml,
)
from hqsam_pipelines.report.kept_tables import FOLDER, SUFFIX, unpacked
from hqsam_pipelines.report.results import Result, parse_metrics, refuse_twins
from hqsam_pipelines.report.units import units_frame

if TYPE_CHECKING:
    import pandas as pd

    from hqsam_metrics.ap.resample import Matches

WORKSPACE = "workspace"
METRICS = "reports/metrics"
_METRICS_NAME = re.compile(r"[A-Za-z0-9_.-]+\.json")
_MOST_METRICS = 2000
_SUBJECT = 300  # characters of a commit's subject that are shown


class NotAvailableError(Exception):
    """A DVC output of a revision that is unavailable here.

    Attributes:
        folder: the output.
        where: the revision.
        why: the reason.
        cure: what would bring it; empty if nothing is known to.
    """

    def __init__(self, folder: str, where: str, why: str, cure: str = "") -> None:
        self.folder, self.where, self.why, self.cure = folder, where, why, cure
        super().__init__(f"the files of {folder} at {where} {why}")


def unavailable(errors: Sequence[NotAvailableError]) -> str:
    """One sentence for outputs of one revision that are missing for the same reason."""
    first = errors[0]
    folders = dict.fromkeys(error.folder for error in errors)
    names = ", ".join(folder.rpartition("/")[2] for folder in folders)
    cure = f"; {first.cure}" if first.cure else ""
    return f"no intervals for {names}: the per-instance tables at {first.where} {first.why}{cure}"


class _AbsentError(Exception):
    """An object that neither the cache nor the remote has."""


@dataclass(frozen=True)
class Revision:
    """A run at one revision.

    Attributes:
        name: as the user gave it.
        sha: the commit; empty for the workspace.
        subject: first line of the commit message.
        results: its metrics.
        params: its params.yaml.
        outputs: DVC output path to MD5 (``.dir`` for folders), from its dvc.lock.
        metrics: path of each metrics file to the MD5 of its content.
        made_with: key of params.yaml to the value that its dvc.lock says the metrics were made
            with.
        provenance: its reports/provenance.json; empty if it has none.
        repository: where it was read.
    """

    name: str
    sha: str
    subject: str
    results: tuple[Result, ...]
    params: Mapping[str, Any]
    outputs: Mapping[str, str]
    metrics: Mapping[str, str]
    made_with: Mapping[str, Any]
    provenance: Mapping[str, Any]
    repository: Repository = field(repr=False)

    @property
    def label(self) -> str:
        """The name with the short commit."""
        if self.sha.startswith(self.name):
            return self.sha[:9]
        return f"{self.name} ({self.sha[:9]})" if self.sha else self.name

    def file(self, path: str) -> bytes | None:
        """A file of the revision, None if it has none.

        Raises:
            UserError: it is too large.
        """
        return self.repository.read(self.sha, path)

    def agrees(self, folder: str) -> bool | None:
        """Whether the metrics of a run are those that dvc.lock speaks of, and so go with the outputs that it names.

        Args:
            folder: an output of the run, such as data/scores/coco-nano.

        Returns:
            None if it is unknown: dvc.lock does not have them, or the folder belongs to no single
            run.
        """
        path = f"{METRICS}/{PurePosixPath(folder).name}.json"
        found, recorded = self.metrics.get(path), self.outputs.get(path)
        return None if found is None or recorded is None else found == recorded

    def units(self, benchmark: str, model: str) -> pd.DataFrame:
        """The per-instance table of one benchmark.

        Raises:
            NotAvailableError: neither the workspace nor the cache nor a remote has it.
            UserError: it is damaged.
        """
        folder = f"data/scores/{benchmark}-{model}"
        source = self.repository.output_file(self, folder, "instances.parquet")
        return units_frame(source, f"{folder}/instances.parquet at {self.label}")

    def matches(self, benchmark: str, model: str, prompt_set: str, system: str) -> Matches:
        """The matches of one system: what its AP is resampled from.

        Raises:
            NotAvailableError: neither the workspace nor the cache nor a remote has them.
            UserError: they are damaged.
        """
        from hqsam_metrics.matches_file import MATCHES, TRUTH, read_matches

        folder = f"data/scores/{benchmark}-{model}"
        if MATCHES not in self.repository.output_names(self, folder):
            why = "were written before matches were kept beside them: score that revision again"
            raise NotAvailableError(folder, self.label, why)
        files = {name: self.repository.output_file(self, folder, name) for name in (MATCHES, TRUTH)}
        return read_matches(files, prompt_set, system, f"{folder} at {self.label}")


class Repository:
    """A DVC project inside a git repository.

    Args:
        root: the folder with dvc.yaml (may be below the git repository's top).

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
        self._tables: dict[tuple[str, str], Mapping[str, bytes]] = {}

    def revision(self, name: str) -> Revision:
        """Reads a run.

        Raises:
            UserError: the revision does not exist, or has no metrics.
        """
        sha, subject = ("", "files on disk") if name == WORKSPACE else self._commit(name)
        files = self._metrics(sha)
        results = [r for path, text in files for r in parse_metrics(text, f"{path} at {name}")]
        refuse_twins(results, f"{METRICS} at {name}")
        if not results:
            raise UserError(
                f"there are no metrics at {name}",
                file=METRICS,
                cure="run `dvc repro`"
                if not sha
                else "choose a revision at which reports/metrics was committed",
            )
        params = self._yaml(_Params, sha, "params.yaml", name)
        lock = self._yaml(_Lock, sha, "dvc.lock", name)
        metrics = {
            path: hashlib.md5(text, usedforsecurity=False).hexdigest() for path, text in files
        }
        made_with = lock_params(lock, {(r.benchmark, r.model) for r in results})
        return Revision(
            name,
            sha,
            subject,
            tuple(results),
            params,
            lock_outputs(lock),
            metrics,
            made_with,
            self._provenance(sha, name),
            self,
        )

    def _provenance(self, sha: str, name: str) -> Mapping[str, Any]:
        path = "reports/provenance.json"
        text = self.read(sha, path)
        content = {} if text is None else parse_json(text, f"{path} at {name}")
        return content if isinstance(content, Mapping) else {}

    def output_file(self, revision: Revision, folder: str, name: str) -> Path | io.BytesIO:
        """A file of a DVC output folder at a revision: a path, or the content if it came from a remote.

        Raises:
            NotAvailableError: it is unavailable here.
        """
        disk, agrees = self.root / folder / name, revision.agrees(folder)
        if (
            not revision.sha
            and disk.is_file()
            and self._goes_with_metrics(disk, revision.outputs.get(folder), agrees)
        ):
            return disk
        committed = self.committed(revision, folder)
        if name in committed:
            return io.BytesIO(committed[name])
        if agrees is False:
            why = (
                "are of another run than its metrics: commit dvc.lock together with reports/, or "
                "run `dvc repro`"
            )
            raise NotAvailableError(folder, revision.label, why)
        md5 = revision.outputs.get(folder)
        if md5 is None:
            raise NotAvailableError(folder, revision.label, "are not in its dvc.lock")
        try:
            return self._from_folder(md5, name)
        except _AbsentError as error:
            raise NotAvailableError(
                folder, revision.label, *self._absent(revision, error)
            ) from error

    def _absent(self, revision: Revision, error: _AbsentError) -> tuple[str, str]:
        """Why an output is not here, and what would bring it: nothing that was tried already."""
        why = f"are neither in {FOLDER} nor in the local cache ({error})"
        if not revision.sha:
            return why, "run `dvc repro`"
        run = f"run `dvc repro` at {revision.label} and commit reports/"
        return why, f"`dvc push` where that run was made, or {run}"

    def committed(self, revision: Revision, folder: str) -> Mapping[str, bytes]:
        """The tables of an output that lie in git (on disk, for the workspace) and belong to the revision's metrics; else none.

        Raises:
            UserError: the archive is damaged.
        """
        key = revision.sha, folder
        if key not in self._tables:
            name = PurePosixPath(folder).name
            path, metrics = (
                f"{FOLDER}/{name}{SUFFIX}",
                revision.metrics.get(f"{METRICS}/{name}.json"),
            )
            archive = self.read(revision.sha, path) if folder.startswith("data/scores/") else None
            found: tuple[dict[str, bytes], str] = ({}, "")
            if archive is not None and metrics is not None:
                found = unpacked(archive, f"{path} at {revision.label}")
            self._tables[key] = found[0] if found[1] == metrics else {}
        return self._tables[key]

    def _goes_with_metrics(self, disk: Path, folder_md5: str | None, agrees: bool | None) -> bool:
        """Whether a folder on disk is of the run whose metrics are on disk: both are what dvc.lock records, or neither is."""
        if folder_md5 is None or agrees is None:
            return True
        try:
            listed = {entry["relpath"]: entry["md5"] for entry in self._listing(folder_md5)}
        except _AbsentError:
            return True
        # A file may be the same in both runs, as the ground truth of matches is: the folder decides.
        return all(self._is(disk.with_name(name), md5) for name, md5 in listed.items()) == agrees

    @staticmethod
    def _is(path: Path, md5: str) -> bool:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == md5

    def output_names(self, revision: Revision, folder: str) -> list[str]:
        """Names of the files of a DVC output folder at a revision (see `output_file`)."""
        if not revision.sha and (self.root / folder).is_dir():
            return sorted(path.name for path in (self.root / folder).iterdir() if path.is_file())
        committed = self.committed(revision, folder)
        if committed:
            return sorted(committed)
        md5 = revision.outputs.get(folder)
        if md5 is None:
            raise NotAvailableError(folder, revision.label, "are not in its dvc.lock")
        try:
            return sorted(entry["relpath"] for entry in self._listing(md5))
        except _AbsentError as error:
            raise NotAvailableError(
                folder, revision.label, *self._absent(revision, error)
            ) from error

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
        first = None if since is None else self._commit(since)[0]
        log = ["log", "--reverse", "--format=%H%x1f%cs%x1f%s"]
        found: list[tuple[str, str, str]] = []
        for span in [f"-1 {first}", f"{first}..HEAD"] if first else ["HEAD"]:
            done = _git(self.root, *log, *span.split(), "--", path)
            # not `splitlines`: a subject may hold what Python, unlike git, takes for a line's end
            for line in done.stdout.decode(errors="replace").split("\n")[:-1]:
                sha, date, subject = line.split("\x1f", 2)
                found.append((sha, date, subject[:_SUBJECT]))
        return found

    def _commit(self, name: str) -> tuple[str, str]:
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

    def _metrics(self, sha: str) -> list[tuple[str, bytes]]:
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
        return [(f"{METRICS}/{n}", self.read(sha, f"{METRICS}/{n}") or b"") for n in names]

    def _yaml(self, kind: type[Outline], sha: str, path: str, name: str) -> Mapping[str, Any]:
        """A YAML file of a revision as it is, once it is known to look like `kind`; empty if there is none."""
        where = f"{path} at {name}"
        content = parse_yaml(self.read(sha, path) or b"", where)
        outlined(kind, content or {}, where)
        return content or {}

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

    @functools.cached_property
    def _cache(self) -> Path:
        from dvc.config import Config

        folder = self.root / ".dvc"
        given = (
            Config(dvc_dir=str(folder), validate=False).get("cache", {}).get("dir")
            if folder.is_dir()
            else None
        )
        return Path(folder / "cache" if given is None else given)

    def _from_folder(self, md5: str, name: str) -> Path | io.BytesIO:
        """A file of a cached folder, given the MD5 of its listing."""
        found = next(
            (entry["md5"] for entry in self._listing(md5) if entry["relpath"] == name), None
        )
        if found is None:
            raise _AbsentError(f"it holds no {name}")
        return self._object(found)

    def _listing(self, md5: str) -> list[dict[str, str]]:
        source, where = self._object(md5), f"DVC's listing {md5}"
        text = source.read_bytes() if isinstance(source, Path) else source.getvalue()
        found = outlined(_Listing, {"entries": parse_json(text, where)}, where)
        return [{"relpath": entry.relpath, "md5": entry.md5} for entry in found.entries]

    def _object(self, md5: str) -> Path | io.BytesIO:
        """An object of the local cache, or of the remote that the workspace is configured for."""
        # DVC 3 keeps objects below files/md5; caches made by DVC 2 have them at the top.
        places = (
            self._cache / "files" / "md5" / md5[:2] / md5[2:],
            self._cache / md5[:2] / md5[2:],
        )
        found = next((place for place in places if place.is_file()), None)
        if found is not None:
            return found
        if self._remote is None:
            raise _AbsentError("no remote is configured")
        try:
            data = self._remote.fs.cat_file(self._remote.oid_to_path(md5))
        except (
            Exception
        ) as error:  # whatever the remote's client raises: the comparison goes on without the table
            raise _AbsentError(f"nor on the remote: {type(error).__name__}") from error
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5.removesuffix(".dir"):
            raise _AbsentError("what the remote has under its digest are other bytes")
        return io.BytesIO(data)

    @functools.cached_property
    def _remote(self) -> Any:
        """DVC's object database of the default remote, None without one."""
        from dvc.config import Config

        if (
            not (self.root / ".dvc").is_dir()
            or not Config(dvc_dir=str(self.root / ".dvc"), validate=False)["remote"]
        ):
            return None
        try:
            return dvc_site.open_repo(self.root).cloud.get_remote_odb(hash_name="md5")
        except (
            Exception
        ) as error:  # no default among several remotes, a missing extra, bad credentials
            raise _AbsentError(
                f"the remote cannot be used: {type(error).__name__}: {error}"
            ) from error


class _Out(Outline):
    path: str
    md5: Digest | None = None


class _LockStage(Outline):
    outs: tuple[_Out, ...] = ()
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)


class _Lock(Outline):
    """What is read of a dvc.lock: digests become paths of the cache."""

    stages: dict[str, _LockStage] = Field(default_factory=dict)


class _Benchmark(Outline):
    index: dict[str, Any] = Field(default_factory=dict)
    score: dict[str, Any] = Field(default_factory=dict)


class _Params(Outline):
    """What is read of the params.yaml of any age."""

    benchmarks: dict[Name, _Benchmark] = Field(default_factory=dict)
    models: dict[Name, dict[str, Any]] = Field(default_factory=dict)


class _Entry(Outline):
    relpath: str
    md5: Digest

    @field_validator("relpath")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if (
            PurePosixPath(path).is_absolute()
            or ".." in path.split("/")
            or "\\" in path
            or not path.isprintable()
        ):
            raise ValueError("its path leaves the folder")
        return path


class _Listing(Outline):
    entries: tuple[_Entry, ...]


def lock_outputs(lock: Mapping[str, Any]) -> dict[str, str]:
    """Output path to MD5 of every stage in a dvc.lock."""
    stages = lock.get("stages", {})
    outs = [out for stage in stages.values() for out in stage.get("outs", ())]
    return {out["path"]: out["md5"] for out in outs if out.get("md5") is not None}


_WHOLE = ("overlap", "validate", "shard", "augment")


def lock_params(lock: Mapping[str, Any], runs: set[tuple[str, str]]) -> dict[str, Any]:
    """The values of params.yaml that a dvc.lock records of the stages before the metrics of `runs`, by dotted key.

    A dvc.lock keeps stages that the profile no longer has; those are passed over.
    """
    names = {
        f"{verb}@{benchmark}-{model}" for benchmark, model in runs for verb in ("predict", "score")
    }
    names |= {f"index@{benchmark}" for benchmark, _ in runs} | {
        f"train@{model}" for _, model in runs
    }
    found: dict[str, Any] = {}
    for name, stage in lock.get("stages", {}).items():
        if name in names or name in _WHOLE:
            found |= stage.get("params", {}).get("params.yaml", {})
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
