"""`hqsam compare` reads the commits of strangers: one message or a comparison, never a traceback, a long wait or a file outside."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from hqsam_base.errors import UserError
from hqsam_metrics import bounded_parquet
from hqsam_metrics.base import Quantity
from hqsam_pipelines.compare.as_json import to_json
from hqsam_pipelines.compare.comparison import compare
from hqsam_pipelines.compare.revisions import Repository, Revision
from hqsam_pipelines.compare.terminal import show
from hqsam_pipelines.config import strict
from hqsam_pipelines.report import kept_tables, units
from hqsam_pipelines.report.units import quantity_values, units_frame
from tests.pipelines.working_copy import git

PLACE = "reports/metrics/coift-nano.json"
ITEM = {
    "prompt_set": "gt_box",
    "system": "sam",
    "metrics": {"mIoU": 0.5},
    "n_expected": 3,
    "n_scored": 3,
    "protocol": {"metric": "masks"},
    "protocol_hash": "ab12",
}
METRICS: dict[str, Any] = {"benchmark": "coift", "model": "nano", "version": 1, "results": [ITEM]}
OUT = {"path": "data/scores/coift-nano", "md5": "0" * 32 + ".dir"}
LOCK = {"schema": "2.0", "stages": {"score@coift-nano": {"cmd": "x", "outs": [OUT]}}}
PARAMS = {
    "seed": 0,
    "benchmarks": {"coift": {"score": {"output": "hq_token"}}},
    "models": {"nano": {}},
}
SUBJECT = "a \\[/] \\\\[bold] \x1b[2J\u202e end\\"


def item(**changed: Any) -> bytes:
    return json.dumps({**METRICS, "results": [{**ITEM, **changed}]}).encode()


def lock(**changed: Any) -> bytes:
    return yaml.safe_dump(
        {**LOCK, "stages": {"score@coift-nano": {"outs": [{**OUT, **changed}]}}}
    ).encode()


def aliases(levels: int = 6) -> bytes:
    """A million values by way of aliases; whoever builds them shares the lists, so they cost nothing."""
    lines = [
        "a0: &a0 [x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)),
    ]
    return "\n".join(lines).encode()


REFUSED = {
    "metrics: no JSON": (PLACE, b"{"),
    "metrics: no UTF-8": (PLACE, b'{"benchmark": "\xff"}'),
    "metrics: a list": (PLACE, b"[]"),
    "metrics: deep": (PLACE, b'{"results": ' + b"[" * 2000 + b"]" * 2000 + b"}"),
    "metrics: deep protocol": (PLACE, item(protocol=json.loads("[" * 60 + "]" * 60))),
    "metrics: nested protocol": (PLACE, item(protocol={"a": json.loads("[" * 60 + "]" * 60)})),
    "metrics: a name that is a path": (
        PLACE,
        json.dumps({**METRICS, "benchmark": "../../x"}).encode(),
    ),
    "metrics: a model that is a path": (PLACE, json.dumps({**METRICS, "model": "/tmp/x"}).encode()),
    "metrics: a system of two words": (PLACE, item(system="a b")),
    "metrics: NaN": (PLACE, json.dumps({**METRICS, "version": float("nan")}).encode()),
    "metrics: endless count": (
        PLACE,
        item(n_expected=1).replace(b'"n_expected": 1', b'"n_expected": 1e999'),
    ),
    "metrics: true for a number": (PLACE, item(metrics={"mIoU": True})),
    "metrics: a text for a number": (PLACE, item(metrics={"mIoU": "0.5"})),
    "metrics: endless": (PLACE, item(metrics={"mIoU": 1}).replace(b"1}", b"1e999}")),
    "metrics: beyond all scales": (PLACE, item(metrics={"mIoU": 1.7e308})),
    "metrics: true for a count": (PLACE, item(n_scored=True)),
    "metrics: a result twice": (
        PLACE,
        json.dumps({**METRICS, "results": [ITEM, {**ITEM, "metrics": {"mIoU": 0.6}}]}).encode(),
    ),
    "metrics: long number": (
        PLACE,
        item(n_expected=1).replace(b'"n_expected": 1', b'"n_expected": ' + b"9" * 4000),
    ),
    "metrics: results of another kind": (
        PLACE,
        json.dumps({**METRICS, "results": {"a": 1}}).encode(),
    ),
    "metrics: large": (PLACE, b" " * (strict.MAX_BYTES + 1)),
    "metrics: a strange file name": ("reports/metrics/a\n\x1bb.json", b"{}"),
    "lock: deep": ("dvc.lock", b"a: " + b"[" * 40 + b"]" * 40),
    "lock: aliases of aliases": ("dvc.lock", aliases()),
    "lock: holds itself": ("dvc.lock", b"stages: &s {a: *s}"),
    "lock: a list": ("dvc.lock", b"[1]"),
    "lock: stages of another kind": ("dvc.lock", b"stages: [1]"),
    "lock: outs of another kind": ("dvc.lock", b"stages: {a: {outs: 5}}"),
    "lock: a digest that is a path": ("dvc.lock", lock(md5="../../../../etc/hostname")),
    "lock: a short digest": ("dvc.lock", lock(md5="00")),
    "lock: a date that is none": ("dvc.lock", b"a: 2001-99-99"),
    "lock: a list as key": ("dvc.lock", b"? [a]\n: b"),
    "lock: code": ("dvc.lock", b"a: !!python/object/apply:os.getcwd []"),
    "lock: no UTF-8": ("dvc.lock", b"a: \xff\xfe"),
    "params: long number": ("params.yaml", b"seed: 0x" + b"f" * 9000),
    "params: base 60": ("params.yaml", b"seed: 1" + b":1" * (strict.MAX_SCALAR // 2)),
    "params: benchmarks of another kind": ("params.yaml", b"benchmarks: [coift]"),
    "params: a section of another kind": ("params.yaml", b"benchmarks: {coift: {score: [1]}}"),
    "params: a name that is a path": ("params.yaml", b"benchmarks: {../x: {}}"),
}
"""Of a revision with one file replaced: what it is, its path and content."""

TAKEN = {
    "metrics: an undefined value": (PLACE, item(metrics={"mIoU": None})),
    "metrics: a whole number": (PLACE, item(metrics={"mIoU": 1})),
    "params: nothing": ("params.yaml", b""),
    "params: other keys": ("params.yaml", b"old: {1: [2]}\nbenchmarks: {}\n"),
    "params: a secret": ("params.yaml", b"seed: 0\nurl: https://me:passw0rd@host/x?sig=s1gned\n"),
    "params: systems of another kind": ("params.yaml", b"systems: [1]\n"),
    "params: a few aliases": ("params.yaml", b"a: &a {x: 1}\nb: *a\nc: {<<: *a}\n"),
    "lock: nothing": ("dvc.lock", b""),
    "lock: a digest that nobody has": ("dvc.lock", lock(md5="f" * 32)),
    "lock: markup": ("dvc.lock", lock(path="data/[/red]\\[x]")),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "repo"
    root.mkdir()
    git(root, "init", "-q")
    commit(
        root,
        {
            PLACE: item(),
            "dvc.lock": yaml.safe_dump(LOCK).encode(),
            "params.yaml": yaml.safe_dump(PARAMS).encode(),
        },
    )
    return root


def commit(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", SUBJECT)


def against_the_first(root: Path, place: str, content: bytes, act: Callable[[], Any]) -> Any:
    """What `act` gives with one file of HEAD replaced; it must not take long."""
    git(root, "checkout", "-q", "-B", "other", "main")
    commit(root, {place: content})
    begin = time.process_time()
    try:
        return act()
    finally:
        assert time.process_time() - begin < 1.0
        git(root, "reset", "-q", "--hard", "main")


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_revision_is_one_message(repository: Path, name: str) -> None:
    place, content = REFUSED[name]
    with pytest.raises(UserError) as told:
        against_the_first(repository, place, content, lambda: compare(repository, "main", "HEAD"))
    text = str(told.value)
    assert (
        place.partition("\n")[0].partition("/")[0] in text
        and "\x1b" not in text
        and len(text) < 1000
    )


@pytest.mark.parametrize("name", TAKEN)
def test_an_odd_revision_is_compared(repository: Path, name: str) -> None:
    out = io.StringIO()

    def act() -> None:
        found = compare(repository, "main", "HEAD")
        show(found, Console(file=out, width=150))
        out.write(json.dumps(to_json(found)["params"]))

    against_the_first(repository, *TAKEN[name], act)
    text = out.getvalue()
    assert r"a \[/] \\[bold] \x1b[2J\u202e end" + "\\" in text, (
        "the subject, as it is, but for control characters"
    )
    assert "\x1b" not in text and "passw0rd" not in text and "s1gned" not in text


def test_a_link_at_a_revision_is_not_followed(repository: Path, tmp_path: Path) -> None:
    git(repository, "checkout", "-q", "-B", "other", "main")
    (tmp_path / "outside.json").write_bytes(item())
    (repository / PLACE).unlink()
    (repository / PLACE).symlink_to(tmp_path / "outside.json")
    commit(repository, {})
    with pytest.raises(UserError, match="not a metrics file"):
        compare(repository, "main", "HEAD")
    git(repository, "reset", "-q", "--hard", "main")


@pytest.mark.parametrize(
    "listing",
    [
        b"no JSON",
        b"{}",
        b'[{"relpath": "../../evil", "md5": "%s"}]' % (b"0" * 32),
        b'[{"relpath": "/etc/x", "md5": "%s"}]' % (b"0" * 32),
        b'[{"relpath": "instances.parquet", "md5": "../../x"}]',
        b"[" * 2000,
    ],
)
def test_a_listing_of_strangers_names_no_place_outside(repository: Path, listing: bytes) -> None:
    side = Repository(repository)
    place = repository / ".dvc/cache/files/md5/00" / ("0" * 30 + ".dir")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(listing)
    revision: Revision = side.revision("main")
    with pytest.raises(UserError, match="DVC's listing"):
        side.output_names(revision, "data/scores/coift-nano")
    place.unlink()


def test_a_table_of_strangers_has_the_columns_and_types_of_ours() -> None:
    import pandas as pd

    good = {
        "prompt_set": ["gt_box"] * 2,
        "system": ["sam"] * 2,
        "key": ["a", "b"],
        "cluster": ["a", "b"],
        "unit": ["1", "1"],
        "iou": [0.5, np.nan],
        "biou": [0.5, 0.4],
    }

    def read(**changed: Any) -> Any:
        table = io.BytesIO()
        pd.DataFrame({**good, **changed}).to_parquet(table)
        return units_frame(table, "x")

    absent = Quantity("J", ("j",))  # a metric's column that this table lacks
    assert np.isnan(quantity_values(read(), absent)).tolist() == [True, True]
    for changed in (
        {"iou": ["a", "b"]},
        {"key": [1, 2]},
        {"key": ["a", None]},
        {"key": ["a", "a"]},
        {"unit": [[1], [2]]},
    ):
        with pytest.raises(UserError, match="per-instance table"):
            read(**changed)
    for junk in (b"", b"PAR1" * 10, b"x" * 100):
        with pytest.raises(UserError, match="cannot be read"):
            units_frame(io.BytesIO(junk), "x")


def test_a_small_table_that_stands_for_a_large_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pandas as pd

    def table(text: str) -> io.BytesIO:
        names = ("prompt_set", "system", "key", "cluster", "unit")
        found = io.BytesIO()
        pd.DataFrame({n: [text, text + "b"] for n in names} | {"iou": [0.5, 0.5]}).to_parquet(found)
        return found

    assert list(units_frame(table("a"), "x")["key"]) == ["a", "ab"]
    with pytest.raises(UserError, match="a text of 2001 characters"):
        units_frame(table("a" * 2000), "x")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="2 rows, the limit is 1"):
        patch.setattr(units, "_MOST_ROWS", 1)
        units_frame(table("a"), "x")


def test_what_a_table_needs_in_memory_is_known_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pandas as pd

    def table(**changed: Any) -> io.BytesIO:
        found = io.BytesIO()
        names = ("prompt_set", "system", "key", "cluster")
        texts = dict.fromkeys(names, ["a" * 90] * 1000) | {"unit": [str(n) for n in range(1000)]}
        pd.DataFrame({**texts, "iou": [0.5] * 1000, **changed}).to_parquet(found)
        return found

    assert len(units_frame(table(), "x")) == 1000
    for kind, content in {"nested": [[0.5]] * 1000, "more": ["a"] * 1000}.items():
        with pytest.raises(UserError, match=f"column {kind}.* holds neither"):
            units_frame(table(**{kind: content}), "x")
    monkeypatch.setattr(bounded_parquet, "MOST_BYTES", 20_000)
    with pytest.raises(UserError, match="needs 28000 bytes of memory"):
        units_frame(table(), "x")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
def test_an_archive_of_tables_holds_plain_files_alone(kind: bytes) -> None:
    """A link may lead to itself, and a sparse file be larger than any memory."""
    header = tarfile.TarInfo("instances.parquet")
    header.type, header.linkname = kind, header.name
    archive = lzma.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match="no plain file"):
        kept_tables.unpacked(archive, "x")


@pytest.mark.parametrize("size", [-1, 1 << 40, 1 << 80])
def test_a_length_that_no_archive_can_hold_is_one_message(size: int) -> None:
    """What a header can say is larger than any number that a file can be asked for."""
    header = tarfile.TarInfo("instances.parquet")
    header.size = size
    archive = lzma.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match="possible length"):
        kept_tables.unpacked(archive, "x")


def test_an_archive_of_tables_holds_a_few_files_each_once() -> None:
    def archive(*names: str) -> bytes:
        headers = [tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT) for name in names]
        return lzma.compress(b"".join(headers) + bytes(1024))

    assert kept_tables.unpacked(archive("later.parquet", "truth.parquet"), "x")[0] == {
        "truth.parquet": b""
    }
    with pytest.raises(UserError, match=r"truth\.parquet twice"):
        kept_tables.unpacked(archive("truth.parquet", "truth.parquet"), "x")
    with pytest.raises(UserError, match="more than 16 files"):
        kept_tables.unpacked(archive(*["other"] * 17), "x")
