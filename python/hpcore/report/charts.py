"""Charts as inline SVG: no script, no library, legible when printed. Pure functions; colours are
CSS classes of page.html.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WIDTH = 1040
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 22, 34
Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """A linear map of [low, high] onto pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixels of a value."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)

    def ticks(self, about: int = 6) -> list[float]:
        """Round values within the range, about so many."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        step = 10 ** math.floor(math.log10(span / about))
        step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= about)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


@dataclass(frozen=True)
class Marker:
    """A numbered mark at x; `title` is shown on hover."""

    x: float
    label: str
    title: str
    kind: str = "fault"


@dataclass
class Line:
    """A polyline of one CSS class."""

    points: Sequence[Point]
    css: str
    stepped: bool = False


@dataclass
class Chart:
    """One chart: axes, bands, lines, markers. `x_low` to `y_high` widen the range that the data
    asks for.
    """

    x_name: str
    y_name: str
    height: int = 240
    lines: list[Line] = field(default_factory=list)
    markers: list[Marker] = field(default_factory=list)
    bands: list[tuple[float, float, str, str]] = field(default_factory=list)
    y_low: float | None = None
    y_high: float | None = None
    x_low: float | None = None
    x_high: float | None = None
    y_whole: bool = False

    def svg(self, label: str) -> str:
        """The chart; `label` says to those who cannot see it what it shows."""
        x, y = self._scales()
        parts = [*self._grid(x, y), *self._bands(x), *self._lines(x, y), *self._markers(x, y)]
        box = f'viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{html.escape(label)}"'
        return f"<svg {box}>{''.join(parts)}</svg>"

    def _scales(self) -> tuple[Scale, Scale]:
        points = [p for line in self.lines for p in line.points] or [(0.0, 0.0), (1.0, 1.0)]
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        low = min(ys) if self.y_low is None else self.y_low
        high = max(ys) if self.y_high is None else self.y_high
        if high <= low:
            high = low + 1
        right = max(xs) if self.x_high is None else self.x_high
        return (
            Scale(min(0.0, *xs) if self.x_low is None else self.x_low, right, LEFT, WIDTH - RIGHT),
            Scale(low, high, self.height - BOTTOM, TOP),
        )

    def _grid(self, x: Scale, y: Scale) -> Iterable[str]:
        bottom = self.height - BOTTOM
        ticks = [t for t in y.ticks(5) if not self.y_whole or t == round(t)]
        for tick in ticks:
            at = y(tick)
            yield f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
            yield _text("tick", LEFT - 8, at + 4, "end", number(tick))
        for tick in x.ticks(12):
            yield _text("tick", x(tick), bottom + 17, "middle", number(tick))
        yield f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>'
        yield _text("name", WIDTH - RIGHT, bottom + 31, "end", self.x_name)
        yield _text("name", LEFT - 52, 12, "start", self.y_name)

    def _bands(self, x: Scale) -> Iterable[str]:
        height = self.height - BOTTOM - TOP
        for begin, end, css, title in self.bands:
            width = max(1.5, x(end) - x(begin))
            where = f'x="{x(begin):.1f}" y="{TOP}" width="{width:.1f}" height="{height}"'
            yield f'<rect class="{css}" {where}><title>{html.escape(title)}</title></rect>'

    def _lines(self, x: Scale, y: Scale) -> Iterable[str]:
        for line in self.lines:
            if not line.points:
                continue
            commands = [f"M{x(line.points[0][0]):.1f} {y(line.points[0][1]):.1f}"]
            for px, py in line.points[1:]:
                if line.stepped:
                    commands.append(f"H{x(px):.1f}V{y(py):.1f}")
                else:
                    commands.append(f"L{x(px):.1f} {y(py):.1f}")
            yield f'<path class="line {line.css}" d="{"".join(commands)}"/>'

    def _markers(self, x: Scale, y: Scale) -> Iterable[str]:
        bottom = self.height - BOTTOM
        last = -100.0
        for marker in sorted(self.markers, key=lambda m: m.x):
            at = x(marker.x)
            shown = max(at, last + 19)
            last = shown
            yield f'<g class="mark {marker.kind}"><title>{html.escape(marker.title)}</title>'
            yield f'<path d="M{at:.1f} {TOP}V{bottom}"/>'
            half = 9 if len(marker.label) == 1 else 14
            box = f'x="{shown - half:.1f}" y="{TOP - 18}" width="{2 * half}" height="18" rx="9"'
            yield f"<rect {box}/>"
            yield _text("label", shown, TOP - 5, "middle", marker.label) + "</g>"


def stacked_bar(parts: Sequence[tuple[str, float]], longest: float, width: int = 220) -> str:
    """One bar of named parts, `longest` filling the width. Parts too short to be seen get half a
    pixel.
    """
    shapes = []
    at = 0.0
    for name, value in parts:
        size = max(0.5, value / longest * width) if longest else 0.0
        title = f"{name.replace('_', ' ')}: {value:.2f} ms"
        shapes.append(
            f'<rect class="phase {name}" x="{at:.1f}" y="2" width="{size:.1f}" height="14">'
            f"<title>{html.escape(title)}</title></rect>"
        )
        at += size
    return f'<svg class="bar" viewBox="0 0 {width} 18" width="{width}">{"".join(shapes)}</svg>'


def _text(css: str, x: float, y: float, anchor: str, text: str) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{css}" {where}>{html.escape(text)}</text>'


def number(value: float) -> str:
    """A tick's label: 12000 -> 12k, no needless zeros."""
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{round(value, 6):g}"
