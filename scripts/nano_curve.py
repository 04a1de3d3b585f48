"""Draw docs/nano_curve.svg from the curve of pretrain_nano.py: `python scripts/nano_curve.py CURVE.csv OUT.svg`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

PANELS = (
    ("mask losses", ("box", "point", "mask")),
    ("pixel reconstruction", ("early", "final")),
    ("IoU with the coarse target", ("box_iou", "point_iou", "mask_iou")),
)
COLOURS = ("#1f6fb2", "#d1495b", "#3a8f5c")
WIDTH, HEIGHT, MARGIN = 300, 190, 34


def polyline(xs: Sequence[float], ys: Sequence[float], top: float, colour: str, left: float) -> str:
    """One curve in the panel that begins at `left`, smoothed over five rows."""
    smooth = [
        sum(ys[max(0, i - 2) : i + 3]) / len(ys[max(0, i - 2) : i + 3]) for i in range(len(ys))
    ]
    wide, high, base = WIDTH - MARGIN - 8, HEIGHT - 2 * MARGIN, HEIGHT - MARGIN + 6
    points = " ".join(
        f"{left + MARGIN + x / xs[-1] * wide:.1f},{base - y / top * high:.1f}"
        for x, y in zip(xs, smooth, strict=True)
    )
    return f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{points}"/>'


def panel(rows: Sequence[dict[str, str]], title: str, names: Sequence[str], left: float) -> str:
    """Axes, legend and curves."""
    xs = [float(r["step"]) for r in rows]
    curves = {n: [float(r[n]) for r in rows] for n in names}
    top = max(max(c) for c in curves.values())
    base, right = HEIGHT - MARGIN + 6, left + WIDTH - 8
    parts = [
        f'<text x="{left + MARGIN}" y="16" font-weight="bold">{title}</text>',
        f'<path d="M{left + MARGIN} {MARGIN - 10}V{base}H{right}" fill="none" stroke="#888"/>',
        f'<text x="{left + MARGIN - 4}" y="{MARGIN + 4}" text-anchor="end">{top:.2g}</text>',
        f'<text x="{left + MARGIN - 4}" y="{base}" text-anchor="end">0</text>',
        f'<text x="{right}" y="{base + 14}" text-anchor="end">step {int(xs[-1])}</text>',
    ]
    for i, (name, values) in enumerate(curves.items()):
        parts.append(
            f'<text x="{right - 60}" y="{MARGIN + 4 + 13 * i}" fill="{COLOURS[i]}">{name}</text>'
        )
        parts.append(polyline(xs, values, top, COLOURS[i], left))
    return "".join(parts)


def main() -> None:
    """Read, draw, write."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    body = "".join(panel(rows, title, names, i * WIDTH) for i, (title, names) in enumerate(PANELS))
    size = f'width="{WIDTH * len(PANELS)}" height="{HEIGHT}"'
    style = 'font-family="sans-serif" font-size="11"'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{ground}{body}</svg>\n'
    )


if __name__ == "__main__":
    main()
