"""deploy: Register the flows that Prefect workers run: nightly, evaluate, compare."""

from __future__ import annotations

from typing import Annotated

import typer

from hqsam_base.terminal import say

app = typer.Typer(help="Register the flows that Prefect workers run: nightly, evaluate, compare.")


@app.command()
def deploy(
    pool: Annotated[str, typer.Option(help="The work pool; made if there is none.")] = "hqsam",
    cron: Annotated[str, typer.Option(help="When `nightly` runs.")] = "0 2 * * *",
    timezone: Annotated[str, typer.Option(help="Of `--cron`.")] = "UTC",
    revision: Annotated[
        str, typer.Option(help="What `nightly` runs, for example origin/main.")
    ] = "HEAD",
    target: Annotated[
        str, typer.Option(help="The revision that `nightly` compares its report with.")
    ] = "HEAD",
) -> None:
    """Register the deployments on the server that PREFECT_API_URL names."""
    import os

    from hqsam_base.errors import UserError
    from hqsam_pipelines.runner.server_address import given, refusal_is_user_error

    server = given()
    if server is None:
        cure = "set it to the server that the workers ask; `hqsam server start` starts a local one"
        raise UserError("no server is named", key="PREFECT_API_URL", cure=cure)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    with refusal_is_user_error(server.api):
        from hqsam_pipelines.runner import deployed

        for name in deployed.register(
            pool, cron, timezone, {"revision": revision, "target": target}
        ):
            say(f"registered {name}")
    say("start one: `prefect deployment run nightly/hqsam`; parameters: docs/operations.md")
    say(f"a worker: HQSAM_CHECKOUT=/path/to/clone prefect worker start --pool {pool}")
