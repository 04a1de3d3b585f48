"""A subset of SA-1B, SAM's own training set: an option for the paper's Table 15 (44 K random images)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from hqsam_base.errors import UserError
from hqsam_datasets.formats.image_files import ImageError
from hqsam_datasets.formats.manifest import Reject
from hqsam_datasets.sources.base import (
    DataSheet,
    LoadedMask,
    Pair,
    Scan,
    Segmentation,
    SourceOptions,
    read_file,
    relative,
)
from hqsam_datasets.sources.folders import normal_name

SHEET = DataSheet(
    title="Segment Anything 1 Billion (SA-1B), a subset",
    url="https://ai.meta.com/datasets/segment-anything/",
    licence="SA-1B Dataset Research License: research only; terms to accept before the download",
    citation="Kirillov et al., Segment Anything, ICCV 2023",
    n_pairs=0,
    layout="sa_<id>.jpg beside sa_<id>.json, in tar archives sa_000000.tar ...; JSON holds about "
    "100 run-length masks",
    notes=(
        "`limit` chooses images, `max_instances` masks of an image, both by a hash of their "
        "names, so that the choice does "
        "not depend on which archives are there. How the paper drew its random masks is not "
        "published."
    ),
)


@dataclass(frozen=True, slots=True)
class _Annotations:
    """Some masks of one image's JSON file, chosen by a hash of (image, annotation id)."""

    path: Path
    max_instances: int

    def load(self, size: tuple[int, int]) -> list[LoadedMask]:
        """Read the file and rasterise the chosen masks only."""
        try:
            record = json.loads(read_file(self.path, "unreadable_mask"))
            entries = sorted(
                record["annotations"],
                key=lambda entry: hashlib.sha256(
                    f"{self.path.stem}/{entry['id']}".encode()
                ).digest(),
            )[: self.max_instances]
            shapes = [
                Segmentation(entry["segmentation"], name=f"annotation {entry['id']}")
                for entry in entries
            ]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ImageError("invalid_annotation", f"{type(error).__name__}: {error}") from error
        return [mask for shape in shapes for mask in shape.load(size)]


class _Sa1b:
    """Images with a JSON file of the same stem, anywhere under the root."""

    @property
    def sheet(self) -> DataSheet:
        """Facts of the data set."""
        return SHEET

    def scan(self, name: str, root: Path, options: SourceOptions) -> Scan:
        """Pair images with their JSON files; see `base.Source.scan`."""
        skip = {normal_name(stem) for stem in options.skip}
        pairs, rejects = [], []
        for image in sorted(root.rglob("*.jpg")):
            annotations = image.with_suffix(".json")
            origin = relative(image, root)
            if normal_name(image.stem) in skip:
                rejects.append(
                    Reject(source=name, origin=origin, reason="known_bad", detail="listed in skip")
                )
            elif not annotations.is_file():
                cure = "unpack the archive again, or list the stem under this key"
                raise UserError(
                    f"{image} has no {annotations.name}",
                    file=image,
                    key=f"sources.{name}.skip",
                    cure=cure,
                )
            else:
                reference = _Annotations(annotations, options.max_instances)
                pairs.append(
                    Pair(image.stem, image, (reference,), origin, relative(annotations, root))
                )
        if not pairs:
            raise UserError(
                "the archive holds no images",
                file=root,
                key=f"sources.{name}.archive",
                cure="see its data sheet",
            )
        return Scan(tuple(pairs), tuple(rejects))


SOURCE = _Sa1b()
