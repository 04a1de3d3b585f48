"""Small models with real SAM classes, and the authors' own package with the same weights."""

import warnings
from functools import partial

import numpy as np
import torch

from hqsam.model.backbones.base import Backbone, vit_backbone
from hqsam.model.convert import merged_state
from hqsam.model.hq_sam import HQSam

SMALL = {
    "width": 64,
    "depth": 3,
    "heads": 2,
    "global_blocks": (1, 2),
    "image_size": 128,
    "window_size": 5,
}


def small_backbone() -> Backbone:
    return vit_backbone("small", **SMALL)


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Weights large enough that logits reach several units: fresh ones hide differences behind zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            if parameter.ndim > 1:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=generator) * fan_scale(name, parameter)
                )
            elif "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def fan_scale(name: str, parameter: torch.Tensor) -> float:
    if "token" in name or "embed" in name or "rel_pos" in name:
        return 0.5
    return 1 / (parameter[0].numel() ** 0.5)


def soften(decoder: torch.nn.Module) -> None:
    """Make a random mask decoder's attention as soft as a trained one's.

    With keys and queries of full size it is so sharp that float32 says nothing: with noise as mask
    prompt the authors' own logits are 1e-2 from their float64 ones. At a quarter both packages are
    within 2e-5 of float64.
    """
    with torch.no_grad():
        for name, parameter in decoder.transformer.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter *= 0.25


def small_model(backbone: Backbone | None = None, *, seed: int = 0) -> HQSam:
    backbone = backbone or small_backbone()
    torch.manual_seed(seed)
    model = HQSam(backbone=backbone, sam=backbone.build())
    randomise(model, seed)
    return model.eval()


def authors_package():
    """`segment_anything_hq`; it imports torchvision and timm, both noisily."""
    from hqsam.model._torchvision import ensure_torchvision

    ensure_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import segment_anything_hq
        import segment_anything_hq.modeling
    return segment_anything_hq


def authors_model(model: HQSam, encoder: torch.nn.Module | None = None):
    """The authors' `Sam` with a `MaskDecoderHQ`, loaded strictly from our merged checkpoint."""
    package = authors_package().modeling
    backbone = model.backbone
    size, side, width = backbone.image_size, backbone.embedding_size, backbone.decoder_dim
    transformer = package.TwoWayTransformer(
        depth=2,
        embedding_dim=width,
        mlp_dim=model.sam.mask_decoder.transformer.layers[0].mlp.lin1.out_features,
        num_heads=8,
    )
    sam = package.Sam(
        image_encoder=encoder or authors_encoder(model),
        prompt_encoder=package.PromptEncoder(
            embed_dim=width,
            image_embedding_size=(side, side),
            input_image_size=(size, size),
            mask_in_chans=16,
        ),
        mask_decoder=package.MaskDecoderHQ(
            transformer_dim=width,
            transformer=transformer,
            num_multimask_outputs=3,
            vit_dim=backbone.vit_dim,
            iou_head_hidden_dim=model.sam.mask_decoder.iou_prediction_head.layers[0].out_features,
        ),
    )
    sam.load_state_dict(merged_state(model), strict=True)
    return sam.eval()


def authors_encoder(model: HQSam) -> torch.nn.Module:
    ours = model.sam.image_encoder
    windows = [block.window_size for block in ours.blocks]
    return authors_package().modeling.ImageEncoderViT(
        depth=len(ours.blocks),
        embed_dim=ours.patch_embed.proj.out_channels,
        img_size=ours.img_size,
        mlp_ratio=4,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        num_heads=ours.blocks[0].attn.num_heads,
        patch_size=ours.img_size // model.backbone.embedding_size,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=[n for n, w in enumerate(windows) if w == 0],
        window_size=max(windows),
        out_chans=model.backbone.decoder_dim,
    )


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colour picture, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [
        np.sin(rng.uniform(2, 30) * (x * np.cos(a) + y * np.sin(a)) + a)
        for a in rng.uniform(0, 6, 9)
    ]
    channels = [sum(waves[3 * c : 3 * c + 3]) for c in range(3)]
    noise = rng.normal(0, 0.2, (height, width, 3))
    return np.clip(127 + 40 * (np.stack(channels, 2) + noise), 0, 255).astype(np.uint8)


def gap(found, expected) -> float:
    """Largest difference, as a share of the largest logit if that is above 1: float32 has seven digits."""
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    return float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))


KINDS = ("box", "point", "mask", "box+point", "box+mask", "point+mask", "box+point+mask")


def _masks(size: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return 8 * torch.randn(count, 1, size, size, generator=generator)


def prompt_tensors(
    kind: str, count: int, backbone: Backbone, inside: tuple[int, int]
) -> dict[str, torch.Tensor]:
    """Random prompts in the network's frame, within the first (h, w) pixels: the rest is padding."""
    generator = torch.Generator().manual_seed(7 * count)
    size = torch.tensor(inside[::-1])
    corners = torch.rand(count, 2, 2, generator=generator) * size
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    points = torch.rand(count, 3, 2, generator=generator) * size
    labels = torch.randint(0, 2, (count, 3), generator=generator)
    given = {"point_coords": None, "point_labels": None, "boxes": None, "mask_input": None}
    if "box" in kind:
        given["boxes"] = boxes
    if "point" in kind:
        given |= {"point_coords": points, "point_labels": labels}
    if "mask" in kind:
        given["mask_input"] = _masks(backbone.mask_size, count)
    return given
