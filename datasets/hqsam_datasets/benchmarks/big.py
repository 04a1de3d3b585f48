"""BIG: 100 test objects on photographs of 2048x1600 to 5000x3600 pixels, with coarse masks of segmentation networks.

Source: Cheng et al., CascadePSP, CVPR 2020. Not for commercial purposes; the photographs are from Flickr. Layout:
`test/<NAME>_im.jpg`, `test/<NAME>_gt.png` (0/255), beside `val/`; several objects may share one photograph, each
has a pair of its own. Coarse masks (PSPNet, DeepLabV3+, ...) come in a second archive as `<NAME>_seg.png` at image
resolution, foreground above 128. The paper prompts with the ground-truth box and with the PSPNet mask; how that
mask became SAM's 256-pixel input is unpublished (see `hqsam.predict`). Known bad files: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hqsam_datasets import rle
from hqsam_datasets.benchmarks.base import Content, Item, Kind, Prompt
from hqsam_datasets.benchmarks.common import BoolMask, pairs, read_foreground, single_object
from hqsam_datasets.errors import UserError
from hqsam_datasets.sample import make_key


@dataclass(frozen=True)
class Big:
    """The test part of BIG."""

    name: str = "big"
    kind: Kind = "masks"
    dataset_version: str = "BIG test (CascadePSP)"
    class_agnostic: bool = True

    def read(self, root: Path) -> Content:
        """Every object of the test folder with its coarse mask."""
        folder = _test_folder(root)
        coarse = {p.name.removesuffix("_seg.png"): p for p in sorted(root.rglob("*_seg.png"))}
        found = pairs(folder, folder, image_suffix="_im.jpg", mask_suffix="_gt.png")
        return Content(items=self._items(found, coarse, root))

    def _items(self, found: list[tuple[str, Path, Path]], coarse: dict[str, Path], root: Path) -> Iterator[Item]:
        keyed = sorted((make_key(self.name, name), name, image, mask) for name, image, mask in found)
        for number, (key, name, image, mask) in enumerate(keyed, start=1):
            if name not in coarse:
                raise UserError(
                    f"{name} has no coarse mask {name}_seg.png",
                    file=root,
                    key=name,
                    cure="fetch the coarse-mask archive",
                )
            truth, rough = read_foreground(mask), read_foreground(coarse[name])
            yield single_object(key, number, image, truth, (_mask_prompt(key, truth, rough, coarse[name]),))


def _test_folder(root: Path) -> Path:
    folders = {p.parent for p in root.rglob("*_gt.png")}
    test = sorted(f for f in folders if f.name == "test") or sorted(folders)
    if len(test) != 1:
        raise UserError(f"{len(test)} folders with *_gt.png, one `test` expected", file=root, key="test")
    return test[0]


def _mask_prompt(key: str, truth: BoolMask, rough: BoolMask, path: Path) -> Prompt:
    if rough.shape != truth.shape:
        raise UserError(f"coarse mask {rough.shape} and ground truth {truth.shape} differ in size", file=path, key=key)
    return Prompt(prompt_id=f"{key}-mask", prompt_set="coarse_mask", rle=rle.encode(rough), instance_id=key)


BENCHMARK = Big()
