"""`hqsam evaluate`: some systems on one benchmark, without an edit of params.yaml and without training data.

The same libraries as the stages', into a folder with the layout of a repository:
`data/benchmarks`, `data/predictions`, `data/scores`, `reports/metrics`, `reports/tables` and the
params.yaml that would make the same run. Nothing of the repository changes; only an archive that was
never fetched is fetched to its usual place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqsam_base.atomic import read_json, write_text
from hqsam_base.errors import UserError
from hqsam_base.progress import Progress
from hqsam_pipelines.config.params import Params
from hqsam_pipelines.report.results import Run, load_run
from hqsam_pipelines.report.rows import Row, make_row, metric_names
from hqsam_pipelines.report.tables import csv_text, interval_text, number, signed, versus

_COMMIT = re.compile(r"(.+)@([0-9a-f]{40})")
_NAMED = re.compile(r"([a-z0-9][a-z0-9_]*)=(.+)")
WITHOUT = "systems"
"""Stands for the name of the model in file names where none of params.yaml is evaluated."""

COLUMNS = (
    "prompt_set",
    "metric",
    "system",
    "value",
    "versus",
    "delta",
    "ci_low",
    "ci_high",
    "n_scored",
    "n_expected",
    "unit",
    "note",
)


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        prompt_set: of the benchmark.
        system: as tables call it.
        row: a metric of it; None: it cannot take the prompts.
        note: why there is no number, or what else should be known.
        versus: as tables call what it is compared with; empty for a baseline.
    """

    prompt_set: str
    system: str
    row: Row | None
    note: str = ""
    versus: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` made.

    Attributes:
        lines: the table.
        files: what was written, for a person.
        warnings: of the metric, each once.
    """

    lines: list[Line]
    files: list[Path]
    warnings: list[str]


def requested(
    params: Params, models: Sequence[str], predictions: Sequence[Path | str], benchmark: str
) -> Params:
    """Return the parameters of a run with these systems on one benchmark.

    Args:
        params: the active profile.
        models: each `[NAME=]X`: a model of params.yaml, a checkpoint file, a folder of the
            transformers library, or `OWNER/NAME@COMMIT` on the hub.
        predictions: each `[NAME=]PATH`: masks that another program made.
        benchmark: of params.yaml.

    Raises:
        UserError: an X is none of these, two systems have one name, or several models of params.yaml
            are named.
    """
    section = params.entry("benchmarks", benchmark)
    own = [model for model in models if model in params.models]
    if len(own) > 1:
        raise UserError(
            f"{' and '.join(own)} are models of params.yaml: their systems have the same names",
            key="--model",
            cure="evaluate them one after the other, or give their checkpoint files",
        )
    entries: dict[str, dict[str, Any]] = {}
    if own:
        entries["sam_hq"] = {"kind": "sam_hq"}
    output = str(section["score"].get("output", "hq_token"))
    for given in [model for model in models if model not in own]:
        name, value = _named(given)
        _add(entries, name, _model(value, output if output != "sam" else "hq_sum"), "--model")
    for given in map(str, predictions):
        name, value = _named(given)
        values = {"kind": "predictions", "path": str(Path(value).absolute())}
        _add(entries, name, values, "--predictions")
    if not entries:
        raise UserError(
            "there is nothing to evaluate",
            key="--model",
            cure="give --model or --predictions, or both",
        )
    if not own:
        first, *rest = entries
        for name in rest:
            if entries[name]["kind"] != "checkpoint":  # compared with the SAM of its own file
                entries[name]["versus"] = first
    raw = {**params.raw, "systems": entries, "benchmarks": {benchmark: dict(section)}}
    if own:
        raw["models"] = {own[0]: params.raw["models"][own[0]]}
    return Params.of(raw, params.file)


def _named(given: str) -> tuple[str, str]:
    """The name and what it stands for; without a name, one made of the last part."""
    if match := _NAMED.fullmatch(given):
        return match[1], match[2]
    last = given.partition("@")[0].rstrip("/").rpartition("/")[2]
    stem = last.rpartition(".")[0] if Path(given).is_file() else last
    name = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")
    return name or "system", given


def _add(entries: dict[str, dict[str, Any]], name: str, values: dict[str, Any], key: str) -> None:
    taken = {"sam", "hq_token", "hq_sum"} if "sam_hq" in entries else set()
    if name in entries or name in taken:
        raise UserError(
            f"two systems are called {name}", key=key, cure=f"name one of them: {key} NAME=..."
        )
    entries[name] = values


def _model(value: str, output: str) -> dict[str, Any]:
    path = Path(value).expanduser()
    if path.is_file():
        path = path.absolute()
        if (entry := _of_a_package(path)) is not None:
            return entry
        from hqsam.model import checkpoint

        plain = not checkpoint.read(path).head
        return {
            "kind": "checkpoint",
            "checkpoint": str(path),
            "output": "sam" if plain else output,
        }
    if path.is_dir():
        return {"kind": "transformers", "model": str(path.absolute())}
    if match := _COMMIT.fullmatch(value):
        return {"kind": "transformers", "model": match[1], "revision": match[2]}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", value):
        raise UserError(
            f"{value}: no such file or folder; a name on the hub needs its commit",
            key="--model",
            cure=f"give {value}@COMMIT, 40 hex digits: a branch can change",
        )
    raise UserError(
        f"{value}: no model of params.yaml, no file, no folder, and no name on the hub",
        key="--model",
        cure="correct it; models of params.yaml are named in its section `models`",
    )


def _of_a_package(path: Path) -> dict[str, Any] | None:
    """The entry of a file that a package's authors published, by its name; None: it is none."""
    if re.match(r"sam2(\.1)?_hiera_(tiny|small|base_plus|large)", path.name):
        return {"kind": "sam2", "checkpoint": str(path)}
    if found := re.match(r"efficientvit_sam_(l[012]|xl[01])\b", path.stem):
        model = f"efficientvit-sam-{found[1]}"
        return {"kind": "efficientvit_sam", "model": model, "checkpoint": str(path)}
    return None


def evaluate(
    *,
    root: Path,
    params: Params,
    prompts: Sequence[str],
    out: Path,
    progress: Progress,
    device: str = "auto",
) -> Evaluation:
    """Index, predict and score.

    Args:
        root: the repository.
        params: of `requested`: one benchmark, the systems.
        prompts: prompt sets; none: those of params.yaml.
        out: folder to write.
        progress: told how far the work is.
        device: see `PredictOptions`.

    Raises:
        UserError: a system, a file or a prompt set does not fit; nothing was encoded then.
    """
    from hqsam import systems
    from hqsam.prediction.benchmark import predict
    from hqsam_metrics.benchmark import score_benchmark

    [benchmark] = params.benchmarks
    own = params.models[0] if "sam_hq" in params.raw["systems"] else None
    model = own or WITHOUT
    if prompts:
        section = params.raw["benchmarks"][benchmark]
        index = {**section["index"], "prompt_sets": list(prompts)}
        params = Params.of(
            {**params.raw, "benchmarks": {benchmark: {**section, "index": index}}}, params.file
        )
    params.index(benchmark)
    entries, score = params.systems, _score_options(params, benchmark)
    head = _head(root, params, own, out, progress) if own else None
    for entry in entries:
        systems.load(entry.options.kind).inputs(entry)
    folder = _indexed(root, params, benchmark, out, anew=bool(prompts), progress=progress)
    name = f"{benchmark}-{model}"
    places = {kind: out / "data" / kind / name for kind in ("predictions", "scores")}
    metrics = out / "reports" / "metrics" / f"{name}.json"
    told = predict(
        benchmark=folder,
        model=params.model(own) if own else None,
        head=head,
        options=params.predict(benchmark).model_copy(update={"device": device}),
        out=places["predictions"],
        progress=progress,
        entries=entries,
        lenient=True,
    )
    score_benchmark(
        benchmark=folder,
        predictions=places["predictions"],
        options=score,
        out_json=metrics,
        out=places["scores"],
        progress=progress,
    )
    raw = params.raw if own else {**params.raw, "models": {WITHOUT: {}}}
    run = load_run(out, raw)
    run = Run(out, raw, [r for r in run.results if (r.benchmark, r.model) == (benchmark, model)])
    lines = table(run, benchmark, model, told)
    csv = out / "reports" / "tables" / f"{name}.csv"
    write_text(csv, csv_text(COLUMNS, [_cells(line) for line in lines]))
    write_text(out / "params.yaml", _yaml(params.raw))
    warnings = list(dict.fromkeys(text for r in run.results for text in r.warnings))
    return Evaluation(lines, [csv, metrics, places["scores"], places["predictions"]], warnings)


def _head(root: Path, params: Params, model: str, out: Path, progress: Progress) -> Path:
    """The head of a model of params.yaml: what training left, or, for one that trains nothing, its checkpoint's."""
    head = root / "models" / model / "hq_head.safetensors"
    if head.is_file():
        return head
    train = params.train(model)
    if train.epochs:
        raise UserError(
            f"the head of {model} does not exist",
            file=head,
            key="--model",
            cure=f"run `dvc repro train@{model}`, or give a checkpoint file",
        )
    from hqsam.model import checkpoint
    from hqsam.model.build import build_model
    from hqsam.training import checks

    options = params.model(model)
    fetched = root / "data" / "archives"
    if options.checkpoint is not None and (root / options.checkpoint).is_relative_to(fetched):
        _fetch(root, params, (root / options.checkpoint).relative_to(fetched).parts[0], progress)
    net = build_model(options, seed=params.training_seed(model))
    checks.check_given(net, options, train)
    taken = out / head.relative_to(root)
    taken.parent.mkdir(parents=True, exist_ok=True)
    note = {"backbone": options.backbone, "variant": options.variant}
    checkpoint.save_head(taken, net.head, metadata=note)
    return taken


def _fetch(root: Path, params: Params, archive: str, progress: Progress) -> None:
    """Fetch an archive to its usual place unless it is there."""
    from hqsam_pipelines.runner.stage import Job
    from hqsam_pipelines.stages import fetch

    if not (root / "data" / "archives" / archive / "fetch.json").is_file():
        fetch.run(Job(root=root, params=params, names=(archive,), progress=progress))


def _score_options(params: Params, benchmark: str) -> Any:
    """The `score` section; what HQ-SAM is in it need not be among the systems."""
    from hqsam_metrics.base import score_options

    section = params.entry("benchmarks", benchmark)["score"]
    return score_options({**section, **params.protocol(benchmark, "score")})


def _indexed(
    root: Path, params: Params, benchmark: str, out: Path, *, anew: bool, progress: Progress
) -> Path:
    """The folder of the benchmark: the repository's, or one of its own where that has not been made or other prompts are asked for."""
    from hqsam_pipelines.runner.stage import Job
    from hqsam_pipelines.stages import index

    made = root / "data" / "benchmarks" / benchmark
    if not anew and (made / "index.json").is_file():
        return made
    _fetch(root, params, str(params.entry("benchmarks", benchmark)["archive"]), progress)
    folder = out / "data" / "benchmarks" / benchmark
    job = Job(root=root, params=params, names=(benchmark,), progress=progress)
    index.run(job, folder)
    lost = read_json(folder / "index.json").get("missing", {}).get("prompt_sets", [])
    if lost:
        raise UserError(
            f"the prompts {', '.join(lost)} are not available for {benchmark}",
            file=folder / "index.json",
            key="--prompts",
            cure="look at `missing` there: it says what to do; or ask for other prompts",
        )
    return folder


def table(run: Run, benchmark: str, model: str, told: Mapping[str, Any]) -> list[Line]:
    """Return the lines of the table: for each prompt set and metric every system, in the order given.

    Args:
        run: the results.
        benchmark: of the run.
        model: of the run.
        told: the content of ``predict.json``.
    """
    unsupported, failed = told.get("unsupported", {}), told.get("failed", {})
    lines = []
    every = {
        *run.prompt_sets(benchmark, model),
        *(s for sets in unsupported.values() for s in sets),
    }
    for prompt_set in sorted(every):
        score, names = run.score(benchmark), metric_names(run, model, benchmark, prompt_set)
        headline = [name for name in score.headline if name in names]
        # interactive prompts have values of their own
        for metric in headline or [name for name in names if not score.value(name).detail]:
            for system in run.systems:
                if run.find(benchmark, model, prompt_set, system.name) is None:
                    continue
                row = make_row(run, model, benchmark, prompt_set, metric, system.name)
                if row is not None:
                    against = versus(row, run)
                    note = row.interval.too_few if row.interval and against else ""
                    lines.append(Line(prompt_set, system.label, row, note, against))
        for system in run.systems:
            if prompt_set in unsupported.get(system.name, ()):
                note = "cannot take these prompts"
                if system.name in failed:
                    note = f"not opened: {failed[system.name]}"
                lines.append(Line(prompt_set, system.label, None, note))
    return lines


def _cells(line: Line) -> list[str]:
    row = line.row
    if row is None:
        return [line.prompt_set, "", line.system, *[""] * (len(COLUMNS) - 4), line.note]
    low, high = (row.interval.low, row.interval.high) if row.interval else (None, None)
    compared = bool(line.versus)
    return [
        line.prompt_set,
        row.metric,
        line.system,
        number(row.hq, 4),
        line.versus,
        number(row.delta, 4) if compared else "",
        number(low, 4) if compared else "",
        number(high, 4) if compared else "",
        str(row.n_scored),
        str(row.n_expected),
        row.scale.unit,
        line.note,
    ]


def shown(line: Line) -> list[str]:
    """Return the cells of a line on the terminal: prompts, metric, system, value, against, difference, interval."""
    row = line.row
    if row is None:
        return [line.prompt_set, "", line.system, line.note, "", "", ""]
    delta, interval = "", ""
    if line.versus:
        delta, interval = signed(row.delta), interval_text(row.interval)
    value = number(row.hq, 1)
    return [line.prompt_set, row.label, line.system, value, line.versus, delta, interval]


def _yaml(raw: Any) -> str:
    import yaml

    head = "# What `hqsam evaluate` ran: the sections of the profile with its systems.\n"
    return head + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
