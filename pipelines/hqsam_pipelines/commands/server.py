"""server: Start, stop or query the local Prefect server of this checkout.

`hqsam server start | stop | status`. Stages start one by themselves; these commands are for people.
"""

from __future__ import annotations

from typing import Annotated

import typer

from hqsam_base.terminal import say
from hqsam_pipelines.config import env
from hqsam_pipelines.runner import server
from hqsam_pipelines.runner.server_address import Server, healthy

app = typer.Typer(
    no_args_is_help=True, help="Start, stop or query the local Prefect server of this checkout."
)


@app.command()
def start(
    idle_minutes: Annotated[
        float,
        typer.Option(
            min=0, help="End after this many minutes without a stage; 0: run until `stop`."
        ),
    ] = server.DEFAULT_IDLE_MINUTES,
) -> None:
    """Start the server if it does not run, and say where its page is."""
    found = server.status(env.repository_root())
    if found is None:
        found = server.ensure(env.repository_root(), idle_minutes=idle_minutes)
    _show(found)


@app.command()
def stop() -> None:
    """Stop the server, even if it is in use, and the stage host."""
    from hqsam_pipelines.runner import host_client

    root = env.repository_root()
    host_client.stop(root)
    say("stopped" if server.stop(root) else "no server of this checkout runs")


@app.command()
def status() -> None:
    """Report whether a server is running, and where; exit status 3 if none is."""
    found = server.status(env.repository_root())
    if found is None:
        say("no server runs; the next stage starts one")
        raise typer.Exit(3)
    _show(found)


def _show(found: Server) -> None:
    if not found.ours and not healthy(found.api):
        say(f"{found.api} (PREFECT_API_URL) does not answer", err=True)
        raise typer.Exit(1)
    whose = f"process {found.pid}" if found.ours else "given by PREFECT_API_URL"
    say(f"Prefect server: {found.page} ({whose})")
    if found.ours:
        say(
            f"its page asks for a password: the content of "
            f"{server.auth_path(env.repository_root())}"
        )
