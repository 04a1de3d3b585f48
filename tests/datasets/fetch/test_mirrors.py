"""What mirrors answer, told apart on a real server with each kind of answer."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hqsam_datasets.fetch import mirrors
from hqsam_datasets.fetch.mirrors import ask_all, unreachable
from hqsam_datasets.fetch.spec import ArchiveSpec
from tests import REPOSITORY
from tests.datasets.fetch.server import Behaviour, serving
from tests.pipelines.working_copy import run

BODY = b"x" * 5000
ZIP = {"Content-Type": "application/zip"}
ROUTES = {
    "/whole.zip": Behaviour(BODY, headers=ZIP),
    "/plain.zip": Behaviour(BODY, ranges=False, headers=ZIP),
    "/longer.zip": Behaviour(BODY + b"y", headers=ZIP),
    "/page.zip": Behaviour(b"<html>quota</html>", headers={"Content-Type": "text/html; charset=x"}),
    "/closed.zip": Behaviour(BODY, status=lambda _: 403),
    "/moved.zip": Behaviour(BODY, status=lambda _: 302, headers={"Location": "/login"}),
    "/login": Behaviour(b"<html>", headers={"Content-Type": "text/html"}),
    "/busy.zip": Behaviour(BODY, status=lambda _: 503),
}
EXPECTED = {
    "whole.zip": ("works", "5,000 bytes, application/zip, ranges"),
    "plain.zip": ("works", "5,000 bytes, application/zip, no ranges"),
    "longer.zip": ("other file", "5,001 bytes, 5,000 are recorded"),
    "page.zip": ("page", "a web page"),
    "closed.zip": ("login", "status 403"),
    "moved.zip": ("login", "wants a login"),
    "busy.zip": ("busy", "status 503"),
    "gone.zip": ("dead", "status 404"),
}


def spec(*files: tuple[str, list[str]], optional: bool = False) -> ArchiveSpec:
    return ArchiveSpec.model_validate(
        {
            "files": [
                {"name": name, "urls": urls, "bytes": len(BODY), "optional": optional}
                for name, urls in files
            ]
        }
    )


@contextlib.contextmanager
def mute_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield door.getsockname()[1]


def test_each_kind_of_answer_is_told_apart_and_nothing_is_downloaded() -> None:
    with serving(ROUTES) as base:
        names = list(EXPECTED)
        archives = {"a": spec(*((name, [f"{base}/{name}"]) for name in names))}
        found = {mirror.file: mirror for mirror in ask_all(archives)}
    assert list(found) == names
    for name, (state, detail) in EXPECTED.items():
        assert found[name].state == state and detail in found[name].detail, found[name]
    for route in ROUTES.values():
        assert all(request.get("Range") == "bytes=0-0" for request in route.requests)
    assert unreachable(found.values(), archives) == [
        f"a/{name}" for name, (state, _) in EXPECTED.items() if state != "works"
    ]


def test_other_places_and_one_mirror_that_works_are_enough(tmp_path: Path) -> None:
    (tmp_path / "here.zip").write_bytes(BODY)
    urls = {
        "here.zip": [(tmp_path / "here.zip").as_uri()],
        "lost.zip": [(tmp_path / "lost.zip").as_uri()],
        "mine.zip": ["drop://mine.zip"],
        "made.zip": ["embedded://dis5k/DIS5K.zip"],
        "far.zip": ["s3://bucket/far.zip"],
        "two.zip": ["http://127.0.0.1:9/two.zip", (tmp_path / "here.zip").as_uri()],
    }
    archives = {"a": spec(*urls.items())}
    found = ask_all(archives)
    states = [mirror.state for mirror in found]
    assert states == ["works", "dead", "not asked", "works", "not asked", "dead", "works"]
    assert "Connect" in found[5].detail
    assert unreachable(found, archives) == ["a/lost.zip"]
    assert not unreachable(found, {"a": spec(*urls.items(), optional=True)})


def test_mirrors_that_say_nothing_cost_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "ANSWER_S", 0.5)
    with mute_port() as port:
        names = [f"{n}.zip" for n in range(60)]
        archives = {"a": spec(*((n, [f"http://127.0.0.1:{port}/{n}"]) for n in names))}
        begin = time.monotonic()
        found = ask_all(archives, limit_s=1.0)
        assert time.monotonic() - begin < 3
    assert {mirror.state for mirror in found} == {"silent"}


def test_the_command_names_what_no_mirror_gives(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    with serving(ROUTES) as base:
        for name in ("whole.zip", "closed.zip"):
            urls = [f"{base}/{name}"]
            params["archives"]["davis"]["files"].append({"name": name, "urls": urls})
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        done = run(tmp_path, "hqsam", "doctor", "urls", "--json", str(tmp_path / "out.json"))
        assert done.returncode == 1, done.stderr
        assert "no mirror gives davis/closed.zip" in done.stdout
        assert "works      davis/whole.zip" in done.stdout
        rows = json.loads((tmp_path / "out.json").read_text())["mirrors"]
        assert [r["usable"] for r in rows if r["file"] == "closed.zip"] == [False]
        (tmp_path / "data" / "drop").mkdir(parents=True)
        (tmp_path / "data" / "drop" / "closed.zip").write_bytes(BODY)
        assert run(tmp_path, "hqsam", "doctor", "urls").returncode == 0
