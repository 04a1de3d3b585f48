"""The top flow: bring the pipeline up to date, independent stages side by side.

DVC stays the judge of what is out of date and the keeper of what came out: each stage runs as `dvc
repro --single-item`, in the order of DVC's own graph, so the result equals `dvc repro` byte for
byte. Where the stages run is a setting of the environment and never a parameter:
`HQSAM_EXECUTOR=threads` (default) on this machine, `ray` on a Ray cluster that shares the
checkout's file system (`RAY_ADDRESS`). There the stages of `_FANNED_OUT` hand their parts to all
nodes, too (`hqsam_base.ray_parts`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from prefect import flow, task

from hqsam_base import own_code, ray_files, ray_parts
from hqsam_base.errors import UserError
from hqsam_base.processes import send_signal
from hqsam_base.safe_text import shown
from hqsam_base.terminal import say
from hqsam_pipelines.config import env, origin
from hqsam_pipelines.config.graph import read_graph
from hqsam_pipelines.runner import (
    codegraph,
    dvc_forks,
    dvc_locks,
    flows,
    full_disk,
    provenance,
    repro,
    server,
    shown_run,
)
from hqsam_pipelines.runner.repro import Outcome, Plan

TAIL_LINES = 30
END_S = 2.0
"""How long the processes of a stage may take to end by themselves; they write atomically, so none needs longer."""
TRIES = 3
"""How often a stage is run that was killed, or its DVC (for want of memory?), or that another DVC kept out."""


@dataclass(frozen=True)
class Done:
    """One `dvc repro --single-item` that ended well, and whether the stage's command ran."""

    stage: str
    ran: bool


def run(root: Path, plan: Plan, words: Sequence[str], *, workers: int, force: bool) -> Outcome:
    """Run the flow `reproduce` on the checkout's server.

    Args:
        root: The repository.
        plan: What to do.
        words: The targets as they were given, for the server.
        workers: Stages at the same time.
        force: Whether the targets run even if they are up to date, for the server.
    """
    from prefect.flow_engine import run_flow_sync
    from prefect.states import Completed, Failed

    with server.running(root) as place, contextlib.chdir(root):
        if place.started_now:
            how = f"log in with the content of {server.auth_path(root)}"
            say(f"Prefect server: {place.page}  ({how})", err=True)
        flows.refresh_settings()
        work: flows.Work[Outcome] = flows.Work()

        @flow(name="reproduce", validate_parameters=False, persist_result=False)
        def local(targets: list[str], workers: int, force: bool) -> Any:
            outcome = work.do(lambda: _walk(root, plan, workers))
            shown_run.publish_report(root)
            said = "\n".join(outcome.lines())
            return (Failed if outcome.failed else Completed)(message=said)

        given = {"targets": list(words), "workers": workers, "force": force}
        name, head = " ".join(["reproduce", *words]), origin.head(root)
        tags = [f"commit:{head[:10]}"] if head else []

        def call() -> None:
            begun = asyncio.run(shown_run.begun(local, name, given, tags))
            run_flow_sync(local, flow_run=begun, parameters=given, return_type="state")

        flows.record("reproduce", work, call, root=root, ours=place.ours)
        return work.outcome()


@flow(name="reproduce", validate_parameters=False, persist_result=False)
def reproduce(
    targets: list[str] | None = None,
    workers: int = 2,
    force: bool = False,
    raise_on_failure: bool = True,
) -> Outcome:
    """Bring the targets up to date in the repository around the current folder. What a deployment calls.

    Args:
        targets: See `run`; None: everything.
        workers: Stages at the same time.
        force: See `run`.
        raise_on_failure: Raise when a stage failed, so that the flow run is marked as failed.

    Raises:
        UserError: an unknown target, a mistake in params.yaml, or a repository that is none of this
            project's.
        RuntimeError: a stage failed and `raise_on_failure`.
    """
    if own_code.use_here():
        # A worker imports the flow from its environment before it knows which checkout the run is
        # for.
        own = importlib.import_module("hqsam_pipelines.runner.reproduce").reproduce.fn
        return cast(Outcome, own(targets, workers, force, raise_on_failure))
    env.prepare()
    root = env.repository_root()
    with repro.queued(root, targets or []):
        # A mistake is told before a server starts.
        plan = repro.plan(root, targets or [], force=force)
        with server.running(root):
            outcome = _walk(root, plan, workers)
    if outcome.failed and raise_on_failure:
        raise RuntimeError("\n".join(outcome.lines()))
    return outcome


def _walk(root: Path, plan: Plan, workers: int) -> Outcome:
    outcome = _Walk(root, plan, workers).walk()
    outcome.wall_s = time.monotonic() - plan.begin
    if outcome.ran:
        provenance.record_run(
            root, "repro", wall_s=outcome.wall_s, stages=outcome.ran, known=plan.graph.known
        )
    return outcome


@task(task_run_name="{stage}", persist_result=False)
def repro_stage(stage: str, root: str, force: bool, cluster: dict[str, str]) -> Any:
    """Run `dvc repro --single-item` for one stage in a process group of its own, its output passed on line by line.

    Args:
        stage: Its name.
        root: The repository.
        force: Run it even if it is up to date.
        cluster: The variables that tell the stage where its parts run; a node does not have them.

    Returns:
        `Done`, or a failed state with the end of the output: the run must not look well.
    """
    from prefect.states import Failed

    forced = ["--force"] if force else []
    words = ["--wait-for-lock", "repro", "--single-item", *forced, stage]
    for left in reversed(range(TRIES)):
        lines: list[str] = []
        with _child(words, root, cluster) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(shown(line.rstrip()))
                if line.strip() and not line.strip().startswith(_ADVICE):
                    say(f"[{stage}] {line.rstrip()}")
            status = process.wait()
        if status and any(dvc_locks.BUSY in line for line in lines):
            say(f"[{stage}] another DVC works on its files: it is tried again after that", err=True)
            dvc_locks.wait_for_dvc(Path(root), but=dvc_forks.MODULE)
        elif left and status and any(dvc_locks.TORN in line for line in lines):
            say(f"[{stage}] a killed DVC left half a list of locks: it is tried again", err=True)
            dvc_locks.forget_torn(Path(root))
        elif not left or not (killed := _killed(status, lines)):
            break
        else:
            say(f"[{stage}] {killed} was killed: the stage is tried again", err=True)
    ran = any(line.startswith("Running stage") for line in lines)
    if status and any(sign in line for line in lines for sign in full_disk.SIGNS):
        full = full_disk.message(full_disk.full_place(Path(root)), Path(root))
        if not any(full.problem in line for line in lines):  # the stage itself has said it
            lines = str(full).splitlines()
    tail = "\n".join(lines[-TAIL_LINES:])
    return Failed(message=tail) if status else Done(stage, ran)


_KILLED = re.compile(
    rf"failed to run: .*, exited with (-{signal.SIGKILL:d}|{128 + signal.SIGKILL:d})$"
)
"""How DVC tells that a stage's command, or the shell's child, was ended by SIGKILL."""


def _killed(status: int, lines: Sequence[str]) -> str:
    """What of a DVC run was ended by SIGKILL, for the message; empty if nothing was."""
    if status == -signal.SIGKILL:
        return "DVC"
    return "its process" if status and any(map(_KILLED.search, lines)) else ""


_ADVICE = (
    "To track the changes",
    "git add ",
    "To enable auto staging",
    "dvc config core.autostage",
    "Use `dvc push`",
)
"""What DVC says at the end of every run; once for each stage would be noise."""

Child = subprocess.Popen[str] | dvc_forks.Fork
_DVC = [sys.executable, "-m", dvc_forks.MODULE]
_REPORT = "report"
_EVALUATION = ("train", "predict", "score")
"""Stages without which the report is partial; without any other one there is none."""
_FANNED_OUT = ("normalise", "index", "shard", "augment", "predict", "score")
"""Stages that hand their parts to the cluster (`hqsam_base.processes`, `hqsam.prediction.parts`)."""
_CLUSTER = ("HQSAM_EXECUTOR", "HQSAM_LAUNCHER", "RAY_ADDRESS", ray_files.URL_VARIABLE)
_children: set[Child] = set()
_children_lock = threading.Lock()


@contextlib.contextmanager
def _child(words: list[str], root: str, cluster: dict[str, str]) -> Iterator[Child]:
    """A DVC in a group of its own: a run that is cancelled ends the whole group, not only DVC's process."""
    environment = _environment() | cluster
    process: Child | None = dvc_forks.begin(Path(root), words, environment)
    if process is None:
        process = subprocess.Popen(
            [*_DVC, *words],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    with _children_lock:
        _children.add(process)
    try:
        yield process
    finally:
        _end_groups(process)
        with _children_lock:
            _children.discard(process)


def _end_groups(*processes: Child) -> None:
    """End processes with all of their groups, side by side: whoever pressed Ctrl-C waits for the slowest."""
    for number, patience in ((signal.SIGTERM, END_S), (signal.SIGKILL, END_S)):
        end = time.monotonic() + patience
        for process in (process for process in processes if process.poll() is None):
            send_signal(process.pid, number, group=True)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))


def _environment() -> dict[str, str]:
    """The stages' environment: this interpreter first on PATH, and nothing of this flow run's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
    kept.update(shown_run.environment())
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return kept


class _Walk:
    """Hands ready stages to the task runner until nothing is left.

    Args:
        root: The repository.
        plan: The stages to consider and what they wait for.
        workers: Stages at the same time.
    """

    def __init__(self, root: Path, plan: Plan, workers: int) -> None:
        self._root = root
        self._graph = plan.graph
        self._workers = workers
        self._forced = plan.forced
        self._waiting = dict(plan.graph.needs)
        self._done: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._running = 0
        self._touched: set[str] = set()  # ran, so that what follows must be looked at
        self._outcome = Outcome()

    def walk(self) -> Outcome:
        with _runner(self._workers) as runner:
            try:
                self._start_ready(runner)
                while self._running or self._start_partial_report(runner):
                    stage, future = self._done.get()
                    self._running -= 1
                    self._finish(stage, future)
                    self._start_ready(runner)
            except BaseException:
                with _children_lock:
                    children = list(_children)
                _end_groups(*children)
                raise
        self._outcome.blocked = [name for name in self._graph.order if name in self._waiting]
        return self._outcome

    def _start_ready(self, runner: Any) -> None:
        progress = True
        while progress:
            progress = False
            ready = [
                name
                for name in self._graph.order
                if name in self._waiting
                and not self._waiting[name]
                and name not in self._outcome.failed
            ]
            # Those that most others wait for come first.
            for stage in sorted(ready, key=lambda name: -self._graph.weight[name]):
                changed_before = any(name in self._touched for name in self._graph.needs[stage])
                if not (stage in self._graph.changed or stage in self._forced or changed_before):
                    self._settle(stage)
                    self._outcome.fresh.append(stage)
                    progress = True
                elif self._running < self._workers:
                    self._start(stage, runner)

    def _start(self, stage: str, runner: Any) -> None:
        del self._waiting[stage]
        self._running += 1
        there = {name: os.environ[name] for name in _CLUSTER if name in os.environ}
        parameters = {
            "stage": stage,
            "root": str(self._root),
            "force": stage in self._forced,
            "cluster": there if ray_parts.asked() else {},
        }
        with _room(stage):
            future = runner.submit(repro_stage, parameters=parameters)
        future.add_done_callback(lambda done, stage=stage: self._done.put((stage, done)))

    def _start_partial_report(self, runner: Any) -> bool:
        """Start the report without the benchmarks that failed; False if there is nothing to report, or it was done.

        Only if every stage without a result is one of evaluation: gates and training must see all
        data. What is left of earlier results of these benchmarks is removed, as DVC does when their
        stages begin.
        """
        lacking = {*self._outcome.failed, *self._waiting} - {_REPORT}
        scores = {name for name in self._graph.order if name.startswith("score@")}
        if (
            _REPORT not in self._waiting
            or self._outcome.absent
            or not all(name.partition("@")[0] in _EVALUATION for name in lacking)
            or not scores - lacking
        ):
            return False
        self._outcome.absent = [name.partition("@")[2] for name in sorted(scores & lacking)]
        for name in self._outcome.absent:
            (self._root / "reports" / "metrics" / f"{name}.json").unlink(missing_ok=True)
        self._start(_REPORT, runner)
        return True

    def _finish(self, stage: str, future: Any) -> None:
        try:
            future.wait()
            state = future.state
            done = future.result() if state.is_completed() else None
        except Exception as error:
            self._outcome.failed[stage] = f"{type(error).__name__}: {error}"
            return
        if done is None:
            self._outcome.failed[stage] = str(state.message)
            return
        (self._outcome.ran if done.ran else self._outcome.fresh).append(stage)
        if stage == codegraph.STAGE:
            # Every stage follows this one, which writes the digests of the code, and few of these
            # change: one look in place of many runs.
            now = read_graph(self._root, self._graph.targets)
            self._graph = replace(self._graph, changed=now.changed)
        else:
            self._touched.add(stage)
        self._settle(stage)

    def _settle(self, stage: str) -> None:
        self._waiting.pop(stage, None)
        self._waiting = {name: needs - {stage} for name, needs in self._waiting.items()}

    def _end_children(self) -> None:
        with _children_lock:
            children = list(_children)
        _end_groups(*children)


def _room(stage: str) -> contextlib.AbstractContextManager[Any]:
    """What the stage takes of the cluster while it is submitted: nothing if its parts are tasks of their own.

    It would wait for them with the processor in hand that they wait for. A training that is one task
    takes all GPUs of a node, as on one machine: no part of another stage is given one of them.
    """
    kind = stage.partition("@")[0]
    if not ray_parts.asked():
        return contextlib.nullcontext()
    import ray
    from prefect_ray.context import remote_options

    apart = kind == "train" and os.environ.get("HQSAM_LAUNCHER") == "ray"
    gpus = [int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]]
    takes: dict[str, int] = {}
    if apart or kind in _FANNED_OUT:
        takes = {"num_cpus": 0}
    elif kind == "train":
        takes = {"num_gpus": max(gpus, default=0)}
    return cast(contextlib.AbstractContextManager[Any], remote_options(**takes))


def _runner(workers: int) -> Any:
    """The task runner that the environment asks for.

    Raises:
        UserError: an unknown executor, or Ray is not installed.
    """
    executor = os.environ.get("HQSAM_EXECUTOR", "threads")
    if executor == "threads":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=workers)
    if executor == "ray":
        env.keep_ray_local()
        try:
            from prefect_ray import RayTaskRunner
        except ImportError as error:
            raise UserError(
                f"HQSAM_EXECUTOR=ray needs the module {error.name!r}",
                cure="pip install 'hqsam-pipeline[ray]'",
            ) from error
        named = os.environ.get("RAY_ADDRESS")
        # Without an address, Ray joins the cluster that a file in /tmp names, which is anybody's.
        own = {} if named else {"include_dashboard": False}
        return RayTaskRunner(address=named or "local", init_kwargs=own)
    raise UserError(
        f"unknown executor {executor!r}", key="HQSAM_EXECUTOR", cure="one of: threads, ray"
    )
