"""params.yaml: every mistake gives one message that names file, key, the expected type and near matches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from hqsam_base.errors import UserError
from hqsam_pipelines.config import schema
from hqsam_pipelines.config.outline import FILE_NAMES, check_names
from hqsam_pipelines.config.params import OPTIONS, Params, options_class
from hqsam_pipelines.config.yaml_file import read_yaml
from tests import REPOSITORY
from tests.pipelines.working_copy import run

SAMPLE = REPOSITORY / "configs" / "sample.yaml"


def edited(change: Callable[[dict[str, Any]], object]) -> Params:
    raw = copy.deepcopy(read_yaml(SAMPLE))
    assert isinstance(raw, dict)
    change(raw)
    return Params.of(raw, SAMPLE)


def message(change: Callable[[dict[str, Any]], object]) -> str:
    with pytest.raises(UserError) as caught:
        edited(change).check()
    assert SAMPLE.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("profile", sorted(p.stem for p in (REPOSITORY / "configs").glob("*.yaml")))
def test_every_ready_profile_is_valid(profile: str) -> None:
    params = Params.load(REPOSITORY / "configs" / f"{profile}.yaml")
    assert params.profile == profile
    assert params.check() > 10


def test_the_active_profile_is_the_sample() -> None:
    assert (REPOSITORY / "params.yaml").read_bytes() == SAMPLE.read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"a: {b: 1\nc: 2\n", b"a: 2024-13-45\n", b"a: !!int x\n", b"a: \xff\n", b"a: " + b"[" * 1500],
)
def test_what_is_no_yaml_is_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(
        UserError, match=r"(?s)^not readable as YAML: .*params\.yaml.*cure: fix that place"
    ):
        read_yaml(tmp_path / "params.yaml")


@pytest.mark.parametrize("section", ["archives", "shard"])
def test_an_address_without_a_bucket_is_one_message_with_the_cure(section: str) -> None:
    def change(raw: dict[str, Any]) -> None:
        if section == "shard":
            raw["shard"]["copy_to"] = "s3://"
        else:
            next(iter(raw["archives"].values()))["files"][0]["urls"] = ["s3:///x.zip"]

    told = message(change)
    assert (
        "names no bucket" in told
        and f"key: {section}." in told
        and "cure: write it like s3://BUCKET/" in told
    )


HOSTILE = [
    "a; touch x",
    "$(touch x)",
    "`touch x`",
    "a\nb",
    "a b",
    "../x",
    "/x",
    "-x",
    "A",
    "",
    "a'b",
    "a@b",
    "a-b",
    "ä",
    7,
    None,
    True,
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("section", ["archives", "sources", "benchmarks", "models"])
def test_names_are_checked_whatever_else_the_file_holds(section: str, name: object) -> None:
    with pytest.raises(UserError, match="bad name") as caught:
        check_names({"unknown": 1, section: {"fine": {}, name: {}}}, SAMPLE)
    assert (caught.value.file, caught.value.key) == (str(SAMPLE), section)
    for key in FILE_NAMES.get(section, ()):
        with pytest.raises(UserError, match="bad name") as caught:
            check_names({section: {"fine": {key: name}}}, SAMPLE)
        assert caught.value.key == f"{section}.fine.{key}"
    check_names({section: {"fine_1": {}}}, SAMPLE)


def test_options_are_frozen() -> None:
    params = Params.load(SAMPLE)
    for options in (
        params.train("nano"),
        params.model("nano"),
        params.overlap,
        params.source("dis5k"),
        params.score("coco"),
    ):
        name = next(iter(vars(options))) if hasattr(options, "__dict__") else options.__slots__[0]
        with pytest.raises((AttributeError, TypeError, ValueError)):
            setattr(options, name, None)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda r: r.update(trian={}), ["unknown key 'trian'", "key: trian", "did you mean train"]),
        (lambda r: r.update(seed="zero"), ["found 'zero' (str)", "key: seed", "a whole number"]),
        (lambda r: r.update(seed=True), ["found True (bool)", "key: seed"]),
        (lambda r: r.pop("train"), ["missing", "key: train"]),
        (
            lambda r: r["train"].update(epoch=3),
            ["unknown key 'epoch'", "key: train.epoch", "did you mean epochs"],
        ),
        (
            lambda r: r["train"].update(lr="fast"),
            ["found 'fast' (str)", "key: train.lr", "a number"],
        ),
        (lambda r: r["train"].update(feed="cache"), ["key: train.feed", "one of: cached, online"]),
        (
            lambda r: r["train"].update(epochs=-1),
            ["key: train.epochs", "greater than or equal to 0"],
        ),
        (
            lambda r: r.update(sources={}),
            ["the model nano trains for 12 epochs", "key: sources", "train.epochs to 0"],
        ),
        (
            lambda r: r["models"]["nano"].update(backbone="nanno"),
            ["unknown backbone 'nanno'", "models.nano.backbone"],
        ),
        (
            lambda r: r["sources"]["dis5k"].update(archive="dis5"),
            ["unknown archive 'dis5'", "sources.dis5k.archive", "dis5k"],
        ),
        (lambda r: r["sources"]["dis5k"].pop("archive"), ["missing", "key: sources.dis5k.archive"]),
        (
            lambda r: r["sources"]["dis5k"].pop("kind"),
            ["missing", "key: sources.dis5k.kind", "kind: dis5k"],
        ),
        (
            lambda r: r["sources"]["dis5k"].update(kind="foldr"),
            ["'foldr'", "key: sources.dis5k.kind", "did you mean folder?"],
        ),
        (lambda r: r["benchmarks"]["coco"].pop("score"), ["missing", "key: benchmarks.coco.score"]),
        (
            lambda r: r["benchmarks"]["coco"].pop("kind"),
            ["missing", "key: benchmarks.coco.kind", "kind: coco"],
        ),
        (
            lambda r: r["benchmarks"]["coco"].update(kind="foldr"),
            ["'foldr'", "key: benchmarks.coco.kind", "did you mean folder"],
        ),
        (
            lambda r: r["benchmarks"]["coco"]["score"].update(metric="masks"),
            ["not for this set", "coco.score.metric", "metric: coco"],
        ),
        (
            lambda r: r["benchmarks"].update(ecssd=r["benchmarks"]["coift"]),
            ["a source is called ecssd", "key: benchmarks.ecssd"],
        ),
        (
            lambda r: r["benchmarks"]["coco"].update(kind="lvis"),
            ["published set", "key: benchmarks.coco.kind"],
        ),
        (
            lambda r: r["benchmarks"]["coco"]["index"].update(masks="m"),
            ["only own data", "benchmarks.coco.index.masks"],
        ),
        (
            lambda r: r["benchmarks"]["coco"].update(scores={}),
            ["unknown key 'scores'", "did you mean score"],
        ),
        (
            lambda r: r["benchmarks"]["coco"]["score"].update(metric="cocoo"),
            ["benchmarks.coco.score", "cocoo"],
        ),
        (
            lambda r: r["benchmarks"]["coco"]["score"].update(max_det=1),
            ["benchmarks.coco.score.max_det", "did you mean max_dets"],
        ),
        (
            lambda r: r["benchmarks"]["coco"]["score"].update(output="hq"),
            ["unknown system 'hq'", "coco.score.output", "hq_sum"],
        ),
        (
            lambda r: r["benchmarks"]["coco"]["score"].update(max_dets="many"),
            ["score.max_dets", "found 'many' (str)"],
        ),
        (
            lambda r: r["benchmarks"]["coco"]["predict"].update(resize="crop"),
            ["benchmarks.coco.predict.resize", "stretch"],
        ),
        (
            lambda r: r["archives"]["dis5k"]["files"][0].update(url="x"),
            ["key: archives.dis5k.files.0.url", "did you mean urls"],
        ),
        (lambda r: r["archives"].update({"Dis-5K": {}}), ["bad name 'Dis-5K'", "lower-case"]),
        (
            lambda r: r["sources"].update(x=3),
            ["expected a mapping, found 3 (int)", "key: sources.x"],
        ),
        (
            lambda r: r["quality"].update(fg_fraction=0.5),
            ["key: quality.fg_fraction", "a list of a number"],
        ),
    ],
)
def test_a_mistake_names_file_key_and_cure(
    change: Callable[[dict[str, Any]], object], parts: list[str]
) -> None:
    text = message(change)
    for part in parts:
        assert part in text, text


def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("a: 1e-3\nb: no\nc: 010\n")
    assert read_yaml(file) == {"a": 1e-3, "b": "no", "c": 10}


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2\n", "\tx: 1", "- 1\n"])
def test_broken_yaml_is_one_message(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml"):
        Params.load(file)
    with pytest.raises(UserError, match="does not exist"):
        Params.load(tmp_path / "absent.yaml")


def test_a_benchmark_overrides_the_predict_section() -> None:
    params = edited(lambda r: r["benchmarks"]["coco"]["predict"].update(batch_images=3))
    assert params.predict("coco").batch_images == 3
    assert params.predict("dis_vd").batch_images == read_yaml(SAMPLE)["predict"]["batch_images"]  # type: ignore[index]


def test_options_hold_what_the_file_says() -> None:
    # params.py is not among the stages' deps: it may pass values on, and nothing else.
    params = Params.load(SAMPLE)
    for key, value in params.raw["train"].items():
        assert getattr(params.train("nano"), key) == value
    for key, value in params.raw["benchmarks"]["lvis"]["score"].items():
        assert getattr(params.score("lvis"), key) == value


def test_every_section_has_its_own_options_class() -> None:
    for section in OPTIONS:
        assert isinstance(options_class(section), type)


def test_a_fetch_stage_does_not_import_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from hqsam_pipelines.config.params import Params;"
        f"p = Params.load(Path({str(SAMPLE)!r})); p.archive('dis5k'); p.source('dis5k'); "
        f"p.index('coco'); p.score('coco');"
        "sys.exit('torch' in sys.modules)"
    )
    assert run(REPOSITORY, "python", "-c", code).returncode == 0


@dataclass(frozen=True)
class _Example:
    count: int
    rates: tuple[float, ...] = (1.0,)
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({}, "key: s.count"),
        ({"count": 1.5}, "found 1.5 (float)"),
        ({"count": True}, "found True (bool)"),
        ({"count": -1}, "must not be negative"),
        ({"count": 1, "rates": ["x"]}, "expected a list of a number"),
        ({"count": 1, "mode": "c"}, "one of: a, b"),
        ({"count": 1, "modes": "a"}, "did you mean mode"),
    ],
)
def test_plain_dataclasses_are_checked_as_strictly(values: dict[str, object], part: str) -> None:
    with pytest.raises(UserError) as caught:
        schema.build(_Example, values, file=Path("params.yaml"), key="s")
    assert part in str(caught.value)


def test_plain_dataclasses_get_tuples() -> None:
    built = schema.build(
        _Example, {"count": 2, "rates": [1, 2.5]}, file=Path("params.yaml"), key="s"
    )
    assert built == _Example(2, (1, 2.5))
