"""The `hqsam` console script: one sub-command per module of `commands/`, imported only when it is called.

`hqsam score` works with the base install alone (no torch, Prefect, DVC, pandas), so nothing here
may import more.
"""

from __future__ import annotations

import ast
import difflib
import errno
import importlib
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_base.safe_text import sanitize
from hqsam_base.terminal import say, say_traceback

EXTRAS = {
    "checkpoint": "model",
    "compare": "pipeline",
    "data": "data",
    "deploy": "pipeline",
    "doctor": "pipeline",
    "evaluate": "pipeline",
    "export": "onnx",
    "history": "pipeline",
    "predict": "model",
    "profile": "pipeline",
    "refine": "pipeline",
    "report": "pipeline",
    "repro": "pipeline",
    "server": "pipeline",
}
"""The extra of pyproject.toml that a command needs beyond the base install."""

_NOT_WRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
)

_COMMANDS = Path(__file__).parent / "commands"


def commands() -> list[str]:
    """Names of the sub-commands: the public modules of `commands/`."""
    return sorted(path.stem for path in _COMMANDS.glob("*.py") if not path.stem.startswith("_"))


def summary(name: str) -> str:
    """The first line of a command module's docstring, read without importing it."""
    text = (
        ast.get_docstring(ast.parse((_COMMANDS / f"{name}.py").read_text(encoding="utf-8"))) or ""
    )
    first = text.partition("\n")[0]
    line = first.partition(": ")[2] or first
    return line[:1].upper() + line[1:]


def run(argv: Sequence[str]) -> int:
    """Run one command line.

    Args:
        argv: Arguments without the program's name.

    Returns:
        The exit status: 0; 1 after a message for a person; 2 for a wrong command line; 130 after
        Ctrl-C.
    """
    from hqsam_pipelines.config import env

    env.prepare()
    if os.environ.get("_HQSAM_COMPLETE"):  # a shell asks what could be typed next
        from hqsam_pipelines.commands import completion

        return _exit_status(completion.complete)
    if not argv or argv[0] in ("-h", "--help"):
        say(usage(), lines=True)
        return 0 if argv else 2
    if argv[0] == "--version":
        say(f"hqsam {metadata.version('hqsam-pipeline')}")
        return 0
    if argv[0] not in commands():
        close = difflib.get_close_matches(argv[0], commands(), n=1)
        hint = f"did you mean {close[0]}?" if close else "see `hqsam --help`"
        say(f"hqsam: no such command {argv[0]!r}; {hint}", err=True)
        return 2
    name = argv[0]
    try:
        return _exit_status(lambda: _call(name, argv[1:]))
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0].startswith("hqsam"):
            raise
        extra = EXTRAS.get(name)
        cure = f"pip install 'hqsam-pipeline[{extra}]'" if extra else "pip install hqsam-pipeline"
        say(f"hqsam {name}: the module {missing!r} is not installed: {cure}", err=True)
        return 1


def usage() -> str:
    """The text of `hqsam --help`."""
    rows = [(name, textwrap.wrap(summary(name), 84)) for name in commands()]
    lines = [
        f"  {name:<12}{text}"
        for name, wrapped in rows
        for name, text in zip([name, ""], wrapped, strict=False)
    ]
    head = (
        "usage: hqsam COMMAND ...\n\nHQ-SAM: the reproducible pipeline, its metrics and its "
        "model.\n\ncommands:"
    )
    tail = (
        "\noptions:\n  --version   Show the version.\n  -h, --help  Show this text; `hqsam "
        "COMMAND --help` says more."
    )
    return "\n".join([head, *lines, tail])


def _call(name: str, argv: Sequence[str]) -> object:
    import typer

    app: typer.Typer = importlib.import_module(f"hqsam_pipelines.commands.{name}").app
    app._add_completion = False  # belongs to a program, not to its sub-commands
    return typer.main.get_command(app)(args=list(argv), prog_name=f"hqsam {name}")


def _exit_status(call: Callable[[], object]) -> int:
    """Run a command; its exit status, messages for a person printed without a traceback."""
    try:
        call()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        say("interrupted", err=True)
        return 130
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            from hqsam_base import own_code
            from hqsam_pipelines.runner import full_disk

            full = full_disk.explained(error, own_code.repository_of(Path.cwd()))
            say(f"Error: {full}", err=True, lines=True)
            return 1
        if error.errno not in _NOT_WRITABLE or error.filename is None:
            raise
        place, cure = error.filename2 or error.filename, "name a file or folder that can be written"
        say(
            f"Error: {error.strerror}\n  file: {sanitize(str(place))}\n  cure: {cure}",
            err=True,
            lines=True,
        )
        return 1
    except UserError as error:
        say(f"Error: {error}", err=True, lines=True)
        return 1
    return 0


def main() -> None:
    """Entry point of the console script."""
    try:
        status = _exit_status(_main)
    except (
        Exception
    ) as error:  # not left to the interpreter: the message may hold text from outside, or a secret
        say_traceback(error)
        status = 1
    sys.exit(status)


def _main() -> None:
    from hqsam_base import own_code

    if own_code.use_here():
        importlib.import_module("hqsam_pipelines.cli").main()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
