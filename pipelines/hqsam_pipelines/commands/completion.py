"""completion: Print the lines that let bash, zsh or fish complete commands, options, revisions and metrics."""

from __future__ import annotations

import csv
import importlib
import os
import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Print the lines that let bash, zsh or fish complete commands, options, revisions and "
    "metrics."
)

VARIABLE = "_HQSAM_COMPLETE"
"""Set by the shell when it asks for completions; typer reads it."""

# What a shell inserts is run when the user presses Enter: a branch may be called `$(...)`.
_HARMLESS = re.compile(r"[\w./@+=,%-]+", re.ASCII)


class Shell(StrEnum):
    """The shells that typer writes the lines for."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="The shell that reads them.")]) -> None:
    """Print the lines for a shell's start-up file.

    bash (~/.bashrc): eval "$(hqsam completion bash)";
    zsh (~/.zshrc, after compinit): eval "$(hqsam completion zsh)";
    fish (~/.config/fish/config.fish): hqsam completion fish | source
    """
    os.environ[VARIABLE] = f"source_{shell}"
    complete()


def complete() -> None:
    """Answer the shell, which asks by environment variables, and exit.

    Only the module of the command that is being typed is imported.
    """
    from hqsam_pipelines import cli

    asked = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    typed = asked.split()[1:2]
    program = typer.Typer(name="hqsam")
    program.callback()(lambda: None)
    for name in cli.commands():
        program.command(name, help=cli.summary(name))(lambda: None)
    group = typer.main.get_command(program)
    assert isinstance(group, typer.core.TyperGroup)
    for name in set(typed) & set(cli.commands()):
        module = importlib.import_module(f"hqsam_pipelines.commands.{name}")
        group.commands[name] = typer.main.get_command(module.app)
    group.main(args=[], prog_name="hqsam", complete_var=VARIABLE)


def revisions(incomplete: str) -> list[str]:
    """Branches and tags of this repository, HEAD, and the workspace, that begin with what was typed."""
    from hqsam_pipelines.compare.git_files import names

    return _offered(("workspace", "HEAD", *names(Path())), incomplete)


def rows(incomplete: str) -> list[str]:
    """Benchmarks and metrics of the report on disk that begin with what was typed."""
    from hqsam_base.errors import UserError
    from hqsam_pipelines.compare.history import OVERVIEW
    from hqsam_pipelines.config.env import repository_root

    try:
        with (repository_root() / OVERVIEW).open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    except (UserError, OSError, ValueError, csv.Error):
        return []  # nothing to offer; the command itself says what is wrong
    names = (line.get(column) or "" for column in ("metric", "benchmark") for line in lines)
    return _offered(names, incomplete)


def _offered(names: Iterable[str], incomplete: str) -> list[str]:
    """The distinct harmless names that begin with a text, in their order."""
    return [
        name
        for name in dict.fromkeys(names)
        if name.startswith(incomplete) and _HARMLESS.fullmatch(name)
    ]
