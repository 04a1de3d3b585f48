"""One stage run as one Prefect flow.

The flow holds one task, which holds one library call: coarse on purpose, because each call to the
server costs about ten milliseconds and the libraries report their own progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_base.safe_text import shown
from hqsam_base.terminal import say
from hqsam_pipelines.config import env
from hqsam_pipelines.runner import server, shown_run
from hqsam_pipelines.runner.progress import ProgressDisplay

T = TypeVar("T")


@dataclass(frozen=True)
class FlowSpec:
    """What a flow run is called and how stubborn it is.

    Attributes:
        verb: The stage, which is the flow's name.
        run_name: The run's name, for example `fetch-dis5k`.
        parameters: Shown on the server.
        retries: How often a transient failure (network, disk) is tried again.
        delays: Seconds before each further try.
        tags: Shown on the server.
        figures: Filled by the work with its own speed; rows of the run's table.
        table: What the work found, as rows of the run's table, by its result.
    """

    verb: str
    run_name: str
    parameters: dict[str, str]
    retries: int = 0
    delays: tuple[float, ...] = (2.0, 8.0, 30.0)
    tags: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    table: Callable[[Any], list[dict[str, Any]]] = lambda result: []


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: trouble with a connection, a time-out; never a message for a person."""
    if isinstance(error, UserError):
        return False
    httpx = sys.modules.get("httpx")
    kinds: tuple[type[BaseException], ...] = (ConnectionError, TimeoutError)
    return isinstance(error, (*kinds, httpx.TransportError) if httpx is not None else kinds)


class _StoredError(Exception):
    """Stands for an exception of the library in Prefect's log and database, without secrets in its text."""


class Work(Generic[T]):
    """Carries the result or exception of the work past Prefect, which would store or wrap it.

    Attributes:
        value: The result, once it is `done`.
        begun: Whether the work was begun, by the last try or an earlier one.
        error: What it raised.
    """

    value: T
    begun: bool = False
    done: bool = False
    error: Exception | None = None

    def do(self, work: Callable[[], T]) -> T:
        """Do the work and note how it ends. Raises what it raises."""
        self.begun, self.error = True, None
        try:
            self.value = work()
        except Exception as error:
            self.error = error
            raise
        self.done = True
        return self.value

    def outcome(self) -> T:
        """The result. Raises what the work raised."""
        if self.error is not None:
            raise self.error
        return self.value


SERVER_TRIES = 3


def record(name: str, work: Work[Any], call: Callable[[], Any], *, root: Path, ours: bool) -> None:
    """Make a flow run around the work; trouble with the server ends no work.

    Before the work a local server that died is waited for, a bounded number of times. After it
    there is a line on standard error: hours of work are not to be done again for the sake of its
    record.

    Args:
        name: The run's name, for the line.
        work: What `call` does.
        call: Makes the flow run.
        root: The repository.
        ours: The server is the checkout's own.

    Raises:
        Exception: what Prefect raised before the work, from a server that is not ours to start, or
            in the last try.
    """
    for left in reversed(range(SERVER_TRIES)):
        try:
            call()
        except Exception as error:
            if work.done:
                text = (
                    f"the work is done, but the Prefect server could not be told: "
                    f"{type(error).__name__}: {error}"
                )
                say(f"  {name}: {text}", err=True)
            elif work.error is None and (work.begun or not ours or not left):
                raise
        if work.begun:
            return
        os.environ["PREFECT_API_URL"] = server.ensure(root).api
        refresh_settings()


def run_flow(spec: FlowSpec, work: Callable[[Progress], T], *, root: Path) -> T:
    """Run `work` as a Prefect flow run on the checkout's server.

    Args:
        spec: Name and retries.
        work: Gets a progress callable.
        root: The repository.

    Returns:
        What `work` returned.

    Raises:
        BaseException: what `work` raised; the flow run is marked as failed, with the message. Not
            so what Prefect raises after the work: that is a line on standard error.
    """
    env.prepare()
    with server.running(root) as place:
        if place.started_now:
            how = f"log in with the content of {server.auth_path(root)}"
            say(f"Prefect server: {place.page}  ({how}; ends itself when idle)", err=True)
        refresh_settings()
        done: Work[T] = Work()
        flow = _make_flow(spec, work, done, root, ours=place.ours)
        record(
            spec.run_name, done, lambda: _drive(_recorded(flow, spec)), root=root, ours=place.ours
        )
        return done.outcome()


def refresh_settings() -> None:
    """Prefect read the environment when it was imported; where that was earlier, it must read it again."""
    if "prefect.context" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


async def _recorded(flow: Any, spec: FlowSpec) -> Any:
    """Run a flow as a child of the run that started this stage, if one did."""
    from prefect.flow_engine import run_flow_async

    flow_run = await shown_run.begun(flow, spec.run_name, spec.parameters, spec.tags)
    given = {"parameters": spec.parameters}  # as the function's own catch-all names them
    return await run_flow_async(flow, flow_run=flow_run, parameters=given, return_type="state")


def _drive(run: Any) -> None:
    """Run the flow's coroutine without `asyncio.run`, whose handler would swallow the first Ctrl-C of a busy stage."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(run)
    finally:
        with contextlib.suppress(Exception):
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _make_flow(
    spec: FlowSpec,
    work: Callable[[Progress], T],
    outcome: Work[T],
    root: Path,
    *,
    ours: bool,
) -> Any:
    from prefect import flow, task
    from prefect.states import Completed, Failed

    def again(task_: Any, run: Any, state: Any) -> bool:
        error = outcome.error
        retry = error is not None and is_transient(error)
        if retry and run.run_count <= spec.retries:
            say(f"  {spec.run_name}: {type(error).__name__}: {error}; trying again", err=True)
        return retry

    @task(
        name=spec.verb,
        task_run_name=spec.run_name,
        retries=spec.retries,
        retry_condition_fn=again,
        retry_delay_seconds=list(spec.delays[: spec.retries]) or None,
        persist_result=False,
    )
    def call() -> Any:
        try:
            with (
                shown_run.logged() as log,
                ProgressDisplay(spec.run_name, artifact=True) as progress,
            ):
                rows = spec.table(outcome.do(lambda: work(progress)))
            for row in rows[: shown_run.MAX_ROWS] if spec.verb != "train" else ():  # said already
                log(shown_run.line(row))
            shown_run.publish(spec.run_name, rows, spec.figures)
            if spec.verb == "report":
                shown_run.publish_report(root)
        except Exception as error:
            if isinstance(error, UserError):
                # A state instead of an exception: no traceback in the log.
                return Failed(message=shown(error, lines=True))
            # Prefect prints and stores the text of what is raised here; the caller gets the
            # exception itself.
            raise _StoredError(shown(f"{type(error).__name__}: {error}")).with_traceback(
                error.__traceback__
            ) from None
        return Completed(message="done")

    # Asynchronous only in form: a synchronous flow waits up to a second for its heartbeat thread
    # when it ends.
    @flow(
        name=spec.verb, flow_run_name=spec.run_name, validate_parameters=False, persist_result=False
    )
    async def stage(**parameters: str) -> Any:
        state = call(return_state=True)
        if ours:  # it may have died during the work
            server.ensure(root)
        return state if state.is_completed() else Failed(message=state.message)

    return stage
