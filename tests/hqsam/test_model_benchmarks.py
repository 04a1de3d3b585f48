"""The model benchmarks that need a GPU or a pipeline that has run: every line of theirs on what is always there."""

import json

import torch

from perf.model import bench_gpu, bench_precision


def test_the_gpu_benchmark_runs_on_a_cpu_and_promises_nothing_there(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    words = [
        "--device",
        "cpu",
        "--backbone",
        "nano",
        "--batch",
        "2",
        "--rounds",
        "1",
        "--root",
        str(tmp_path),
        "--json",
        str(out),
    ]
    monkeypatch.setattr("sys.argv", ["bench_gpu", *words])
    assert bench_gpu.main() == 0
    found = json.loads(out.read_text())
    speed = found["results"]["speed"]
    assert 0 < speed["features_differ_percent"] < bench_gpu.AGREEMENT
    assert all(
        speed[way][name]["rate"] > 0
        for way in ("pixels", "encoder", "encoder_tf32")
        for name in ("original", "hqsam")
    )
    assert [row["met"] for row in found["rows"]] == [None, None, None, True, None]
    assert "--root" in capsys.readouterr().out
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_gpu_promise_is_kept_or_missed():
    rates = {"original": {"rate": 10.0, "peak_gb": 3.0}, "hqsam": {"rate": 39.0, "peak_gb": 5.0}}
    found = {
        "device": "x",
        "batch": 8,
        "features_differ_percent": 1.0,
        "pixels": rates,
        "encoder": rates,
        "encoder_tf32": rates,
    }
    assert bench_gpu.speed_rows(found, "vit_l", promised=True)[0].met is False
    found["pixels"] = {**rates, "hqsam": {"rate": 41.0, "peak_gb": 5.0}}
    assert bench_gpu.speed_rows(found, "vit_l", promised=True)[0].met is True


def test_the_gpu_form_of_the_attention_is_put_back():
    from hqsam.model import attention

    before = attention._attend_by_rows
    with bench_precision._attention("folded"):
        assert attention._attend_by_rows is attention._attend_folded
    assert attention._attend_by_rows is before


def test_a_change_of_precision_shows_in_the_table():
    scores = {"sam": {"mIoU": 50.0, "mBIoU": 40.0}}
    worse = {"sam": {"mIoU": 49.5, "mBIoU": 40.0}}
    coarse = {"sam": {"mIoU": 50.0, "mBIoU": 39.4}}
    sets = {"float32": scores, "bfloat16": scores, "folded": worse, "int8": coarse}
    found = {
        "model": "nano",
        "sets": {way: dict.fromkeys(bench_precision.SETS, one) for way, one in sets.items()},
        "means": sets,
    }
    rows = {row.what: row for row in bench_precision.table(found)}
    assert rows["nano, four HQ sets, sam: change of mIoU, folded"].value == "-0.50 points"
    assert rows["nano, four HQ sets, sam: change of mIoU, folded"].peer == "float32: 50.00"
    assert rows["nano, four HQ sets, sam: change of mBIoU, int8"].met is False
    last = list(rows)[-1]
    assert "mBIoU, int8" in last and rows[last].value == "0.60 points"
