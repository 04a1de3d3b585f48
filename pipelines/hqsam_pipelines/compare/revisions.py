"""Reads a run at a git revision without a checkout: files from git, DVC outputs from the cache through dvc.lock.

The workspace (``WORKSPACE``) is a revision too: its files are read from disk, and a table that is
not there is looked for in the cache through the workspace's dvc.lock.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hqsam_base.errors import UserError
from hqsam_pipelines.compare.dvc_cache import AbsentError, DvcCache
from hqsam_pipelines.compare.git_files import METRICS, GitFiles
from hqsam_pipelines.compare.recorded import Lock, RunParams, lock_outputs, lock_params
from hqsam_pipelines.config.strict import Outline, outlined, parse_json, parse_yaml
from hqsam_pipelines.report.kept_tables import FOLDER, SUFFIX, unpacked
from hqsam_pipelines.report.results import Result, parse_metrics, refuse_twins
from hqsam_pipelines.report.units import units_frame

if TYPE_CHECKING:
    import pandas as pd

    from hqsam_metrics.ap.resample import Matches

WORKSPACE = "workspace"


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


def unavailable(errors: Sequence[NotAvailableError]) -> list[str]:
    """One sentence for the outputs of one revision that are missing for the same reason."""
    groups: dict[tuple[str, str], list[NotAvailableError]] = {}
    for error in errors:
        groups.setdefault((error.where, error.why), []).append(error)
    sentences = []
    for (where, why), group in groups.items():
        folders = dict.fromkeys(error.folder for error in group)
        names = ", ".join(folder.rpartition("/")[2] for folder in folders)
        cure = f"; {group[0].cure}" if group[0].cure else ""
        sentences.append(
            f"no intervals for {names}: the per-instance tables at {where} {why}{cure}"
        )
    return sentences


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


class Repository(GitFiles):
    """A DVC project inside a git repository.

    Args:
        root: the folder with dvc.yaml (may be below the git repository's top).

    Raises:
        UserError: git is not installed, or the folder is not in a git repository.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._cache = DvcCache(root)
        self._tables: dict[tuple[str, str], Mapping[str, bytes]] = {}

    def revision(self, name: str) -> Revision:
        """Reads a run.

        Raises:
            UserError: the revision does not exist, or has no metrics.
        """
        sha, subject = ("", "files on disk") if name == WORKSPACE else self.commit(name)
        files = self.metrics(sha)
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
        params = self._yaml(RunParams, sha, "params.yaml", name)
        lock = self._yaml(Lock, sha, "dvc.lock", name)
        metrics = {
            path: hashlib.md5(text, usedforsecurity=False).hexdigest() for path, text in files
        }
        made_with = lock_params(lock, {(r.benchmark, r.model) for r in results})
        path = "reports/provenance.json"
        text = self.read(sha, path)
        provenance = {} if text is None else parse_json(text, f"{path} at {name}")
        return Revision(
            name,
            sha,
            subject,
            tuple(results),
            params,
            lock_outputs(lock),
            metrics,
            made_with,
            provenance if isinstance(provenance, Mapping) else {},
            self,
        )

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
            found = self._cache.files(md5).get(name)
            if found is None:
                raise AbsentError(f"it holds no {name}")
            return self._cache.object(found)
        except AbsentError as error:
            raise NotAvailableError(
                folder, revision.label, *self._absent(revision, error)
            ) from error

    def _absent(self, revision: Revision, error: AbsentError) -> tuple[str, str]:
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
            listed = self._cache.files(folder_md5)
        except AbsentError:
            return True
        # A file may be the same in both runs, as the ground truth of matches is: the folder decides.
        return all(_is(disk.with_name(name), md5) for name, md5 in listed.items()) == agrees

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
            return sorted(self._cache.files(md5))
        except AbsentError as error:
            raise NotAvailableError(
                folder, revision.label, *self._absent(revision, error)
            ) from error

    def _yaml(self, kind: type[Outline], sha: str, path: str, name: str) -> Mapping[str, Any]:
        """A YAML file of a revision as it is, once it is known to look like `kind`; empty if there is none."""
        where = f"{path} at {name}"
        content = parse_yaml(self.read(sha, path) or b"", where)
        outlined(kind, content or {}, where)
        return content or {}


def _is(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5
