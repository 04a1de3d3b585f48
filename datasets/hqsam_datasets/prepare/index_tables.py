"""The tables of an indexed evaluation set: a row for each image, instance and prompt.

Rows become Arrow columns in batches, so that memory stays small for LVIS too. Prompt sets that the
adapter does not give are drawn from the masks here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import BenchmarkOptions, Item, Prompt, Truth
from hqsam_datasets.formats import manifest
from hqsam_datasets.overlap.hashing import ImageHashes
from hqsam_datasets.prompts.sets import GT_BOX, PREVIOUS, TRACKED, MaskSet, mask_set

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
BoolMask = npt.NDArray[np.bool_]
CROWD = "crowd"
"""As what crowd regions are counted among the instances."""
_BATCH = 32_768
_SORT_BY: dict[manifest.TableName, tuple[str, ...]] = {
    "images": ("key",),
    "instances": ("key", "instance_id"),
    "prompts": ("key", "prompt_id"),
}


class Tables:
    """The rows of an evaluation set's three tables, added image by image.

    Args:
        options: ``benchmarks.<name>.index``, which names the prompt sets.
    """

    def __init__(self, options: BenchmarkOptions) -> None:
        self.images = _Rows("images", "key")
        self.instances = _Rows("instances", "instance_id")
        self.prompts = _Rows("prompts", "prompt_id")
        self._options = options
        found = (mask_set(name, box_side=options.box_side) for name in options.prompt_sets)
        self._drawn = [_Drawn(one, options.seed) for one in found if one is not None]

    def add(self, item: Item, *, member: str, shard: str, hashes: ImageHashes) -> None:
        """Add an image, its instances and its prompts.

        Args:
            item: what the adapter says of the image.
            member: name of its file in the shard.
            shard: name of the shard.
            hashes: of its pixels.
        """
        self.images.add(
            {
                "key": item.key,
                "member": member,
                "shard": shard,
                "height": item.height,
                "width": item.width,
                "image_id": item.image_id,
                "video": item.video,
                "video_id": item.video_id,
                "frame": item.frame,
                "pixel_digest": hashes.pixel_digest,
                "pdq": hashes.pdq,
                "pdq_quality": hashes.pdq_quality,
                "tiles": hashes.tiles,
            }
        )
        for truth in item.truths:
            self.instances.add(
                {
                    "instance_id": truth.instance_id,
                    "key": item.key,
                    "image_id": item.image_id,
                    "category_id": truth.category_id,
                    "track_id": truth.track_id,
                    "iscrowd": int(truth.iscrowd),
                    "area": truth.area,
                    "rle": truth.rle,
                    "height": item.height,
                    "width": item.width,
                },
                count_as=CROWD if truth.iscrowd else "",
            )
        own = {prompt.prompt_set for prompt in item.prompts}
        if self._options.box_side is not None:
            own.discard(GT_BOX)
        for prompt in item.prompts:
            if prompt.prompt_set in own.intersection(self._options.prompt_sets):
                self.prompts.add(_prompt_row(item, prompt), count_as=prompt.prompt_set)
        for one in self._drawn:
            # What the adapter gives is taken as it is.
            for row in one.rows(item) if one.name not in own else ():
                self.prompts.add(row, count_as=one.name)

    def write(self, folder: Path) -> None:
        """Write the three tables as Parquet.

        Raises:
            UserError: a key or id occurs twice.
        """
        for name, rows in (
            ("images", self.images),
            ("instances", self.instances),
            ("prompts", self.prompts),
        ):
            rows.write(folder / f"{name}.parquet")


def _prompt_row(item: Item, prompt: Prompt) -> Row:
    x0, y0, x1, y1 = prompt.box if prompt.box is not None else (None, None, None, None)
    return {
        "prompt_id": prompt.prompt_id,
        "key": item.key,
        "prompt_set": prompt.prompt_set,
        "kind": "box" if prompt.box is not None else "mask",
        "x0": x0,
        "y0": y0,
        "x1": x1,
        "y1": y1,
        "points": None,
        "labels": None,
        "rle": prompt.rle,
        "height": item.height,
        "width": item.width,
        "score": prompt.score,
        "category_id": prompt.category_id,
        "track_id": prompt.track_id,
        "instance_id": prompt.instance_id,
    }


class _Rows:
    """Rows of one table, turned into Arrow columns batch by batch; the values of its id column must be unique."""

    def __init__(self, name: manifest.TableName, unique: str) -> None:
        self.counts: Counter[str] = Counter()
        self.n_rows = 0
        self._name: manifest.TableName = name
        self._unique = unique
        self._pending: list[Row] = []
        self._chunks: list[pa.Table] = []

    def add(self, row: Row, *, count_as: str = "") -> None:
        self.counts[count_as] += 1
        self.n_rows += 1
        self._pending.append(row)
        if len(self._pending) >= _BATCH:
            self._flush()

    def write(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._flush()
        table = pa.concat_tables(self._chunks)
        counts = pc.value_counts(table.column(self._unique))
        double = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(double):
            raise UserError(
                f"{self._unique} occurs {double[0]['counts'].as_py()} times",
                file=path.name,
                key=str(double[0]["values"].as_py()),
                cure="rename the files, or fix the ids of the annotation file",
            )
        manifest.write_table(
            path, table, schema=manifest.schema(self._name), sort_by=_SORT_BY[self._name]
        )

    def _flush(self) -> None:
        import pyarrow as pa

        self._chunks.append(pa.Table.from_pylist(self._pending, schema=manifest.schema(self._name)))
        self._pending = []


class _Drawn:
    """A prompt set that is made from the masks: each prompt from (seed, set, image, object, trial) alone; crowds get none.

    Args:
        chosen: the set.
        seed: of what it draws.
    """

    def __init__(self, chosen: MaskSet, seed: int) -> None:
        self.name = chosen.name
        self._set, self._seed = chosen, seed
        self._before: dict[tuple[str | None, int | None], BoolMask] = {}

    def rows(self, item: Item) -> Iterator[Row]:
        """Yield the prompts of an image; those of a video come in the order of its frames."""
        numbered = self._set.per_object > 1 or self._set.clicks
        for truth in (truth for truth in item.truths if not truth.iscrowd):
            mask = rle.decode(truth.rle, height=item.height, width=item.width)
            earlier = self.name in (PREVIOUS, TRACKED)
            shown = self._earlier(item, truth, mask) if earlier else mask
            drawn_for = f"{self._seed}/{self.name}/{item.key}/{truth.instance_id}"
            for trial in range(self._set.per_object):
                # The first trial has the number that sets of one trial always had.
                told = drawn_for + (f"/{trial}" if trial else "")
                number = int.from_bytes(hashlib.sha256(told.encode()).digest()[:8])
                found = self._set.draw(shown, np.random.default_rng(number))
                if found is None:
                    continue
                ending = f"~{trial + 1}" if numbered else ""
                yield {
                    "prompt_id": f"{truth.instance_id}-{self.name}{ending}",
                    "key": item.key,
                    "prompt_set": self.name,
                    "height": item.height,
                    "width": item.width,
                    "score": None,
                    "category_id": truth.category_id,
                    "track_id": truth.track_id,
                    "instance_id": truth.instance_id,
                    **self._set.kind.columns(found),
                }

    def _earlier(self, item: Item, truth: Truth, mask: BoolMask) -> BoolMask:
        """Return the object's mask in the last frame that showed it, or where its own masks are followed in the first."""
        key = item.video, truth.track_id
        for stale in [known for known in self._before if known[0] != item.video]:
            del self._before[stale]
        before = self._before.get(key, mask)
        if mask.any() and (self.name == PREVIOUS or key not in self._before):
            self._before[key] = mask
        return before
