"""What all stages share: from the command line to the library call and back to an exit status.

A stage module is `stages/<verb>.py` with the constant `STAGE`; its command is `python -m
hqsam_pipelines.stages.<verb> [NAME ...]`, the names left out where DVC runs it. It reads
params.yaml, makes one library call inside one Prefect flow, and leaves its cost in
reports/provenance.json. A message for a person is printed without a traceback; the exit status is
then 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hqsam_base import own_code
from hqsam_base.errors import UserError
from hqsam_base.progress import Progress, silent
from hqsam_base.terminal import say, say_traceback
from hqsam_pipelines.config import dvc_site, env
from hqsam_pipelines.runner import host_client

if TYPE_CHECKING:
    from hqsam_pipelines.config.params import Params

Section = Literal["archives", "sources", "benchmarks", "models"]


READS_WHOLE_FOLDERS = frozenset({"overlap", "validate", "shard", "report"})
"""Stages whose deps are folders such as data/samples as a whole: nothing of another profile may lie there."""


@dataclass(frozen=True)
class Job:
    """One stage run.

    Attributes:
        root: The repository. The process's current folder is this one, too.
        params: The active profile.
        names: The entries that the run is for, in the order of `Stage.per`: `("dis_vd", "nano")`.
        progress: told how far the work is.
        figures: What the library says of its own speed; goes to reports/provenance.json and, as an
            artifact, to the Prefect server.
    """

    root: Path
    params: Params
    names: tuple[str, ...] = ()
    progress: Progress = silent
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The first name."""
        return self.names[0]

    def samples(self) -> dict[str, Path]:
        """The folder of every training source, in the order of params.yaml."""
        return {name: self.root / "data" / "samples" / name for name in self.params.sources}

    def benchmarks(self) -> dict[str, Path]:
        """The folder of every evaluation set, in the order of params.yaml."""
        return {name: self.root / "data" / "benchmarks" / name for name in self.params.benchmarks}


@dataclass(frozen=True)
class Stage:
    """What a stage module exposes as `STAGE`.

    Attributes:
        verb: The stage's name in dvc.yaml, which is the module's name.
        per: The sections of params.yaml whose entries it runs for; empty: it runs once.
        run: Calls the library.
        imports: Modules that the library call needs, imported ahead so that their time counts as
            framework time.
        retries: How often a transient failure is tried again.
        on_server: The run is a Prefect flow run. Not so for bookkeeping that takes less time than
            the server's start.
    """

    verb: str
    per: tuple[Section, ...]
    run: Callable[[Job], Any]
    imports: tuple[str, ...] = ()
    retries: int = 0
    on_server: bool = True

    def dvc_name(self, names: Sequence[str]) -> str:
        """The name of this run's stage in DVC: `predict@dis_vd-nano`."""
        return f"{self.verb}@{'-'.join(names)}" if names else self.verb

    def run_name(self, names: Sequence[str]) -> str:
        """The name of this run's Prefect flow run: `predict-dis_vd-nano`."""
        return "-".join((self.verb, *names))


def main(stage: Stage, argv: Sequence[str]) -> int:
    """Run a stage from its command line.

    Args:
        stage: The module's `STAGE`.
        argv: Arguments without the program's name: one name per section of `stage.per`; none where
            DVC runs the stage.

    Returns:
        Exit status: 0, 1 after a message for a person, 2 for wrong arguments, 130 after an
        interrupt. Anything unexpected is printed with its traceback and gives 1.
    """
    try:
        if own_code.use_here():
            own = importlib.import_module(f"hqsam_pipelines.stages.{stage.verb}")
            return int(
                importlib.import_module("hqsam_pipelines.runner.stage").main(own.STAGE, argv)
            )
    except UserError as error:
        return _explain(stage.run_name(argv), error)
    if any(word in ("-h", "--help") for word in argv):
        say(_usage(stage))
        return 0
    argv = argv or _names_from_dvc(stage)
    if len(argv) != len(stage.per):
        say(_usage(stage), err=True)
        return 2
    try:
        root = env.repository_root()
        env.make_state_dir(root)
    except UserError:
        return run_here(stage, argv)  # which says it
    env.prepare()  # before the host compares environments
    status = host_client.run(root, "hqsam_pipelines.runner.stage:run_named", [stage.verb, *argv])
    return status if status is not None else run_here(stage, argv)


def _names_from_dvc(stage: Stage) -> Sequence[str]:
    """The names of the stage that DVC is running (`DVC_STAGE`: `predict@dis_vd-nano`): its shell gets to see none of them."""
    verb, _, names = os.environ.get("DVC_STAGE", "").rpartition(":")[2].partition("@")
    return names.split("-", len(stage.per) - 1) if verb == stage.verb and names else ()


def run_named(argv: Sequence[str]) -> int:
    """Run the stage `argv[0]` for the names that follow, in this process. Returns the exit status."""
    module = importlib.import_module(f"hqsam_pipelines.stages.{argv[0]}")
    return run_here(module.STAGE, argv[1:])


def run_here(stage: Stage, argv: Sequence[str]) -> int:
    """Run a stage in this process. Returns the exit status, see `main`."""
    try:
        execute(stage, tuple(argv))
    except KeyboardInterrupt:
        say(f"{stage.run_name(argv)}: interrupted", err=True)
        return 130
    except Exception as error:
        return _explain(stage.run_name(argv), error)
    return 0


def execute(stage: Stage, names: tuple[str, ...]) -> Any:
    """Run a stage, as a Prefect flow unless it says otherwise, in the repository around the current folder.

    Returns:
        What the library returned.

    Raises:
        UserError: a mistake in params.yaml, in a name or in the data; or the code is another
            checkout's.
    """
    from hqsam_pipelines.config import preflight, profiles
    from hqsam_pipelines.runner import provenance

    env.prepare()
    clock = provenance.Clock()
    root = env.repository_root()
    own_code.refuse_foreign(root)  # what runs is what DVC records the digests of
    dvc_site.configure(root)
    params = preflight.load(root, anew=stage.verb == "code")  # the stage before all others
    job = Job(root=root, params=params, names=names)
    for section, name in zip(stage.per, names, strict=True):
        job.params.entry(section, name)
    if stage.verb in READS_WHOLE_FOLDERS:
        profiles.refuse_leftovers(root)

    def work(progress: Progress) -> Any:
        for module in stage.imports:
            importlib.import_module(module)
        clock.library_begin()
        try:
            return stage.run(replace(job, progress=progress))
        finally:
            clock.library_end()

    with _turn(job, stage) as taken:
        if taken:
            return None
        result = _on_server(stage, job, work) if stage.on_server else work(silent)
    provenance.record_stage(root, stage.dvc_name(names), clock.cost(), job.figures)
    return result


@contextlib.contextmanager
def _turn(job: Job, stage: Stage) -> Iterator[bool]:
    """Keep a second run of the same stage out: DVC forgets its own when it is killed, but the stage goes on.

    Yields:
        Whether the run that was waited for has done the work: it ended well, from the same
        params.yaml and code, and all outputs are there, although DVC takes the old ones away before
        it starts a stage.
    """
    from hqsam_base.locks import FileLock
    from hqsam_pipelines.config import graph
    from hqsam_pipelines.config.profiles import STAGE_LOCKS
    from hqsam_pipelines.runner import dvc_locks

    env.make_state_dir(job.root)
    path = job.root / STAGE_LOCKS / f"{stage.run_name(job.names)}.lock"
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path)
    waited = not lock.acquire(0)
    # what tells two runs of a stage apart: params.yaml and the digests of the code
    digest = hashlib.sha256()
    for file in (job.root / "params.yaml", job.root / "data" / "code" / f"{stage.verb}.json"):
        digest.update(file.read_bytes() if file.is_file() else b"-")
    reads = digest.hexdigest()
    if waited:
        name = stage.run_name(job.names)
        dvc_locks.wait(
            lambda: lock.acquire(0),
            lambda: f"{name}, which process {_note(path).get('pid', 'unknown')} still runs",
            path,
        )
    try:
        before = _note(path)
        if waited and before.get("done") and before.get("reads") == reads:
            missing = graph.missing_outputs(job.root, stage.dvc_name(job.names))
            if not missing:
                say(f"  {stage.run_name(job.names)}: done by process {before['pid']}", err=True)
                yield True
                return
        note = {"pid": os.getpid(), "reads": reads, "done": False}
        _write_note(lock.fd, note)
        yield False
        _write_note(lock.fd, {**note, "done": True})
    finally:
        lock.release()


def _note(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {"pid": found}


def _write_note(descriptor: int, note: dict[str, Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(note).encode(), 0)


def _on_server(stage: Stage, job: Job, work: Callable[[Progress], Any]) -> Any:
    from hqsam_pipelines.config import origin
    from hqsam_pipelines.runner import flows, shown_run

    names: dict[str, str] = dict(zip(stage.per, job.names, strict=True))
    spec = flows.FlowSpec(
        verb=stage.verb,
        run_name=stage.run_name(job.names),
        parameters=names,
        retries=stage.retries,
        tags=tuple(shown_run.tags(stage.verb, names, origin.head(job.root))),
        figures=job.figures,
        table=lambda result: shown_run.table(stage.verb, job.names, job.root, result),
    )
    return flows.run_flow(spec, work, root=job.root)


def _usage(stage: Stage) -> str:
    words = " ".join(section.removesuffix("s").upper() for section in stage.per)
    return f"usage: python -m hqsam_pipelines.stages.{stage.verb} {words}".rstrip()


def _explain(name: str, error: Exception) -> int:
    if isinstance(error, UserError):
        say(f"{name}: {error}", err=True, lines=True)
        return 1
    from hqsam_pipelines.runner import full_disk

    full = full_disk.explained(error, own_code.repository_of(Path.cwd()))
    if full is not None:
        return _explain(name, full)
    say_traceback(error)
    return 1
