"""Draws masks over images: panels of one instance, sheets of panels, small deterministic PNG and WebP bytes.

Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hqsam_datasets.prompts.base import Marks

if TYPE_CHECKING:
    from PIL import Image, ImageFont

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]

TRUTH: Colour = (0, 158, 115)
SAM_COLOUR: Colour = (230, 159, 0)
HQ_COLOUR: Colour = (86, 180, 233)
PROMPT: Colour = (204, 121, 167)
MISSED: Colour = (0, 114, 178)
ADDED: Colour = (213, 94, 0)
_KEPT: Colour = (235, 235, 235)
_BLANK: Colour = (238, 239, 242)
_INK: Colour = (34, 38, 46)
_SUPER = 2  # panels are drawn at twice their size and averaged: smooth edges


@dataclass(frozen=True)
class Window:
    """The square part of an image that a panel shows.

    Attributes:
        x, y: upper left corner in image pixels; may lie outside.
        side: in image pixels.
    """

    x: float
    y: float
    side: float


@dataclass(frozen=True)
class Scene:
    """One instance to draw: all arrays have the image's height and width.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        truth, sam, hq: bool [H, W].
        prompt: what is drawn of the prompt, pixels of the image.
    """

    image: U8
    truth: Mask
    sam: Mask
    hq: Mask
    prompt: Marks = field(default_factory=Marks)


def window_of(scene: Scene, margin: float = 0.12) -> Window:
    """The square around everything that matters in a scene, moved into the image where it fits."""
    boxes = [_extent(m) for m in (scene.truth, scene.sam, scene.hq)]
    found = [b for b in [*boxes, *scene.prompt.boxes] if b is not None]
    height, width = scene.image.shape[:2]
    if not found:
        return Window(0.0, 0.0, float(max(height, width)))
    x0, y0 = max(0.0, min(b[0] for b in found)), max(0.0, min(b[1] for b in found))
    x1, y1 = min(width, max(b[2] for b in found) + 1), min(height, max(b[3] for b in found) + 1)
    side = min(max(x1 - x0, y1 - y0, 24.0) * (1 + 2 * margin), float(max(height, width)))
    return Window(_place((x0 + x1) / 2, side, width), _place((y0 + y1) / 2, side, height), side)


def _place(centre: float, side: float, size: int) -> float:
    if side >= size:
        return (size - side) / 2
    return float(np.clip(centre - side / 2, 0, size - side))


def _extent(mask: Mask) -> Box | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def _resample(array: NDArray[np.generic], window: Window, size: int, *, smooth: bool) -> F32:
    """Samples a window of `array` to [size, size(, C)] float32; outside the image is 0."""
    import cv2

    scale = size / window.side
    source = array.astype(np.float32)
    if scale < 1:  # Averaging first: thin structures fade instead of vanishing.
        height, width = source.shape[:2]
        small = max(1, round(width * scale)), max(1, round(height * scale))
        source = cv2.resize(source, small, interpolation=cv2.INTER_AREA).astype(np.float32)
        window = Window(window.x * small[0] / width, window.y * small[1] / height, float(size))
        scale = 1.0
    matrix = np.array(
        [[scale, 0, (0.5 - window.x) * scale - 0.5], [0, scale, (0.5 - window.y) * scale - 0.5]]
    )
    how = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    return np.asarray(cv2.warpAffine(source, matrix, (size, size), flags=how), np.float32)


class Painter:
    """Draws the panels of one scene at `side` pixels.

    Args:
        scene: the instance.
        side: width and height of a panel in pixels.
    """

    def __init__(self, scene: Scene, side: int) -> None:
        self.scene = scene
        self.side = side
        self.window = window_of(scene)
        self._size = side * _SUPER
        inside = np.ones(scene.image.shape[:2], np.float32)
        self._inside = _resample(inside, self.window, self._size, smooth=False)[..., None]
        self._image = np.clip(_resample(scene.image, self.window, self._size, smooth=True), 0, 255)
        self._grey = self._image @ np.full((3, 1), 1 / 3, np.float32)

    def prompt(self) -> U8:
        """The image with its prompt: box, lines, points, the contour of a prompt mask."""
        return self._finish(self._draw_prompt(self._image.copy()))

    def _draw_prompt(self, canvas: F32) -> F32:
        for mask in self.scene.prompt.masks:
            canvas = self._outline(canvas, self._mask(mask), PROMPT)
        for box in self.scene.prompt.boxes:
            self._draw_box(canvas, box)
        for line in self.scene.prompt.lines:
            self._draw_line(canvas, line)
        for x, y, label in self.scene.prompt.points:
            self._draw_point(canvas, x, y, PROMPT if label else MISSED)
        return canvas

    def mask(self, mask: Mask, colour: Colour, *, prompted: bool = False) -> U8:
        """One mask: the surroundings dimmed, the mask tinted, its contour drawn, the prompt on top if asked for."""
        alpha = self._mask(mask)[..., None]
        dimmed = 0.30 * self._image + 0.22 * self._grey
        tinted = 0.72 * self._image + 0.28 * np.array(colour, np.float32)
        canvas = self._outline(alpha * tinted + (1 - alpha) * dimmed, alpha[..., 0], colour)
        return self._finish(self._draw_prompt(canvas) if prompted else canvas)

    def errors(self, mask: Mask) -> U8:
        """Right pixels in light grey, missed ones in blue, added ones in red, over the dimmed image."""
        canvas = 0.35 * self._grey.repeat(3, axis=2)
        truth = self.scene.truth
        for part, colour in (
            (mask & truth, _KEPT),
            (truth & ~mask, MISSED),
            (mask & ~truth, ADDED),
        ):
            alpha = 0.92 * self._mask(part)[..., None]
            canvas = alpha * np.array(colour, np.float32) + (1 - alpha) * canvas
        return self._finish(canvas)

    def heat(self, values: F32) -> U8:
        """Values of 0 to 1, [H, W], as colours from dark violet to yellow over the greyed image."""
        import cv2

        seen = _resample(values, self.window, self._size, smooth=False)
        levels = np.clip(np.rint(255 * seen), 0, 255).astype(np.uint8)
        colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
        return self._finish(0.35 * self._grey + 0.65 * colours.astype(np.float32))

    def _mask(self, mask: Mask) -> F32:
        alpha = _resample(mask, self.window, self._size, smooth=False)
        if self._size >= self.window.side:
            return (alpha >= 0.5).astype(np.float32)
        return np.asarray(np.clip(alpha, 0, 1))

    def _outline(self, canvas: F32, alpha: F32, colour: Colour) -> F32:
        import cv2

        inside = (alpha >= 0.5).astype(np.uint8)
        rim = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        canvas[rim] = colour
        return canvas

    def _draw_box(self, canvas: F32, box: Box) -> None:
        import cv2

        corners = [
            (np.array(box[i : i + 2]) - (self.window.x, self.window.y) + 0.5) for i in (0, 2)
        ]
        scaled = [
            tuple(round(float(v)) for v in c * self._size / self.window.side) for c in corners
        ]
        for colour, width in (((255, 255, 255), 4 * _SUPER), (PROMPT, 2 * _SUPER)):
            cv2.rectangle(canvas, scaled[0], scaled[1], colour, width, cv2.LINE_8)

    def _draw_line(self, canvas: F32, line: NDArray[np.floating]) -> None:
        import cv2

        scaled = (line - (self.window.x, self.window.y) + 0.5) * self._size / self.window.side
        corners = [np.rint(scaled).astype(np.int32)]
        for colour, width in (((255, 255, 255), 4 * _SUPER), (PROMPT, 2 * _SUPER)):
            cv2.polylines(canvas, corners, False, colour, width, cv2.LINE_8)

    def _draw_point(self, canvas: F32, x: float, y: float, colour: Colour) -> None:
        import cv2

        at = (
            (np.array([x - self.window.x, y - self.window.y]) + 0.5) * self._size / self.window.side
        )
        centre = round(float(at[0])), round(float(at[1]))
        cv2.circle(canvas, centre, 5 * _SUPER, (255, 255, 255), -1, cv2.LINE_8)
        cv2.circle(canvas, centre, 4 * _SUPER, colour, -1, cv2.LINE_8)

    def _finish(self, canvas: F32) -> U8:
        blended = self._inside * canvas + (1 - self._inside) * np.array(_BLANK, np.float32)
        import cv2

        small = cv2.resize(blended, (self.side, self.side), interpolation=cv2.INTER_AREA)
        return np.asarray(np.clip(np.rint(small), 0, 255), np.uint8)


def overlay(scene: Scene, side: int, gap: int = 4) -> U8:
    """Six panels: prompt, SAM, HQ-SAM above; ground truth and the two error maps below.

    Returns:
        uint8 [2 * side + gap, 3 * side + 2 * gap, 3].
    """
    painter = Painter(scene, side)
    rows = (
        (painter.prompt(), painter.mask(scene.sam, SAM_COLOUR), painter.mask(scene.hq, HQ_COLOUR)),
        (painter.mask(scene.truth, TRUTH), painter.errors(scene.sam), painter.errors(scene.hq)),
    )
    return grid(rows, gap=gap)


def strip(scene: Scene, side: int) -> tuple[U8, U8, U8, U8]:
    """Four panels: prompt, SAM, HQ-SAM, ground truth."""
    painter = Painter(scene, side)
    return (
        painter.prompt(),
        painter.mask(scene.sam, SAM_COLOUR),
        painter.mask(scene.hq, HQ_COLOUR),
        painter.mask(scene.truth, TRUTH),
    )


def pair(scene: Scene, side: int, gap: int = 4) -> U8:
    """Two panels with the prompt in both: SAM above, HQ-SAM below."""
    painter = Painter(scene, side)
    above = painter.mask(scene.sam, SAM_COLOUR, prompted=True)
    below = painter.mask(scene.hq, HQ_COLOUR, prompted=True)
    return grid(((above,), (below,)), gap=gap)


def grid(rows: Sequence[Sequence[U8]], *, gap: int, colour: Colour = (255, 255, 255)) -> U8:
    """Puts equal panels side by side and below each other."""
    side_y, side_x = rows[0][0].shape[:2]
    height = len(rows) * (side_y + gap) - gap
    width = len(rows[0]) * (side_x + gap) - gap
    canvas = np.full((height, width, 3), colour, np.uint8)
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            y, x = r * (side_y + gap), c * (side_x + gap)
            canvas[y : y + side_y, x : x + side_x] = panel
    return canvas


def captioned(
    rows: Sequence[Sequence[U8]],
    heads: Sequence[str],
    captions: Sequence[Sequence[str]],
    *,
    gap: int = 10,
) -> U8:
    """A labelled sheet: column heads above, one caption line under each panel.

    Args:
        rows: equal panels, uint8 [S, S, 3].
        heads: one text per column.
        captions: one text per panel.
        gap: pixels between panels and around them.
    """
    from PIL import Image, ImageDraw

    side = rows[0][0].shape[0]
    line, head = 24, 34
    width = gap + len(heads) * (side + gap)
    height = head + gap // 2 + len(rows) * (side + line + gap // 2)
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for c, text in enumerate(heads):
        x = gap + c * (side + gap) + side / 2
        draw.text((x, head / 2 + 2), text, fill=_INK, font=_font(18), anchor="mm")
    for r, row in enumerate(rows):
        y = head + r * (side + line + gap // 2)
        for c, panel in enumerate(row):
            x = gap + c * (side + gap)
            canvas.paste(Image.fromarray(panel), (x, y))
            draw.text(
                (x + side / 2, y + side + line / 2),
                captions[r][c],
                fill=_INK,
                font=_font(14),
                anchor="mm",
            )
    return np.asarray(canvas)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def png_bytes(image: U8, colours: int | None = None, *, careful: bool = False) -> bytes:
    """Encodes RGB as PNG without metadata; the same array gives the same bytes for the same Pillow and zlib.

    Args:
        image: uint8 [H, W, 3].
        colours: quantise to a palette of so many (a third of the bytes).
        careful: choose the palette by median cut (better in smooth areas, five times as slow).
    """
    from PIL import Image

    picture: Image.Image = Image.fromarray(image)
    if colours is not None:
        method = Image.Quantize.MEDIANCUT if careful else Image.Quantize.FASTOCTREE
        picture = picture.quantize(colours, method=method, dither=Image.Dither.NONE)
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=6)
    return out.getvalue()


def webp_bytes(image: U8, quality: int = 82) -> bytes:
    """Encodes RGB as WebP without metadata, for embedding in a page."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()
