"""How a benchmark is predicted: ``predict`` and ``benchmarks.<name>.predict`` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hqsam.model.options import MaskEncoding, Resize

MaskPrompt = Literal["as_trained", "binary_255", "logits"]


class PredictOptions(BaseModel):
    """``predict`` and ``benchmarks.<name>.predict`` of params.yaml together.

    Attributes:
        resize: ``stretch``: to the input square, aspect not kept (protocol of the four HQ sets);
            ``longest_side``: SAM's own resizing with padding.
        mask_prompt: What a mask prompt becomes. ``as_trained``: for each decoder what it was
            trained on, that is logits for SAM and 0/255 for the HQ decoder; ``binary_255`` or
            ``logits``: the same for both.
        precision: Of the image encoder. ``bfloat16`` is for GPUs and CPUs with matrix units,
            ``int8`` for CPUs and systems of SAM's own encoder; both move masks a little
            (docs/benchmarks.md). ``auto`` takes bfloat16 where it is measured to be faster,
            never int8, and says so; results name what was taken.
        device: ``auto`` takes a GPU if there is one.
        batch_images: Images per encoder call.
        prompts_per_pass: Prompts per decoder call: bounds the memory of images with hundreds of
            prompts.
        images_per_part: Images per part file: what a killed run loses at most.
        encodings_gb: Disk that the encoded images may take which models with one encoder share (10^9
            bytes); 0: each model encodes for itself.
        threads: Compute threads; fixed, because the last bits of a sum depend on it. 0: leave
            torch's setting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Resize = "longest_side"
    mask_prompt: MaskPrompt = "as_trained"
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_images: int = Field(default=8, ge=1)
    prompts_per_pass: int = Field(default=16, ge=1)
    images_per_part: int = Field(default=64, ge=1)
    encodings_gb: float = Field(default=4.0, ge=0)
    threads: int = Field(default=2, ge=0)

    def mask_encoding(self, decoder: Literal["sam", "hq"]) -> MaskEncoding:
        """What a mask prompt becomes for one of the two decoders."""
        if self.mask_prompt != "as_trained":
            return self.mask_prompt
        return "logits" if decoder == "sam" else "binary_255"
