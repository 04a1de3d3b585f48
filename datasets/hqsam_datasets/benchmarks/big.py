"""BIG: 100 test objects on photographs of 2048x1600 to 5000x3600 pixels, with coarse masks of segmentation networks.

Source: Cheng et al., CascadePSP, CVPR 2020. Licence: not for commercial purposes; the photographs
are from Flickr. Layout: `test/<NAME>_im.jpg`, `test/<NAME>_gt.png` (0/255), beside `val/`; several
objects may share one photograph, each has a pair of its own. Coarse masks (PSPNet, DeepLabV3+,
RefineNet, FCN-8s) come in a second archive, a folder per network, as `<NAME>_seg.png` at image
resolution, foreground above 128; copies of the pairs may lie beside them. The paper prompts with
the ground-truth box and with the PSPNet mask; how that mask became SAM's 256-pixel input is
unpublished (see `hqsam.prediction.benchmark`). Known bad files: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hqsam_base import rle
from hqsam_base.errors import UserError
from hqsam_datasets.benchmarks.base import Content, Item, Kind, Prompt
from hqsam_datasets.benchmarks.common import BoolMask, pairs, read_foreground, single_object
from hqsam_datasets.fetch.extract import find_root, missing_files, packed_inside
from hqsam_datasets.keys import distinct_keys

_IMAGE, _TRUTH, _COARSE = "_im.jpg", "_gt.png", "_seg.png"


@dataclass(frozen=True)
class Big:
    """The test part of BIG.

    Attributes:
        network: Part of the name of the folder with the coarse masks to use, where there is more
            than one.
    """

    name: str = "big"
    kind: Kind = "masks"
    dataset_version: str = "BIG test (CascadePSP)"
    class_agnostic: bool = True
    given_prompts: tuple[str, ...] = ("coarse_mask",)
    network: str = "psp"

    def read(self, root: Path) -> Content:
        """Every object of the test folder with its coarse mask."""
        folder = _test_folder(root)
        found = pairs(folder, folder, image_suffix=_IMAGE, mask_suffix=_TRUTH)
        coarse = self._coarse_folder(root, folder)
        return Content(items=self._items(found, coarse), n_images=len(found))

    def _coarse_folder(self, root: Path, test: Path) -> Path | None:
        """The folder with PSPNet's masks of the test objects; None if their optional archive is unavailable."""
        folders = sorted({p.parent for p in root.rglob(f"*{_COARSE}")})
        names = {p.name.removesuffix(_TRUTH) for p in test.glob(f"*{_TRUTH}")}
        held = {f: sum((f / f"{name}{_COARSE}").exists() for name in names) for f in folders}
        folders = [
            f for f in folders if held[f] == max(held.values()) > 0
        ]  # val has names of test, too, but not all
        if len(folders) > 1:
            folders = [f for f in folders if self.network in str(f.relative_to(root)).lower()]
        if not folders and missing_files(root):
            return None
        if len(folders) != 1:
            raise UserError(
                f"{len(folders)} folders with coarse masks of the test objects, one expected",
                file=root,
                key=f"<NAME>{_COARSE}",
                cure=packed_inside(root)
                or "put the PSPNet masks into a folder called pspnet and pack it as BIG_coarse.zip",
            )
        return folders[0]

    def _items(self, found: list[tuple[str, Path, Path]], coarse: Path | None) -> Iterator[Item]:
        names = [name for name, _, _ in found]
        keyed = sorted(
            (key, *pair)
            for key, pair in zip(distinct_keys(self.name, names, names), found, strict=True)
        )
        for number, (key, name, image, mask) in enumerate(keyed, start=1):
            truth = read_foreground(mask)
            extra = (
                ()
                if coarse is None
                else (_mask_prompt(key, truth, coarse / f"{name}{_COARSE}", name),)
            )
            yield single_object(key, number, image, truth, extra)


def _test_folder(root: Path) -> Path:
    """Find ``test/``; a repack without ``val`` may hold the pairs in any one folder."""
    folders = sorted({p.parent for p in root.rglob(f"*{_TRUTH}")})
    test = [f for f in folders if f.name.lower() == "test"] or folders
    test = [f for f in test if next(f.glob(f"*{_COARSE}"), None) is None] or test
    if not test:
        return find_root(root, "test/*_gt.png")
    if len(test) > 1:
        places = " and ".join(f.relative_to(root).as_posix() for f in test)
        cure = "keep the photographs and ground truth of BIG's test part, once, in BIG.zip"
        raise UserError(
            f"*{_TRUTH} lie in {places}, one `test` expected", file=root, key="test", cure=cure
        )
    return test[0]


def _mask_prompt(key: str, truth: BoolMask, path: Path, name: str) -> Prompt:
    if not path.is_file():
        raise UserError(
            f"{name} has no coarse mask",
            file=path,
            key=name,
            cure="fetch the coarse-mask archive again",
        )
    rough = read_foreground(path)
    if rough.shape != truth.shape:
        raise UserError(
            f"coarse mask {rough.shape} and ground truth {truth.shape} differ in size",
            file=path,
            key=key,
        )
    return Prompt(
        prompt_id=f"{key}-mask", prompt_set="coarse_mask", rle=rle.encode(rough), instance_id=key
    )


BENCHMARK = Big()
