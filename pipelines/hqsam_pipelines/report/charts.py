"""Charts as inline SVG: no script, no font, no network; they follow the page's colours and print well.

All texts are escaped; numbers are rounded, so the same data give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 42


@dataclass(frozen=True)
class Series:
    """One line or cloud of points.

    Attributes:
        name: shown in the legend and in tooltips.
        style: CSS class that gives the colour (``sam``, ``hq``, ``truth``, ...).
        x, y: values.
        faint: drawn thin, without a legend entry.
        low, high: ends of the interval of each y; empty: none is drawn.
    """

    name: str
    style: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Axes:
    """Limits and labels of a chart; with `x_names` these stand at 0, 1, 2 ... of the x axis in place of numbers."""

    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    width: int = _WIDTH
    height: int = _HEIGHT
    x_names: Sequence[str] = ()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place of a point in the picture."""
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        right, bottom = self.width - _RIGHT, self.height - _BOTTOM
        u = _LEFT + (x - x0) / (x1 - x0) * (right - _LEFT)
        return u, bottom - (y - y0) / (y1 - y0) * (bottom - _TOP)


def span(values: Sequence[float], pad: float = 0.04) -> tuple[float, float]:
    """Limits around the finite values, a little wider; (0, 1) without any."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    room = (high - low) * pad or max(abs(high) * pad, 1e-6)
    return low - room, high + room


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers between two limits."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(series: Sequence[Series], axes: Axes, label: str, *, diagonal: bool = False) -> str:
    """Lines with markers and a legend.

    Args:
        series: the lines; points that are not finite leave a gap out.
        axes: limits and labels.
        label: what the chart shows, for screen readers.
        diagonal: whether the line of equality is drawn.
    """
    body = [_frame(axes), *([_diagonal(axes)] if diagonal else [])]
    body += [_line(one, axes) for one in series]
    return _svg(axes.width, axes.height, label, body) + legend([s for s in series if not s.faint])


def _diagonal(axes: Axes) -> str:
    low = max(axes.x_range[0], axes.y_range[0])
    high = min(axes.x_range[1], axes.y_range[1])
    (u0, v0), (u1, v1) = axes.at(low, low), axes.at(high, high)
    return f'<line class="diagonal" x1="{u0:.1f}" y1="{v0:.1f}" x2="{u1:.1f}" y2="{v1:.1f}"/>'


def _line(one: Series, axes: Axes) -> str:
    points = [
        (x, y) for x, y in zip(one.x, one.y, strict=True) if math.isfinite(x) and math.isfinite(y)
    ]
    places = [axes.at(x, y) for x, y in points]
    path = " ".join(f"{u:.1f},{v:.1f}" for u, v in places)
    css = f"line {one.style} faint" if one.faint else f"line {one.style}"
    drawn = f'<polyline class="{css}" points="{path}"/>'
    if one.faint or len(points) > 80:
        return f"<g><title>{escape(one.name)}</title>{drawn}</g>"
    marks = [
        f'<circle class="dot {one.style}" cx="{u:.1f}" cy="{v:.1f}" r="3">'
        f"<title>{escape(one.name)}: {_short(x)} → {_short(y)}</title></circle>"
        for (u, v), (x, y) in zip(places, points, strict=True)
    ]
    ends = [
        (axes.at(x, low), axes.at(x, high))
        for x, low, high in zip(one.x, one.low, one.high, strict=False)
        if math.isfinite(low) and math.isfinite(high)
    ]
    whiskers = [
        f'<line class="whisker {one.style}" x1="{u:.1f}" y1="{v:.1f}" x2="{u:.1f}" y2="{w:.1f}"/>'
        for (u, v), (_, w) in ends
    ]
    return drawn + "".join([*whiskers, *marks])


def scatter_chart(series: Sequence[Series], axes: Axes, label: str) -> str:
    """Points and the diagonal of equality."""
    body = [_frame(axes), _diagonal(axes)]
    for one in series:
        for x, y in zip(one.x, one.y, strict=True):
            u, v = axes.at(x, y)
            body.append(f'<circle class="cloud {one.style}" cx="{u:.1f}" cy="{v:.1f}" r="2.6"/>')
    return _svg(axes.width, axes.height, label, body)


@dataclass(frozen=True)
class Pair:
    """One line of a dumbbell chart.

    Attributes:
        name: what is measured.
        a, b: SAM's and HQ-SAM's value.
        tone: CSS class of the difference `b` - `a`: up (better beyond noise), down or flat.
        better: whether `b` is at least as good as `a`.
        low, high: the interval of the difference; NaN: there is none.
        note: why there is none; stands where the interval would be.
    """

    name: str
    a: float
    b: float
    tone: str = "flat"
    better: bool = True
    low: float = math.nan
    high: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class _Scale:
    """A horizontal axis: the places of the numbers from `low` to `high` between `left` and `right`."""

    low: float
    high: float
    left: float
    right: float

    def at(self, value: float) -> float:
        return self.left + (value - self.low) / (self.high - self.low) * (self.right - self.left)

    def grid(self, bottom: float, count: int) -> list[str]:
        drawn = []
        for tick in ticks(self.low, self.high, count):
            x, css = self.at(tick), "zero" if tick == 0 and self.low < 0 else "grid"
            drawn += [
                f'<line class="{css}" x1="{x:.1f}" y1="24" x2="{x:.1f}" y2="{bottom - 22:.1f}"/>',
                f'<text class="tick" x="{x:.1f}" y="{bottom - 6:.1f}" '
                f'text-anchor="middle">{_short(tick)}</text>',
            ]
        return drawn


def dumbbell_chart(
    pairs: Sequence[Pair],
    label: str,
    limits: tuple[float, float] | None = (0.0, 100.0),
    names: tuple[str, str] = ("SAM", "HQ-SAM"),
    unit: str = "points",
) -> str:
    """For each line, left, a dot for SAM, one for HQ-SAM, and the way between them; right, the difference and its interval.

    Args:
        pairs: the lines.
        label: what the chart shows, for screen readers.
        limits: ends of the left axis; None: around the values.
        names: of the two dots.
        unit: of the differences.
    """
    row, top = 24, 26
    width, height = 860, top + 24 + row * len(pairs)
    values = _Scale(*(limits or span([v for p in pairs for v in (p.a, p.b)], 0.1)), 190, 490)
    ends = [v for p in pairs for v in (p.b - p.a, p.low, p.high)]
    gains = _Scale(*span([*ends, 0.0], 0.06), 520, width - 60)
    heads = ((values, f"{names[0]} and {names[1]}"), (gains, f"difference, {unit}, 95 % interval"))
    body = [
        f'<text class="label" x="{(s.left + s.right) / 2:.1f}" y="14" '
        f'text-anchor="middle">{escape(text)}</text>'
        for s, text in heads
    ]
    body += values.grid(height, 5) + gains.grid(height, 5)
    for place, pair in enumerate(pairs):
        body.append(_dumbbell(pair, values, gains, top + row * place + row / 2, width, names))
    return _svg(width, height, label, body)


def _dumbbell(
    pair: Pair, values: _Scale, gains: _Scale, y: float, width: int, names: tuple[str, str]
) -> str:
    a, b, gain = values.at(pair.a), values.at(pair.b), gains.at(pair.b - pair.a)
    parts = [
        f'<text class="name" x="{values.left - 12}" y="{y + 4:.1f}" '
        f'text-anchor="end">{escape(pair.name)}</text>',
        f'<line class="way {"up" if pair.better else "down"}" x1="{a:.1f}" y1="{y:.1f}" '
        f'x2="{b:.1f}" y2="{y:.1f}"/>',
        f'<circle class="dot sam" cx="{a:.1f}" cy="{y:.1f}" r="5"><title>{names[0]} '
        f"{pair.a:.1f}</title></circle>",
        f'<circle class="dot hq" cx="{b:.1f}" cy="{y:.1f}" r="5"><title>{names[1]} '
        f"{pair.b:.1f}</title></circle>",
    ]
    told = f"{escape(pair.name)}: {_delta(pair)}"
    if math.isfinite(pair.low) and math.isfinite(pair.high):
        told += f" [{pair.low:+.1f}, {pair.high:+.1f}]".replace("-", "−")
        parts.append(
            f'<line class="whisker {pair.tone}" x1="{gains.at(pair.low):.1f}" y1="{y:.1f}" '
            f'x2="{gains.at(pair.high):.1f}" y2="{y:.1f}"/>'
        )
    else:
        told += f" ({escape(pair.note)})" if pair.note else ""
        side, anchor = (10, "start") if gain < (gains.left + gains.right) / 2 else (-10, "end")
        parts.append(
            f'<text class="tick" x="{gain + side:.1f}" y="{y + 4:.1f}" '
            f'text-anchor="{anchor}">{escape(pair.note)}</text>'
        )
    parts += [
        f'<circle class="dot {pair.tone}" cx="{gain:.1f}" cy="{y:.1f}" r="4">'
        f"<title>{told}</title></circle>",
        f'<text class="delta {pair.tone}" x="{width - 8}" y="{y + 4:.1f}" '
        f'text-anchor="end">{_delta(pair)}</text>',
    ]
    return "".join(parts)


def _delta(pair: Pair) -> str:
    return f"{pair.b - pair.a:+.1f}".replace("-", "−")


def interval_chart(
    pairs: Sequence[tuple[str, float, float, float, str]], label: str, unit: str
) -> str:
    """Differences with their intervals around zero: (name, low, mean, high, CSS class) for each line."""
    row, left, right = 24, 230, 20
    width, height = 720, 44 + row * len(pairs)
    low, high = span([v for _, a, _, b, _ in pairs for v in (a, b)] + [0.0], 0.06)
    scale = (width - left - right) / (high - low)
    body = []
    for tick in ticks(low, high, 7):
        x = left + (tick - low) * scale
        css = "zero" if tick == 0 else "grid"
        body.append(f'<line class="{css}" x1="{x:.1f}" y1="8" x2="{x:.1f}" y2="{height - 36}"/>')
        body.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 22}" '
            f'text-anchor="middle">{_short(tick)}</text>'
        )
    for place, (name, a, mean, b, style) in enumerate(pairs):
        y = 8 + row * place + row / 2
        xs = [left + (v - low) * scale for v in (a, mean, b)]
        body += [
            f'<text class="name" x="{left - 12}" y="{y + 4:.1f}" '
            f'text-anchor="end">{escape(name)}</text>',
            f'<line class="whisker {style}" x1="{xs[0]:.1f}" y1="{y:.1f}" x2="{xs[2]:.1f}" '
            f'y2="{y:.1f}"/>',
            f'<circle class="dot {style}" cx="{xs[1]:.1f}" cy="{y:.1f}" r="4">'
            f"<title>{escape(name)}: {mean:+.2f} [{a:+.2f}, {b:+.2f}]</title></circle>",
        ]
    middle = (left + width - right) / 2
    body.append(
        f'<text class="label" x="{middle:.1f}" y="{height - 4}" '
        f'text-anchor="middle">{escape(unit)}</text>'
    )
    return _svg(width, height, label, body)


@dataclass(frozen=True)
class Bar:
    """One group of bars: name, SAM's and HQ-SAM's value, and the number of cases behind each."""

    name: str
    values: Sequence[float]
    counts: Sequence[int]


def bar_chart(bars: Sequence[Bar], label: str, names: Sequence[str], unit: str) -> str:
    """For each group a bar of SAM and one of HQ-SAM; the number of cases stands behind each.

    Args:
        bars: the groups.
        label: what the chart shows, for screen readers.
        names: of the two bars.
        unit: of the values.
    """
    row, width = 40, 640
    height = 40 + row * len(bars) + 18
    values = [v for bar in bars for v in bar.values]
    axis = _Scale(min(0.0, *values), max(1.0, *values) * 1.02, 110, width - 60)
    body = axis.grid(height - 14, 6)
    for place, bar in enumerate(bars):
        top = 28 + row * place
        body.append(
            f'<text class="name" x="98" y="{top + 20}" text-anchor="end">{escape(bar.name)}</text>'
        )
        both = zip(("sam", "hq"), names, bar.values, bar.counts, strict=True)
        for turn, (style, name, value, count) in enumerate(both):
            left, right = sorted((axis.at(0), axis.at(value)))
            y = top + 4 + 14 * turn
            body.append(
                f'<rect class="bar {style}" x="{left:.1f}" y="{y}" '
                f'width="{max(right - left, 1):.1f}" height="11"><title>{escape(name)}, '
                f"{escape(bar.name)}: {value:.1f}, {count} cases</title></rect>"
                f'<text class="tick" x="{right + 6:.1f}" y="{y + 10}">{count}</text>'
            )
    body.append(
        f'<text class="label" x="{(axis.left + axis.right) / 2:.1f}" y="{height - 4}" '
        f'text-anchor="middle">{escape(unit)}; beside the bar: cases</text>'
    )
    return _svg(width, height, label, body)


def legend(series: Sequence[Series]) -> str:
    """Colour keys as HTML below a chart."""
    items = "".join(f'<li><i class="key {s.style}"></i>{escape(s.name)}</li>' for s in series)
    return f'<ul class="legend">{items}</ul>'


def _frame(axes: Axes) -> str:
    right, bottom = axes.width - _RIGHT, axes.height - _BOTTOM
    parts = []
    for tick in ticks(*axes.y_range):
        _, v = axes.at(axes.x_range[0], tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{v:.1f}" x2="{right}" y2="{v:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{v + 4:.1f}" '
            f'text-anchor="end">{_short(tick)}</text>'
        )
    named = dict(enumerate(axes.x_names))
    for tick in named or ticks(*axes.x_range, 8):
        u, _ = axes.at(tick, axes.y_range[0])
        parts.append(
            f'<line class="axis" x1="{u:.1f}" y1="{bottom}" x2="{u:.1f}" y2="{bottom + 4}"/>'
        )
        parts.append(
            f'<text class="tick" x="{u:.1f}" y="{bottom + 17}" '
            f'text-anchor="middle">{escape(named[int(tick)]) if named else _short(tick)}</text>'
        )
    middle = (_LEFT + right) / 2
    parts.append(f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    parts.append(
        f'<text class="label" x="{middle:.1f}" y="{axes.height - 6}" '
        f'text-anchor="middle">{escape(axes.x_label)}</text>'
    )
    centre = (_TOP + bottom) / 2
    parts.append(
        f'<text class="label" transform="translate(13 {centre:.1f}) rotate(-90)" '
        f'text-anchor="middle">'
        f"{escape(axes.y_label)}</text>"
    )
    return "".join(parts)


def _svg(width: int, height: int, label: str, body: Sequence[str]) -> str:
    head = (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">'
    )
    return head + "".join(body) + "</svg>"


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
