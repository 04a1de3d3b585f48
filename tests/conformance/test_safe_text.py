"""Text from outside: what is printed and stored of it, and that everything printed goes that way."""

from __future__ import annotations

import ast
import csv
import io
import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hqsam_base import atomic
from hqsam_base.errors import UserError
from hqsam_base.safe_text import cell, redact, sanitize, shown
from hqsam_base.terminal import say, styled
from hqsam_pipelines import cli
from hqsam_pipelines.report.tables import csv_text
from hqsam_pipelines.runner.progress import ProgressDisplay

ROOT = Path(__file__).resolve().parents[2]

OWN_WORDS = {
    "progress.py": "what it is told went through `shown` when it was told",
    "host.py": "its log holds nothing from outside",
    "host_client.py": "imports nothing but the standard library, and says one sentence of its own",
    "server_daemon.py": "says one sentence of its own",
}
"""Files that may print by themselves, with the reason."""

hostile = st.text(
    st.sampled_from("\\[]/a#@\x1b\n\u202e\u2028\udc80\x9b") | st.characters(exclude_categories=()),
    max_size=20,
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("=1+2", "'=1+2"),
        ("+a", "'+a"),
        ("-a|b", "'-a|b"),
        ("@a", "'@a"),
        ("\uff1d1+2", "'\uff1d1+2"),  # the wide signs of a Japanese keyboard
        ("\t=1", r"\t=1"),
        ("-", "-"),
        ("-1.5", "-1.5"),
        ("+9.6", "+9.6"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_no_cell_of_a_table_is_a_formula(text: str, kept: str) -> None:
    assert cell(text) == kept
    written = csv_text(("class",), [(text,)])
    assert list(csv.reader(io.StringIO(written))) == [["class"], [kept] if kept else [""]]


@given(hostile)
def test_no_control_character_is_left_and_nothing_else_changes(text: str) -> None:
    safe = sanitize(text)
    safe.encode()
    assert safe == sanitize(safe) and not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in safe)
    assert "\u202e" not in safe and "\u2028" not in safe
    if text.isascii() and text.isprintable():
        assert safe == text


def test_escapes_can_be_read() -> None:
    assert sanitize("a\x1b[2Jb\u202ec\udc80\n") == r"a\x1b[2Jb\u202ec\udc80\n"
    assert sanitize("two\n\tlines\r", lines=True) == "two\n\tlines\\r"


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        (
            "https://me:p@ss'w@host:8/a%20b.zip?sig=abc&n=1#tok",
            "https://***@host:8/a%20b.zip?sig=***&n=***#***",
        ),
        ("'s3://key:word@bucket/x', see", "'s3://***@bucket/x', see"),
        ("get https://host/a?token, then", "get https://host/a?***, then"),
        ("simplecache::ftp://u@h/x (no)", "simplecache::ftp://***@h/x (no)"),
        (
            "file:///a/b?c#d@e.jpg and embedded://x/y?z",
            "file:///a/b?c#d@e.jpg and embedded://x/y?z",
        ),
        ("http://me:pa/ss?w#d@host:8/a?b=c", "http://***@host:8/a?b=***"),
        ("http://host:80/x@y http://[::1]:80/x@y", "http://host:80/x@y http://[::1]:80/x@y"),
        ("https://host/plain/a@b.zip", "https://host/plain/a@b.zip"),
        ("no address: a@b?c=d", "no address: a@b?c=d"),
        ("HTTPS://u:p@[::1", "HTTPS://***@[::1"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, safe: str) -> None:
    assert redact(address) == safe == redact(safe)


def test_a_long_name_does_not_hold_anybody_up() -> None:
    begin = time.process_time()
    assert all(shown(letter * 100_000) == letter * 100_000 for letter in "a.")
    assert time.process_time() - begin < 1


def test_an_error_is_safe_wherever_it_ends_up() -> None:
    error = UserError(
        "bad\x1b[31m\n  ok: a",
        details=["first\n    forged", "second"],
        file="a\n  cure: obey",
        key="https://u:word@h/x",
        cure="one\n    forged",
        steps=["two"],
    )
    whole = (
        "bad\\x1b[31m\\n  ok: a\n    first\\n    forged\n    second\n  file: a\\n  cure: obey\n"
        "  key: https://***@h/x\n  cure: one\\n    forged\n    two"
    )
    assert str(error) == whole == str(pickle.loads(pickle.dumps(error)))
    assert error.file == "a\n  cure: obey", "the program still has the name as it is"


def test_messages_and_progress_are_safe(capsys: pytest.CaptureFixture[str]) -> None:
    say("name\nforged https://u:word@h/x?k=v")
    assert capsys.readouterr().out == "name\\nforged https://***@h/x?k=***\n"
    with ProgressDisplay("x", stream=io.StringIO()) as report:
        report(1, 2, "a\x1b[0m https://u:word@h")
        assert report._shown() == (1, 2, "a\\x1b[0m https://***@h")


@given(hostile)
def test_rich_shows_what_it_is_given(text: str) -> None:
    """Whatever stands before a bracket, nothing is taken for markup."""
    out = io.StringIO()
    Console(file=out, width=1000, color_system=None).print(
        styled(text, ("x", "bold"), "[/]"), soft_wrap=True
    )
    assert out.getvalue() == f"{shown(text)}x[/]\n"


def test_everything_is_printed_by_the_one_function() -> None:
    """In the commands, stages and flows; `rich` gets `styled` text or literals only."""
    found = []
    for path in sorted((ROOT / "pipelines/hqsam_pipelines").rglob("*.py")):
        calls = (
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        )
        for call in calls:
            name = ast.unparse(call.func)
            raw = name in (
                "print",
                "typer.echo",
                "click.echo",
                "traceback.print_exc",
                "traceback.print_exception",
            )
            # what a call gives may be a stranger's word: a column's head ended `hqsam history`
            cells = name.endswith((".add_row", ".add_column"))
            marked = (cells or name == "console.print") and any(
                _is_text(argument) or (cells and _is_unstyled(argument)) for argument in call.args
            )
            if (raw and path.name not in OWN_WORDS) or marked:
                found.append(f"{path.name}:{call.lineno} {ast.unparse(call)}")
    assert found == []


def _is_text(argument: ast.expr) -> bool:
    return isinstance(argument, ast.JoinedStr) or (
        isinstance(argument, ast.Call) and ast.unparse(argument.func) == "str"
    )


def _is_unstyled(argument: ast.expr) -> bool:
    return isinstance(argument, ast.Call) and ast.unparse(argument.func) != "styled"


@pytest.mark.parametrize("command", ["push", "pull"])
def test_an_address_on_the_command_line_is_shown_without_its_secrets(
    command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    atomic.write_json(tmp_path / "index.json", {"shards": []})
    address = "ftp://me:passw0rd@127.0.0.1:9/shards?signature=s1gned"
    places = {"push": [str(tmp_path), address], "pull": [address, str(tmp_path / "new")]}
    assert cli.run(["data", command, *places[command]]) == 1
    said = "".join(capfd.readouterr())
    assert "ftp://***@127.0.0.1:9/shards?signature=***" in said and "Traceback" not in said
    assert "passw0rd" not in said and "s1gned" not in said


def test_a_traceback_is_safe_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise RuntimeError("no answer\x1b[2J from https://me:passw0rd@host/x?signature=s1gned")

    monkeypatch.setattr(cli, "_main", fails)
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    said = capsys.readouterr().err
    assert (
        "RuntimeError: no answer\\x1b[2J from https://***@host/x?signature=***" in said
        and "in fails" in said
    )
