"""What the image encoder made of a benchmark's images, kept for the other models of a run with the same encoder.

Models that differ in what is trained on top of one frozen SAM (the rows of an ablation) read these
files in place of encoding again. A file holds one batch of images, under the digest of the very
pixels that the encoder saw, in a folder that is named by the encoder: another checkpoint, precision,
device or code finds nothing. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hqsam_base.atomic import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from hqsam.model.hq_sam import Encoded


class Encodings:
    """The encodings of one encoder.

    Args:
        folder: of this encoder; its siblings are those of others.
        room: bytes that all encoders together may take. What is full is not written to any more;
            before that, the folders of other encoders go, those first that were used longest ago.
    """

    def __init__(self, folder: Path, room: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.touch()
        self._folder = folder
        others = sorted(
            (path for path in folder.parent.iterdir() if path.is_dir() and path != folder),
            key=lambda path: path.stat().st_mtime,
        )
        self._room = room - sum(map(_size, (folder, *others)))
        self._others = [(path, _size(path)) for path in others]

    def get(self, inputs_B3SS: Tensor, encode: Callable[[Tensor], Encoded]) -> Encoded:
        """Read what the encoder made of a batch, or let it encode, and keep that.

        Args:
            inputs_B3SS: what the encoder sees.
            encode: gives the features of SAM's own encoder, float32.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load, save

        from hqsam.model.hq_sam import Encoded

        pixels = inputs_B3SS.float().cpu().contiguous().numpy().tobytes()
        shape = str(tuple(inputs_B3SS.shape)).encode()
        path = self._folder / f"{hashlib.sha256(shape + pixels).hexdigest()[:32]}.safetensors"
        try:
            found = load(path.read_bytes())
            return Encoded(
                found["final"].to(inputs_B3SS.device), found["early"].to(inputs_B3SS.device)
            )
        except (OSError, KeyError, SafetensorError):
            encoded = encode(inputs_B3SS)  # not there yet, or damaged by another hand
        data = save(
            {"final": encoded.final_BCHW.contiguous(), "early": encoded.early_BVHW.contiguous()}
        )
        if self._makes_room(len(data)):
            write_bytes(path, data)
        return encoded

    def _makes_room(self, size: int) -> bool:
        free = shutil.disk_usage(self._folder).free
        while self._room < size and self._others:
            path, there = self._others.pop(0)
            shutil.rmtree(path, ignore_errors=True)
            self._room += there
        if self._room < size or free < 2 * size:
            return False
        self._room -= size
        return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
