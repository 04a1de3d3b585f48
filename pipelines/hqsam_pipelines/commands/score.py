"""`hqsam score ...`: the metrics on masks and result files of your own, without the rest of the pipeline.

Needs the base install only (no torch, Prefect or DVC). The sub-commands are the metrics that have
one: their parameters and help are those of `Score.score_files`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from hqsam_base.terminal import say
from hqsam_metrics.base import SCORES, Option, Result, Score, plain
from hqsam_pipelines.commands._outputs import check_outputs
from hqsam_pipelines.runner.progress import ProgressDisplay

Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result to this JSON file.")
]
Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="PATH",
        help="Other predictions for the same ground truth: print differences with intervals and "
        "verdicts, and the most changed instances.",
    ),
]
Overlays = Annotated[
    Path | None,
    typer.Option(
        "--overlays", metavar="DIR", help="With --against: draw the most changed instances there."
    ),
]
Images = Annotated[
    Path | None, typer.Option("--images", metavar="DIR", help="The images, for --overlays.")
]
CrossCheck = Annotated[
    bool,
    typer.Option(
        "--cross-check", help="Also run the reference program on the first 200 images and compare."
    ),
]


_PAIR = {"against": Against, "overlays": Overlays, "images": Images}


class MetricCommands(TyperGroup):
    """The metrics that have a command; one is imported when it is called, the list needs no more than its file's text."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the metrics with a command."""
        return [name for name in SCORES.names() if "score_files" in _source(name)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What the list of commands shows of one."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return TyperCommand(
            cmd_name,
            help=(ast.get_docstring(ast.parse(_source(cmd_name))) or "").partition("\n")[0],
        )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is to be run."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and command(SCORES.load(str(name))), rest


def _source(name: str) -> str:
    spec = importlib.util.find_spec(f"{SCORES.package}.{name}")
    return (
        "" if spec is None or spec.origin is None else Path(spec.origin).read_text(encoding="utf-8")
    )


app = typer.Typer(
    cls=MetricCommands,
    no_args_is_help=True,
    help="Score results in the formats of public benchmarks: mask and boundary metrics.",
)


@app.callback()
def _metrics() -> None:
    """Has no options of its own."""


def command(score: Score) -> Any:
    """The command of one metric, made of the signature of its `score_files`."""
    assert score.score_files is not None
    function, check = score.score_files, score.cross_check

    parameters = inspect.signature(function, eval_str=True).parameters

    def run(**given: Any) -> None:
        json_file, wanted = given.pop("json"), given.pop("cross_check", False)
        other, overlays, images = (given.pop(name, None) for name in _PAIR)
        if other is not None and not wanted:
            _compare(score, json_file, other, overlays, images, given)
            return
        if other is not None:
            say("error: --cross-check looks at one file: run it without --against", err=True)
            raise typer.Exit(1)
        if overlays is not None or images is not None:
            say("error: --overlays and --images need --against", err=True)
            raise typer.Exit(1)
        _run(function, json_file, check if wanted else None, **given)

    own = [_parameter(p) for p in parameters.values() if p.name not in ("progress", "keep")]
    if check is not None:
        own.insert(-1, _keyword("cross_check", CrossCheck, default=False))
    if "keep" in parameters:
        own += [_keyword(name, kind, default=None) for name, kind in _PAIR.items()]
    own.append(_keyword("json", Json, default=None))
    run.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in own}
    run.__doc__ = (inspect.getdoc(function) or "").partition("\n")[0]
    alone = typer.Typer(add_completion=False)
    alone.command(score.name)(run)
    return typer.main.get_command(alone)


def _parameter(parameter: inspect.Parameter) -> inspect.Parameter:
    """A parameter of `score_files` as typer wants it."""
    kind, *notes = (
        get_args(parameter.annotation)
        if get_origin(parameter.annotation) is Annotated
        else (parameter.annotation,)
    )
    note = next((n for n in notes if isinstance(n, Option)), Option(""))
    name = note.name or "--" + parameter.name.replace("_", "-")
    option = typer.Option(name, help=note.help, metavar=note.metavar, min=note.least)
    return _keyword(parameter.name, Annotated[kind, option], default=parameter.default)


def _keyword(name: str, annotation: Any, *, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _run(
    score: Callable[..., Result],
    json_file: Path | None,
    check: Callable[..., str] | None,
    **arguments: Any,
) -> None:
    """Scores, checks, prints the metrics, writes the JSON."""
    from hqsam_base.atomic import write_json

    with _messages(json_file):
        check_outputs({"--json": json_file}, inputs=[arguments["pred"], arguments["gt"]])
        with ProgressDisplay("score") as progress:
            result = score(progress=progress, **arguments)
        checked = None
        if check is not None:
            wanted = inspect.signature(check).parameters
            checked = check(**{name: v for name, v in arguments.items() if name in wanted})
    _show(result)  # first: a file that cannot be written must not cost the numbers
    if checked is not None:
        say(checked)
    if json_file is not None:
        with _messages(json_file):
            write_json(json_file, result.to_dict(), ascii_only=True)


def _show(result: Result) -> None:
    for name, value in result.metrics.items():
        say(f"{name:<10} {'undefined' if value is None else f'{value:.4f}'}")
    facts = f"scored {result.n_scored} of {result.n_expected}"
    say(f"{facts}, protocol {result.to_dict()['protocol_hash']}")
    for warning in result.warnings:
        say(f"warning: {warning}", err=True)


def _compare(
    score: Score,
    json_file: Path | None,
    other: Path,
    overlays: Path | None,
    images: Path | None,
    arguments: dict[str, Any],
) -> None:
    """Scores both files by the same rules, prints the comparison, draws it, writes the JSON."""
    from hqsam_base.atomic import write_json
    from hqsam_metrics.against import changed, rows, to_dict
    from hqsam_pipelines.commands import _against

    assert score.score_files is not None
    own = arguments["pred"]
    with _messages(json_file):
        check_outputs({"--json": json_file}, inputs=[own, other, arguments["gt"]])
        _against.check_folder(overlays, images)
        with ProgressDisplay("score") as progress:
            a, b = (
                score.score_files(progress=progress, keep=True, **{**arguments, "pred": path})
                for path in (other, own)
            )
            found, most = rows(score, b, a), changed(score, b, a, _against.COUNT)
    _show(b)
    _against.show(found, most, own, other)
    with _messages(json_file):
        if json_file is not None:
            content = b.to_dict() | plain(to_dict(found, most, a))
            write_json(json_file, content, ascii_only=True)
        if overlays is not None:
            _against.draw(most, b, a, overlays, images)
            say(str(overlays))


@contextlib.contextmanager
def _messages(json_file: Path | None) -> Iterator[None]:
    """A user error, or a file that cannot be read or written, is one message and exit code 1."""
    from hqsam_base.errors import UserError

    try:
        yield
    except UserError as error:
        say(f"error: {error}", err=True, lines=True)
        raise typer.Exit(1) from None
    except OSError as error:
        # Of a file that was opened already, such as the result on a full disk, the system says no
        # name.
        say(f"error: {error.filename or json_file}: {error.strerror or error}", err=True)
        raise typer.Exit(1) from None
