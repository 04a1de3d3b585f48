"""`hqsam repro` up to the point where something has to run: the queue, the plan, and the end where nothing is to be done.

Neither Prefect nor its server takes part in a run with nothing to do: they are imported and started
when there is a first stage to run (`reproduce`).
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hqsam_base.atomic import atomic_file, json_bytes
from hqsam_base.terminal import say
from hqsam_datasets.fetch.archive import renewed
from hqsam_pipelines.config import dvc_site, env, preflight
from hqsam_pipelines.config.graph import Graph, read_graph
from hqsam_pipelines.runner import dvc_forks, dvc_locks


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        ran: Stages whose command ran.
        fresh: Stages that were up to date.
        failed: Stage to the end of its output.
        blocked: Stages that did not run because something before them failed.
        absent: Results that the report lacks, as `benchmark-model`; empty unless it is partial.
        wall_s: Wall time of the whole run.
    """

    ran: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    def lines(self) -> Iterator[str]:
        """The summary, line by line."""
        for name, tail in self.failed.items():
            yield f"\n{name} failed; the end of its output:\n{tail}\n"
        if self.blocked:
            yield f"not run, because something before them failed: {', '.join(self.blocked)}"
        if self.absent:
            yield f"the report is partial; it has no result of: {', '.join(self.absent)}"
        if not (self.ran or self.failed):
            yield f"everything is up to date ({len(self.fresh)} stages)"
        else:
            counts = f"{len(self.ran)} ran, {len(self.fresh)} up to date"
            yield (
                f"{counts}, {len(self.failed)} failed, {len(self.blocked)} not run, "
                f"{self.wall_s:.0f} s"
            )


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        graph: The stages to consider and what they wait for.
        forced: Stages to run whatever DVC thinks.
        begin: When the run began, on the monotonic clock.
    """

    graph: Graph
    forced: set[str]
    begin: float

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to run."""
        return not (self.graph.changed or self.forced)


def run(root: Path, targets: Sequence[str], *, workers: int = 2, force: bool = False) -> Outcome:
    """Bring the targets up to date.

    Args:
        root: The repository.
        targets: Stage names (`score@coco-nano`) or groups (`score`); empty: everything.
        workers: Stages at the same time.
        force: Run the targets even if they are up to date.

    Raises:
        UserError: an unknown target, a mistake in params.yaml, or a repository that is none of this
            project's.
    """
    env.prepare()
    with queued(root, targets):
        return alone(root, targets, workers=workers, force=force)


def alone(root: Path, targets: Sequence[str], *, workers: int = 2, force: bool = False) -> Outcome:
    """Bring the targets up to date inside a block of `queued`; see `run`."""
    with _interrupts_are_said(), contextlib.ExitStack() as stack:

        def fork(repo: Any, stages: Mapping[str, Any]) -> None:
            stack.enter_context(dvc_forks.started(root, repo, stages))

        found = plan(root, targets, force=force, loaded=fork)
        if found.is_empty:
            return Outcome(fresh=list(found.graph.order), wall_s=time.monotonic() - found.begin)
        from hqsam_pipelines.runner import reproduce

        return reproduce.run(root, found, targets, workers=workers, force=force)


@contextlib.contextmanager
def queued(root: Path, targets: Sequence[str]) -> Iterator[None]:
    """Be the only run of the checkout for the block, see `dvc_locks.queued`; a mistake in params.yaml is said first."""
    preflight.pipeline(root)
    with dvc_locks.queued(root, f"hqsam repro {' '.join(targets)}".rstrip()):
        yield


def plan(
    root: Path,
    targets: Sequence[str],
    *,
    force: bool,
    loaded: Callable[[Any, Mapping[str, Any]], None] | None = None,
) -> Plan:
    """Find out what a run has to do.

    Args:
        root: The repository.
        targets: See `run`.
        force: See `run`.
        loaded: See `read_graph`.

    Raises:
        UserError: see `run`.
    """
    begin = time.monotonic()
    dvc_site.configure(root)
    params = preflight.pipeline(root)  # it may have changed while this run was waiting
    graph = read_graph(root, targets, loaded=loaded)
    forced = set(graph.targets) if force else set()
    # Fetch stages that DVC sees no reason to run: it watches neither the drop folder nor other
    # files outside the checkout.
    wanted = {stage.partition("@")[2] for stage in graph.order if stage.startswith("fetch@")}
    specs = {name: params.archive(name) for name in params.archives if name in wanted}
    forced |= {f"fetch@{name}" for name in renewed(root / "data" / "archives", specs)}
    return Plan(graph, forced, begin)


@contextlib.contextmanager
def _interrupts_are_said() -> Iterator[None]:
    """Say at once that Ctrl-C, SIGTERM or SIGHUP was heard, and end as after Ctrl-C; the stages need a moment to end."""

    def stop(number: int, frame: object) -> None:
        say("stopping; what is finished stays, and the next run goes on from there", err=True)
        signal.signal(number, signal.default_int_handler)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # `nohup` ignores SIGHUP, and that stays so
    old = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    for number in old:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def write(outcome: Outcome, path: Path) -> None:
    """Write the outcome as JSON."""
    with atomic_file(path) as file:
        file.write(json_bytes(asdict(outcome)))
