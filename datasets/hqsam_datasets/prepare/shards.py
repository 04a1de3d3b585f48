"""Training shards: the samples that the overlap gate leaves, mixed over the sources, as WebDataset archives.

Order: within each source by a hash of the key, and the sources interleaved in proportion to their
sizes. So every shard holds every source in the right proportion, a stream read front to back is
mixed, and leaving out one sample hardly moves the others.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hqsam_base.atomic import atomic_folder, fsync_file, read_json, read_jsonl, write_json
from hqsam_base.errors import UserError
from hqsam_base.processes import Crew, worker_count
from hqsam_base.progress import Progress
from hqsam_datasets.formats import manifest, remote
from hqsam_datasets.formats.stores import check_address
from hqsam_datasets.formats.tar import TarReader
from hqsam_datasets.formats.tar_writer import ShardInfo, ShardWriter

VERSION = 1
_SAMPLES_WORTH_A_PROCESS = 5000


class ShardOptions(BaseModel):
    """Section `shard` of params.yaml.

    Attributes:
        samples_per_shard: samples in each shard but the last.
        seed: another one gives another mix.
        copy_to: folder URL for a second copy, anything that fsspec knows (`s3://bucket/folder`);
            None: local disk only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples_per_shard: int = Field(default=1024, ge=1)
    seed: int = 0
    copy_to: str | None = None

    @field_validator("copy_to")
    @classmethod
    def _a_place(cls, value: str | None) -> str | None:
        if value is not None:
            check_address(value)
        return value


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a sample lies: key, and the archive of its source."""

    key: str
    source: str
    archive: Path


@dataclass(frozen=True, slots=True)
class _Task:
    """One shard's work."""

    folder: Path
    number: int
    places: tuple[_Place, ...]


def write_shards(
    *,
    samples: dict[str, Path],
    exclusions: Path,
    out: Path,
    options: ShardOptions,
    progress: Progress,
    workers: int | None = None,
) -> dict[str, Any]:
    """Write `data/shards/` (see docs/formats.md) and read every shard back.

    Args:
        samples: source name to the folder of its normalise stage; none where nothing trains:
            then there is no shard either, only the index.
        exclusions: the overlap stage's `exclusions.jsonl`: one `{"key", "reason", "pair"}` per
            line.
        out: folder to write.
        options: section `shard`.
        progress: called for every finished shard.
        workers: processes; None: as many as pay off. It changes no byte.

    Returns:
        The content of `index.json`.

    Raises:
        UserError: if an input is missing or damaged, a key is not unique, an exclusion names no
            sample, or no sample is left.
    """
    infos: list[ShardInfo] = []
    n = 0
    for source, inputs in sorted(samples.items()):
        cure = f"run the normalise stage of {source}"
        n += int(read_json(inputs / "normalise.json", cure=cure)["n_samples"])
    with atomic_folder(out) as folder, Crew(_write_shard, ahead=4) as crew:
        crew.prepare(workers or worker_count(n, worth=_SAMPLES_WORTH_A_PROCESS))
        places = _all_places(samples)
        excluded = set()
        for row in read_jsonl(exclusions):
            if (key := row.get("key")) not in places:
                cure = "run the overlap stage again: it saw other samples"
                problem = "an exclusion names no sample"
                raise UserError(problem, file=exclusions, key=str(key), cure=cure)
            excluded.add(str(key))
        kept = _mixed([place for key, place in places.items() if key not in excluded], options.seed)
        if samples and not kept:
            cure = "look at rejects.jsonl of the sources and at exclusions.jsonl"
            raise UserError("no training sample is left", file=exclusions, cure=cure)
        size = options.samples_per_shard
        tasks = (
            _Task(folder, number, tuple(kept[start : start + size]))
            for number, start in enumerate(range(0, len(kept), size))
        )
        for info in crew.map(tasks):
            fsync_file(folder / info.name)  # now, while the others compute
            infos.append(info)
            progress(sum(len(i.keys) for i in infos), len(kept), "samples in shards")
        digests = "\n".join(info.digest for info in infos)
        result = {
            "version": VERSION,
            "n_samples": len(kept),
            "by_source": dict(sorted(Counter(place.source for place in kept).items())),
            "excluded": sorted(excluded),
            "shards": [info.as_json() for info in infos],
            "digest": hashlib.sha256(digests.encode()).hexdigest(),
        }
        write_json(folder / "index.json", result)
    if options.copy_to is not None:
        remote.push(out, options.copy_to, progress=progress)
    return result


def _all_places(samples: Mapping[str, Path]) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for source, folder in sorted(samples.items()):
        columns = manifest.read_table(folder / "manifest.parquet", ["key", "shard"])
        archive = functools.cache(
            folder.joinpath
        )  # one object for all its samples: also what is sent to processes
        for key, shard in zip(
            columns["key"].to_pylist(), columns["shard"].to_pylist(), strict=True
        ):
            if key in places:
                raise UserError(
                    "two sources have the same key", file=folder, key=key, cure="rename a source"
                )
            places[key] = _Place(key, source, archive(shard))
    return places


def _mixed(places: list[_Place], seed: int) -> list[_Place]:
    """Interleave the sources in proportion to their sizes.

    Within a source, order by a hash of the key.
    """
    by_source: dict[str, list[tuple[bytes, _Place]]] = {}
    for place in places:
        digest = hashlib.sha256(f"{seed}/{place.key}".encode()).digest()
        by_source.setdefault(place.source, []).append((digest, place))
    ranked = []
    for group in by_source.values():
        group.sort(key=lambda item: item[0])
        ranked += [
            ((i + 0.5) / len(group), digest, place) for i, (digest, place) in enumerate(group)
        ]
    return [place for _, _, place in sorted(ranked, key=lambda item: item[:2])]


def _write_shard(task: _Task) -> ShardInfo:
    with ShardWriter(
        task.folder, prefix="train", samples_per_shard=len(task.places), first_shard=task.number
    ) as writer:
        for place in task.places:
            writer.append(place.key, _read_sample(place))
    info = writer.shards[0]
    _verify(task.folder / info.name, info, map(_read_sample, task.places))
    return info


def _read_sample(place: _Place) -> bytes:
    """Read a sample's members as its source's archive holds them: their headers name the key, so they fit here."""
    reader, spans = _reader(place.archive)
    if place.key not in spans:
        cure = f"run the normalise stage of {place.source} again"
        raise UserError(
            "the manifest lists a sample that the archive lacks",
            file=place.archive,
            key=place.key,
            cure=cure,
        )
    return reader.read_span(*spans[place.key])


@functools.lru_cache(maxsize=256)
def _reader(archive: Path) -> tuple[TarReader, dict[str, tuple[int, int]]]:
    """Open an archive, and list where each key's sample lies in it."""
    reader = TarReader(archive)
    return reader, reader.spans()


def _verify(path: Path, info: ShardInfo, samples: Iterable[bytes]) -> None:
    """Verify a shard: every sample at its offset, equal to the source's bytes, and the end mark."""
    end = 0
    with TarReader(path) as reader:
        whole = path.stat().st_size == info.bytes
        for offset, sample in zip(info.offsets, samples, strict=True):
            whole = (
                whole
                and offset == end
                and reader.read_span(offset, end := offset + len(sample)) == sample
            )
        whole = whole and not any(reader.read_span(end, info.bytes))
    if not whole:
        raise UserError(
            "the shard does not read back as written",
            file=path,
            cure="check the disk, then run again",
        )
