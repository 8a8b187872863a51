"""Plots as SVG text: no script, no font, nothing to fetch."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, HEIGHT, MARGIN = 760, 420, 56
BETTER, WORSE, PLAIN = "#1a7f5a", "#c2452d", "#8a8f98"


def scatter(x: np.ndarray, y: np.ndarray, front: np.ndarray, names: Sequence[str], x_label: str, y_label: str) -> str:
    """Points, named where the pointer rests on them; those of the ``front`` stand out."""
    across, up = _scale(x, MARGIN + 10, WIDTH - 22), _scale(y, HEIGHT - MARGIN - 10, 22)
    dots = [
        f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="{5 if f else 3}" fill="{BETTER if f else PLAIN}" '
        f'fill-opacity="{1 if f else 0.5}"><title>{html.escape(name)}</title></circle>'
        for a, b, f, name in sorted(zip(x, y, front, names, strict=True), key=lambda point: bool(point[2]))
    ]
    said = f"Scenarios by {x_label}, across, and {y_label}, up; the Pareto front stands out"
    return _svg([*_axes(x, y, across, up, x_label, y_label), *dots], said)


def courses(times: Sequence[str], before: np.ndarray, after: np.ndarray, label: str) -> str:
    """Two lines over the window: grey without the measures, green with them."""
    values = np.r_[0.0, before, after]
    along = _scale(np.arange(len(times)), MARGIN, WIDTH - 12)
    up = _scale(values, HEIGHT - MARGIN, 12)
    lines = [
        f'<polyline fill="none" stroke="{colour}" stroke-width="2.5" points="'
        + " ".join(f"{along(i):.1f},{up(v):.1f}" for i, v in enumerate(course))
        + '"/>'
        for course, colour in ((before, PLAIN), (after, BETTER))
    ]
    ticks = [_text(along(i), HEIGHT - MARGIN + 18, t, "middle") for i, t in enumerate(times) if i % 2 == 0]
    marks = [
        _text(MARGIN - 6, up(v) + 4, f"{v:,.0f}", "end") for v in np.linspace(values.min(), values.max(), 5)
    ]  # fmt: skip
    said = _text(MARGIN, HEIGHT - 8, f"{label}; grey before, green after", "start")
    before_all, after_all = (np.mean(course) for course in (before, after))
    told = f"{label}, {times[0]} and on: on average {before_all:,.4g} before and {after_all:,.4g} after"
    return _svg([*_frame(), *lines, *ticks, *marks, said], told)


def bars(values: Mapping[str, float], digits: int = 1) -> str:
    """One bar a name: to the left, in green, what falls; to the right, in red, what rises."""
    row, middle, reach = 26, 470, 220
    largest = max((abs(v) for v in values.values()), default=0.0) or 1.0
    lines = []
    for number, (name, value) in enumerate(values.items()):
        y, length = 10 + number * row, abs(value) / largest * reach
        start = middle - length if value < 0 else middle
        lines.append(_text(middle - reach - 12, y + 14, name, "end"))
        colour = BETTER if value < 0 else WORSE
        lines.append(f'<rect x="{start:.1f}" y="{y}" width="{length:.1f}" height="18" fill="{colour}"/>')
        lines.append(_text(middle + reach + 8, y + 14, f"{value:+,.{digits}f}", "start"))
    said = "; ".join(f"{name} {value:+,.{digits}f}" for name, value in values.items())
    return _svg(lines, said, height=20 + row * len(values))


def map_of_change(lat: np.ndarray, lon: np.ndarray, change: np.ndarray, links: Sequence[tuple[int, int]]) -> str:
    """Segments as dots at their middles on the web of their connections: green where ``change`` is negative."""
    placed = np.isfinite(lat) & np.isfinite(lon)
    if not placed.any():
        return "<p>The places of the segments are not known.</p>"
    squeeze = np.cos(np.deg2rad(np.nanmean(lat)))
    x, y = (lon - np.nanmin(lon)) * squeeze, lat - np.nanmin(lat)
    side = max(np.nanmax(x), np.nanmax(y)) or 1.0
    size = 640
    x, y = 20 + x / side * (size - 40), 20 + (np.nanmax(y) - y) / side * (size - 40)
    largest = float(np.abs(change).max()) or 1.0
    web = [
        f'<line x1="{x[a]:.1f}" y1="{y[a]:.1f}" x2="{x[b]:.1f}" y2="{y[b]:.1f}" stroke="{PLAIN}" stroke-opacity=".35"/>'
        for a, b in links
        if placed[a] and placed[b]
    ]
    dots = [
        f'<circle cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="{2 + 9 * np.sqrt(abs(change[i]) / largest):.1f}" '
        f'fill="{BETTER if change[i] < 0 else WORSE}" fill-opacity=".75"><title>{change[i]:+.1f}</title></circle>'
        for i in np.flatnonzero(placed)
    ]
    fall, rise = int((change < 0).sum()), int((change > 0).sum())
    said = f"Map of {len(change)} segments: less on {fall}, more on {rise}, {float(change.sum()):+,.4g} in all"
    return _svg([*web, *dots], said, width=size, height=int(np.nanmax(y)) + 20)


def _axes(x, y, across, up, x_label: str, y_label: str) -> list[str]:  # type: ignore[no-untyped-def]  # local shorthand
    below, beside = (np.linspace(float(np.min(v)), float(np.max(v)), 5) for v in (x, y))
    marks = [_text(across(v), HEIGHT - MARGIN + 18, f"{v:.3g}", "middle") for v in below]
    marks += [_text(MARGIN - 6, up(v) + 4, f"{v:.3g}", "end") for v in beside]
    return [*_frame(), *marks, _text(WIDTH / 2, HEIGHT - 8, x_label, "middle"), _text(MARGIN, 10, y_label, "start")]


def _frame() -> list[str]:
    """The axes themselves."""
    low = HEIGHT - MARGIN
    ends = f"{MARGIN},12 {MARGIN},{low} {WIDTH - 12},{low}"
    return [f'<polyline fill="none" stroke="{PLAIN}" stroke-opacity=".6" points="{ends}"/>']


def _scale(values: np.ndarray, low: float, high: float):  # type: ignore[no-untyped-def]  # returns a function of one number
    least, most = float(np.min(values)), float(np.max(values))
    span = (most - least) or 1.0
    return lambda value: low + (float(value) - least) / span * (high - low)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    said = html.escape(text)
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" fill="currentColor" text-anchor="{anchor}">{said}</text>'


def _svg(parts: Sequence[str], said: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    """``said`` is what a reader who sees no picture is told of it."""
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{html.escape(said)}" '
        'xmlns="http://www.w3.org/2000/svg">' + "".join(parts) + "</svg>"
    )
