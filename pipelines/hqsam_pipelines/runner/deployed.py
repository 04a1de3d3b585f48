"""The flows that a Prefect worker runs, and how they are registered (`hqsam deploy`).

A worker reads `HQSAM_CHECKOUT` when a run begins, so every worker may have a checkout of its own.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import flow, get_client, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import deployment as at_deployment
from prefect.runtime import flow_run as at_run
from prefect.states import Cancelled, Completed, Failed

from hqsam_base.errors import UserError
from hqsam_pipelines.config import env, preflight
from hqsam_pipelines.runner import evaluated, shown_run, worktree
from hqsam_pipelines.runner import nightly as delivery

CHECKOUT = "HQSAM_CHECKOUT"
HEARTBEAT_S = 30
SILENT_S = 90
"""Without a heartbeat for so long a run counts as crashed."""
AUTOMATION = "hqsam: runs whose worker died are crashed"


def checkout() -> Path:
    """The checkout that this worker runs in: `HQSAM_CHECKOUT`, or the one around the current folder.

    Raises:
        UserError: there is none, or it is none of this project's.
    """
    given = os.environ.get(CHECKOUT)
    if given and not (Path(given) / "dvc.yaml").is_file():
        cure = "set it to the clone that this worker runs in, where the worker is started"
        raise UserError("this is no checkout of the pipeline", file=given, key=CHECKOUT, cure=cure)
    root = env.repository_root(Path(given) if given else None)
    preflight.pipeline(root)
    return root


@flow(
    name="nightly",
    flow_run_name="nightly-{revision}",
    validate_parameters=False,
    persist_result=False,
)
def nightly(
    revision: str = "HEAD",
    branch: str = "nightly",
    target: str = "HEAD",
    workers: int = 2,
    push: bool = True,
) -> Any:
    """Run the pipeline at a revision in a worktree, and deliver the report; see `delivery.deliver`.

    A scheduled run that a later one has caught up with does nothing: missed nights become one run.
    """
    if _is_overtaken():
        return Cancelled(message="a later scheduled run is due: it does the work of this one")
    try:
        delivery.events()
        found = _deliver(revision, branch=branch, target=target, workers=workers, push=push)
    except UserError as error:
        found = error
    if isinstance(found, UserError):
        text = worktree.masked(str(found))
        delivery.notify(delivery.Delivery("failure", text, text, revision, "", branch, "", ""))
        return Failed(message=text)
    link = Path(found.report).as_uri()
    page = (
        f"{found.markdown}\n\nBranch `{found.branch}`, commit `{found.commit[:10]}`, made from "
        f"`{found.source[:10]}`. [Report]({link}); the difference: "
        f"`hqsam compare {found.source[:10]} {found.branch} --html diff.html`.\n"
    )
    create_markdown_artifact(markdown=page, key="nightly", description=found.line)
    delivery.notify(found)
    return (Failed if found.event == "failure" else Completed)(message=found.line)


@task(name="deliver", task_run_name="deliver", persist_result=False)
def _deliver(revision: str, **options: Any) -> delivery.Delivery | UserError:
    """Deliver, as the task whose children the stages' runs are; an error is handed over, so that no traceback is logged."""
    try:
        with shown_run.logged():
            return delivery.deliver(checkout(), revision, **options)
    except UserError as error:
        return error


def _is_overtaken() -> bool:
    """Whether a later run of the same deployment is due already."""
    mine, begin = at_deployment.id, at_run.scheduled_start_time
    if not mine or begin is None:
        return False
    with get_client(sync_client=True) as client:
        wanted = {
            "deployments": {"id": {"any_": [str(mine)]}},
            "flow_runs": {
                "state": {"type": {"any_": ["SCHEDULED", "PENDING"]}},
            },
        }
        found = client.request("POST", "/flow_runs/filter", json=wanted).json()
    due = (datetime.fromisoformat(r["expected_start_time"]) for r in found if r["id"] != at_run.id)
    return any(begin < start <= datetime.now(UTC) for start in due)


@flow(
    name="evaluate",
    flow_run_name="evaluate-{revision}",
    validate_parameters=False,
    persist_result=False,
)
def evaluate(
    benchmarks: list[str],
    systems: list[str] | None = None,
    prompts: list[str] | None = None,
    predictions: str = "",
    revision: str = "HEAD",
) -> Any:
    """Evaluate systems on benchmarks at a revision, and publish one table for each; see `evaluated.evaluate`."""
    try:
        with shown_run.logged():
            found = evaluated.evaluate(
                checkout(),
                revision,
                benchmarks,
                systems=systems or [],
                prompts=prompts or [],
                predictions=predictions,
            )
    except UserError as error:
        return Failed(message=worktree.masked(str(error)))
    for benchmark, rows in found.tables.items():
        shown_run.publish(f"evaluate-{benchmark}", rows, {})
    said = [found.line, *(line for lines in found.failed.values() for line in lines)]
    return (Failed if found.failed else Completed)(message="\n".join(said))


@flow(
    name="compare",
    flow_run_name="compare-{before}-{after}",
    validate_parameters=False,
    persist_result=False,
)
def compare(before: str, after: str = "workspace") -> Any:
    """Compare two revisions of the worker's checkout, and publish the answer."""
    try:
        status, line, markdown = delivery.compared(checkout(), before, after)
    except UserError as error:
        return Failed(message=worktree.masked(str(error)))
    create_markdown_artifact(markdown=markdown, key="compare", description=line)
    return (Failed if status > 1 else Completed)(message=line)


def register(pool: str, cron: str, timezone: str, nightly_parameters: dict[str, Any]) -> list[str]:
    """Register the deployments, their pool, and the rule for runs whose worker died.

    Args:
        pool: The work pool; made if there is none.
        cron: When `nightly` runs.
        timezone: Of `cron`.
        nightly_parameters: Of the runs that the schedule starts.

    Returns:
        The names of the deployments.
    """
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.exceptions import ObjectNotFound
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    beat = {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}}
    one = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    night = [Cron(cron, timezone=timezone)]
    for what, schedules in ((nightly, night), (evaluate, []), (compare, [])):
        made: Any = what.to_deployment(
            name="hqsam",
            schedules=schedules,
            parameters=nightly_parameters if schedules else {},
            concurrency_limit=one if schedules else None,
            job_variables=beat,
            work_pool_name=pool,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        made.apply()
    _register_rule()
    return ["nightly/hqsam", "evaluate/hqsam", "compare/hqsam"]


def _register_rule() -> None:
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    ends = {f"prefect.flow-run.{word}" for word in ("Completed", "Failed", "Cancelled", "Crashed")}
    beat = "prefect.flow-run.heartbeat"
    rule = Automation(
        name=AUTOMATION,
        trigger=EventTrigger(
            after={beat},
            expect={beat, *ends},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message="no heartbeat: the worker or its machine died",
                force=True,
            )
        ],
    )
    with get_client(sync_client=True) as client:
        for old in client.request("POST", "/automations/filter", json={}).json():
            if old["name"] == AUTOMATION:
                client.request("DELETE", "/automations/{id}", path_params={"id": old["id"]})
    rule.create()
