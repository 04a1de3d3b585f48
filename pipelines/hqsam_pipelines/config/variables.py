"""The environment variables of this project, `HQSAM_...`: what each is for, and which values it takes."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hqsam_base.errors import UserError

PREFIX = "HQSAM_"


@dataclass(frozen=True)
class Variable:
    """A variable that a user may set.

    Attributes:
        meaning: What it is for.
        wanted: Which values it takes, in words.
        takes: Whether it takes a value.
    """

    meaning: str
    wanted: str
    takes: Callable[[str], bool]


def _one_of(*words: str) -> tuple[str, Callable[[str], bool]]:
    return f"one of: {', '.join(words)}", lambda value: value in words


def _is_amount(value: str) -> bool:
    try:
        return math.isfinite(float(value)) and float(value) >= 0
    except ValueError:
        return False


_COUNT = ("a whole number, 1 or more", lambda value: value.isdecimal() and int(value) > 0)
_AMOUNT = ("a number, 0 or more", _is_amount)
_FOLDER = ("a folder that is there", lambda value: Path(value).is_dir())
_TEXT = ("any text", lambda value: True)
_ADDRESS = ("an address, https://...", lambda value: value.startswith(("https://", "http://")))
EVENTS = ("success", "failure", "regression")
"""What the webhook can be told of."""

USERS = {
    "CHECKOUT": Variable("the clone that a worker runs in", *_FOLDER),
    "COMPILED": Variable("0: no compiled kernels", *_one_of("0", "1")),
    "DROP_DIR": Variable("where files are put that only a person can get", *_FOLDER),
    "EXECUTOR": Variable("where stages and their parts run", *_one_of("threads", "ray")),
    "HOST": Variable("0: every stage in a process of its own", *_one_of("0", "1")),
    "KERNEL_CACHE": Variable("where compiled kernels are kept; made if needed", *_TEXT),
    "LAUNCHER": Variable("what starts training processes", *_one_of("torchrun", "ray")),
    "PARTS_URL": Variable(
        "where files of parts travel between nodes without a common file system",
        "a folder URL, s3://bucket/parts",
        lambda value: "://" in value,
    ),
    "PREDICT_PROCESSES": Variable("processes of a predict stage", *_COUNT),
    "SERVER_IDLE_MINUTES": Variable("when an unused local server ends", *_AMOUNT),
    "TEST_ALL": Variable("1: the slow tests, too", *_one_of("0", "1")),
    "WAIT_HOURS": Variable("how long a run waits for another", *_AMOUNT),
    "WEBHOOK_ON": Variable(
        "what the webhook is told of",
        f"a comma-separated list of: {', '.join(EVENTS)}",
        lambda value: {name.strip() for name in value.split(",") if name.strip()} <= {*EVENTS},
    ),
    "WEBHOOK_URL": Variable("who is told of deliveries", *_ADDRESS),
    "WORKERS": Variable("the most processes of a data or score stage", *_COUNT),
}
"""By name, without the prefix."""

OWN = ("PARENT_TASK_RUN", "SERVER_OF", "TRAIN_RUN", "TRAIN_STDIN", "TRAIN_STORE")
"""What our own processes tell each other."""


def number(name: str, default: float) -> float:
    """The number that the environment gives.

    Args:
        name: The whole name.
        default: Where it is not set.

    Raises:
        UserError: it is no number, or below 0.
    """
    value = os.environ.get(name)
    if value is None:
        return default
    if not _is_amount(value):
        raise UserError(f"{value!r} is not a number of 0 or more", key=name, cure="correct it")
    return float(value)


def faults(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each variable of this project that is unknown or has a value that it does not take, and what to do.

    Args:
        environment: Names and values.
    """
    for name in sorted(name for name in environment if name.startswith(PREFIX)):
        short = name.removeprefix(PREFIX)
        if short in OWN:
            continue
        if (known := USERS.get(short)) is None:
            near = difflib.get_close_matches(short, USERS, n=1)
            advice = f": did you mean {PREFIX}{near[0]}?" if near else ": unset it"
            yield name, f"no such variable{advice}"
        elif not known.takes(environment[name]):
            value = "***" if short == "WEBHOOK_URL" else repr(environment[name])
            yield name, f"{value}: {known.meaning}; set it to {known.wanted}"
