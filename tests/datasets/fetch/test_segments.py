"""Large files over several connections: cuts, kills, servers that do not go along."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from hqsam_datasets.fetch.http import download
from hqsam_datasets.fetch.transfer import DownloadError, RetryPolicy, Transfer
from tests.datasets.fetch.archives import QUICK, blob
from tests.datasets.fetch.server import Behaviour, serving

BYTES = {"Accept-Ranges": "bytes"}
SEGMENTS = Transfer(policy=QUICK, sleep=lambda s: None, segments=3, segment_bytes=10_000)


def only_part(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_large_files_come_over_several_connections(tmp_path: Path) -> None:
    body = blob(100_001)
    served = Behaviour(body, headers=BYTES)
    seen: list[tuple[int, int]] = []
    how = Transfer(
        policy=QUICK,
        segments=3,
        segment_bytes=10_000,
        progress=lambda done, total: seen.append((done, total)),
    )
    with serving({"/x": served}) as base:
        download(f"{base}/x", tmp_path / "p", how)
    assert (tmp_path / "p").read_bytes() == body and only_part(tmp_path) == ["p"]
    ranges = {request.get("Range") for request in served.requests}
    assert ranges == {None, "bytes=0-0", "bytes=0-33333", "bytes=33334-66667", "bytes=66668-100000"}
    assert seen[-1] == (100_001, 100_001) and [done for done, _ in seen] == sorted(
        done for done, _ in seen
    )


def test_segments_survive_random_cuts(tmp_path: Path) -> None:
    body, dice = blob(300_000), random.Random(2)
    cuts = [dice.randrange(1, 9000) for _ in range(60)]
    served = Behaviour(body, headers=BYTES, cut=lambda n: cuts[n] if 2 <= n < 60 else None)
    with serving({"/x": served}) as base:
        download(f"{base}/x", tmp_path / "p", SEGMENTS)
    assert (tmp_path / "p").read_bytes() == body and only_part(tmp_path) == ["p"]


def test_segments_are_resumed_by_the_next_run(tmp_path: Path) -> None:
    body = blob(90_000)
    served = Behaviour(body, headers=BYTES, cut=lambda n: 5000 if n >= 2 else None)
    with serving({"/x": served}) as base:
        hasty = Transfer(policy=RetryPolicy(attempts=1), segments=3, segment_bytes=10_000)
        with pytest.raises(DownloadError):
            download(f"{base}/x", tmp_path / "p", hasty)
        kept = {p.name: p.stat().st_size for p in tmp_path.glob("p.seg[0-9]")}
        assert kept == {"p.seg0": 5000, "p.seg1": 5000, "p.seg2": 5000}
        served.cut = lambda n: None
        before = len(served.requests)
        download(f"{base}/x", tmp_path / "p", SEGMENTS)
    assert (tmp_path / "p").read_bytes() == body and only_part(tmp_path) == ["p"]
    asked = {request["Range"] for request in served.requests[before:]}
    assert asked == {"bytes=5000-29999", "bytes=35000-59999", "bytes=65000-89999"}


def test_joining_can_be_interrupted_anywhere(tmp_path: Path) -> None:
    body = blob(90_000)
    state = {"validator": '"v"', "total": 90_000, "count": 3}
    cases = {
        "not begun": (None, (0, 1, 2)),
        "renamed": (30_000, (1, 2)),
        "half of one": (41_234, (1, 2)),
        "one joined": (60_000, (1, 2)),
        "one removed": (60_000, (2,)),
        "all joined": (90_000, (2,)),
        "all removed": (90_000, ()),
    }
    with serving({"/x": Behaviour(body, headers=BYTES)}) as base:
        for name, (joined, left) in cases.items():
            folder = tmp_path / name
            folder.mkdir()
            (folder / "p.segments.json").write_text(json.dumps({**state, "url": f"{base}/x"}))
            if joined is not None:
                (folder / "p").write_bytes(body[:joined])
            for number in left:
                (folder / f"p.seg{number}").write_bytes(
                    body[30_000 * number : 30_000 * (number + 1)]
                )
            download(f"{base}/x", folder / "p", SEGMENTS)
            assert (folder / "p").read_bytes() == body, name
            assert only_part(folder) == ["p"], name


def test_a_promise_of_ranges_that_is_not_kept(tmp_path: Path) -> None:
    body = blob(100_000)
    served = Behaviour(body, headers=BYTES, ranges=False)
    with serving({"/x": served}) as base:
        download(f"{base}/x", tmp_path / "p", SEGMENTS)
    assert (tmp_path / "p").read_bytes() == body and only_part(tmp_path) == ["p"]


def test_a_file_that_changes_between_segments(tmp_path: Path) -> None:
    old, new = blob(90_000, 1), blob(90_000, 2)
    served = Behaviour(old, headers=BYTES, cut=lambda n: 5000 if n >= 2 else None)
    with serving({"/x": served}) as base:
        hasty = Transfer(policy=RetryPolicy(attempts=1), segments=3, segment_bytes=10_000)
        with pytest.raises(DownloadError):
            download(f"{base}/x", tmp_path / "p", hasty)
        served.body, served.cut = new, lambda n: None
        download(f"{base}/x", tmp_path / "p", SEGMENTS)
    assert (tmp_path / "p").read_bytes() == new and only_part(tmp_path) == ["p"]
