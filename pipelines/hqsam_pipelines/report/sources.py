"""What the report says about data and provenance, gathered from the stages' own JSON files.

A file that is not there leaves its part of the report out: a run of a few stages still has a
report.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hqsam_base.atomic import read_json, read_jsonl
from hqsam_pipelines.config import origin
from hqsam_pipelines.report.results import Result, Run

LIBRARIES = (
    "hqsam-pipeline",
    "torch",
    "segment-anything",
    "numpy",
    "opencv-python-headless",
    "pycocotools",
    "pillow",
    "pyarrow",
    "pandas",
    "safetensors",
)
"""Libraries whose version can move a number."""


def read_optional(path: Path) -> Mapping[str, Any]:
    """A JSON object, empty if the file does not exist."""
    if not path.is_file():
        return {}
    content = read_json(path)
    return content if isinstance(content, Mapping) else {}


def embedded(run: Run) -> bool:
    """Whether all data are the embedded sample's."""
    urls = [
        u
        for a in run.params.get("archives", {}).values()
        for f in a.get("files", [])
        for u in f.get("urls", [])
    ]
    return bool(urls) and all(str(url).startswith("embedded://") for url in urls)


def origin_words(run: Run) -> list[str]:
    """Whose numbers these are: commit, its date, state of the code, machine; empty outside a git repository."""
    # As it is now, not as reports/provenance.json has it, which may be of other code; and the commit
    # of the code, not HEAD, which moves when a report is committed: the page must be the same again.
    code, host = origin.code_commit(run.root), origin.host()
    if code is None:
        return []
    changed = origin.git_state(run.root)["code_changed"]
    words = [f"commit {code[0][:10]} of {code[1][:10]}"]
    words += ["with uncommitted changes of the code"] if changed else []
    machine = [str(host[key]) for key in ("cpu", "gpu", "machine") if host[key]]
    return [" ".join(words), *machine, f"{host['cores']} cores"]


def sources(run: Run) -> list[dict[str, Any]]:
    """Per training source: samples, expected number, rejects by reason, excluded by the overlap gate."""
    excluded = _excluded_by_source(run)
    found = []
    for name, options in run.params.get("sources", {}).items():
        done = read_optional(run.root / "data" / "samples" / name / "normalise.json")
        if done:
            found.append(
                {
                    "name": name,
                    "archive": options.get("archive", ""),
                    "n_samples": done.get("n_samples"),
                    "n_expected": done.get("n_expected"),
                    "n_rejects": done.get("n_rejects", 0),
                    "reasons": sorted(
                        done.get("rejects_by_reason", {}).items(), key=lambda r: (-r[1], r[0])
                    ),
                    "excluded": excluded.get(name, 0),
                    "digest": done.get("digest", ""),
                }
            )
    return found


def _excluded_by_source(run: Run) -> Counter[str]:
    path = run.root / "data" / "overlap" / "exclusions.jsonl"
    rows = read_jsonl(path) if path.is_file() else []
    names = sorted(run.params.get("sources", {}), key=len, reverse=True)
    owners = [
        row.get("source")
        or next((name for name in names if str(row.get("key", "")).startswith(f"{name}_")), "")
        for row in rows
    ]
    return Counter(owner for owner in owners if owner)


def evaluation_sets(run: Run) -> list[dict[str, Any]]:
    """Per benchmark: kind, images, instances, prompts, version."""
    found = []
    for name in run.benchmarks:
        done = read_optional(run.root / "data" / "benchmarks" / name / "index.json")
        if done:
            prompts = ", ".join(
                f"{count} {kind}" for kind, count in sorted(done.get("n_prompts", {}).items())
            )
            found.append(
                {
                    "name": name,
                    "kind": done.get("kind", ""),
                    "n_images": done.get("n_images"),
                    "n_instances": done.get("n_instances"),
                    "prompts": prompts,
                    "version": done.get("dataset_version", ""),
                    "digest": done.get("digest", ""),
                }
            )
    return found


def overlap(run: Run) -> dict[str, Any]:
    """The overlap gate: pairs by kind and evaluation set, exclusions, the pictures of its gallery with captions."""
    folder = run.root / "data" / "overlap"
    done = read_optional(folder / "overlap.json")
    if not done:
        return {}
    gallery = []
    for entry in done.get("gallery", []):
        kind = str(entry.get("kind", ""))
        pair = f"{entry.get('train_key', '')} (training), {entry.get('key', '')} (evaluation)"
        gallery.append((folder / "gallery" / entry["file"], f"{_KINDS.get(kind, kind)}: {pair}"))
    return {
        "counts": done.get("counts", {}),
        "by_benchmark": done.get("by_benchmark", {}),
        "by_source": done.get("by_source", {}),
        "n_excluded": done.get("n_excluded", sum(_excluded_by_source(run).values())),
        "n_kept": done.get("n_kept", 0),
        "not_compared": done.get("not_compared", []),
        "n_train": done.get("n_train"),
        "n_eval": done.get("n_eval"),
        "n_train_train": sum(done.get("train_train", {}).values()),
        "policy": run.params.get("overlap", {}).get("unresolved", ""),
        "gallery": [(path, text) for path, text in gallery if path.is_file()],
    }


_KINDS = {
    "exact": "Same pixels",
    "near": "Same picture",
    "crop": "Part of the other picture",
    "foreground": "Same object",
    "background": "Same background",
}


def _plain_facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Numbers, flags and names at the top level of a stage's JSON, without digests and versions."""
    skip = {"version", "digest", "success"}
    return [
        (key.replace("_", " "), str(value))
        for key, value in sorted(content.items())
        if key not in skip and isinstance(value, (int, float, str, bool))
    ]


def quality(run: Run) -> dict[str, Any]:
    """The quality gate: whether it passed, how many expectations, which failed."""
    done = read_optional(run.root / "data" / "validation" / "validation.json")
    tables = [
        (name, entry.get("rows"), entry.get("expectations"), entry.get("failed"))
        for name, entry in sorted(done.get("by_table", {}).items())
    ]
    facts = [] if tables else _plain_facts(done)
    return {"facts": facts, "success": done.get("success"), "tables": tables} if done else {}


def missing(run: Run) -> dict[str, str]:
    """Benchmark to why it has no score, or not all: what of it is unavailable, and how to get it."""
    done = read_optional(run.root / "data" / "validation" / "validation.json")
    found = {name: str(text) for name, text in done.get("missing", {}).items()}
    for name in run.params.get("benchmarks", {}):
        index = read_optional(run.root / "data" / "benchmarks" / name / "index.json")
        if index.get("n_images") and index.get("n_instances") == 0:
            found[name] = "the ground truth is private: masks were predicted, nothing was scored"
    return dict(sorted(found.items()))


def training_set(run: Run) -> dict[str, Any]:
    """The shards: samples, shards, bytes."""
    done = read_optional(run.root / "data" / "shards" / "index.json")
    if not done:
        return {}
    shards = done.get("shards", [])
    return {
        "n_samples": done.get("n_samples"),
        "by_source": sorted(done.get("by_source", {}).items()),
        "n_excluded": len(done.get("excluded", [])),
        "n_shards": len(shards),
        "megabytes": sum(int(shard.get("bytes", 0)) for shard in shards) / 1e6,
    }


def models(run: Run) -> list[dict[str, Any]]:
    """Per model: backbone, checkpoint, what training recorded (without wall times)."""
    found = []
    for name in run.models:
        options = run.params.get("models", {}).get(name, {})
        meta = read_optional(run.root / "models" / name / "meta.json")
        facts = [fact for fact in _plain_facts(meta) if fact[0] not in (*options, "model")]
        found.append({"name": name, "options": dict(options), "facts": facts})
    return found


def digests(run: Run) -> list[tuple[str, str]]:
    """(artefact, digest) along the data flow, as the stages wrote them."""
    paths: list[tuple[str, Path, str]] = []
    data = run.root / "data"
    for name in run.params.get("sources", {}):
        paths.append((f"samples/{name}", data / "samples" / name / "normalise.json", "digest"))
    for name in run.benchmarks:
        paths.append((f"benchmarks/{name}", data / "benchmarks" / name / "index.json", "digest"))
    for name in ("overlap", "validation", "shards", "prompts"):
        file = {"overlap": "overlap.json", "validation": "validation.json"}.get(name, "index.json")
        paths.append((name, data / name / file, "digest"))
    for model in run.models:
        paths.append((f"models/{model}", run.root / "models" / model / "meta.json", "digest"))
        for name in run.benchmarks:
            paths.append(
                (
                    f"predictions/{name}-{model}",
                    run.folder("predictions", name, model) / "predict.json",
                    "digest",
                )
            )
            paths.append(
                (
                    f"scores/{name}-{model}",
                    run.folder("scores", name, model) / "scores.json",
                    "digest",
                )
            )
    found = [(name, str(read_optional(path).get(key, ""))) for name, path, key in paths]
    return [(name, digest) for name, digest in found if digest]


def archives(run: Run) -> list[tuple[str, str, str]]:
    """(archive, file, sha256) of what was fetched, from each ``fetch.json``."""
    found = []
    for path in sorted((run.root / "data" / "archives").glob("*/fetch.json")):
        files = read_optional(path).get("files", [])
        items = (
            files.items() if isinstance(files, Mapping) else [(f.get("name", ""), f) for f in files]
        )
        for name, entry in items:
            digest = entry.get("sha256", "") if isinstance(entry, Mapping) else str(entry)
            found.append((path.parent.name, str(name), str(digest)))
    return found


def versions() -> list[tuple[str, str]]:
    """(library, version) of what can move a number, and Python's."""
    found = [("python", ".".join(platform.python_version_tuple()[:2]))]
    for name in LIBRARIES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def unsupported(run: Run, benchmark: str) -> dict[str, list[str]]:
    """The prompt sets that systems could not be given, by system."""
    found = read_optional(run.folder("predictions", benchmark, run.models[0]) / "predict.json").get(
        "unsupported", {}
    )
    return {str(system): [str(name) for name in sets] for system, sets in found.items()}


def protocols(run: Run) -> list[dict[str, Any]]:
    """Protocol blocks of every benchmark and prompt set: the entries that all systems share, and each system's hash."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for benchmark in run.benchmarks:
        for result in run.results:
            if result.benchmark == benchmark and result.model == run.models[0]:
                groups.setdefault((benchmark, result.prompt_set), []).append(result)
    order = {system.name: place for place, system in enumerate(run.systems)}
    found = []
    for (benchmark, prompt_set), members in groups.items():
        results = sorted(members, key=lambda r: order[r.system])
        every = [{str(k): _plain(v) for k, v in r.protocol.items()} for r in results]
        shared = {k: v for k, v in every[0].items() if all(e.get(k) == v for e in every)}
        own = [
            ", ".join(f"{k} {v}" for k, v in sorted(e.items()) if k not in shared) for e in every
        ]
        systems = [(r.system, r.protocol_hash, text) for r, text in zip(results, own, strict=True)]
        found.append(
            {
                "benchmark": benchmark,
                "prompt_set": prompt_set,
                "systems": systems,
                "entries": sorted(shared.items()),
                "warnings": sorted({text for r in results for text in r.warnings}),
            }
        )
    return found


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in sorted(value.items()))
    return "–" if value is None else str(value)
