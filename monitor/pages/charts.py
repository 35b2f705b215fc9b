"""Charts as SVG text: no script, no font, no file; the page's style sheet gives the colours.

A viewBox of 360 units is as wide as a phone, so that the text has its own size there and grows on wide screens.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, iso

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 20  # room for the axes' numbers
SPARK_WIDTH, SPARK_HEIGHT = 120, 28
STEPS_MS = [MINUTE_MS * minutes for minutes in (5, 15, 30)] + [
    HOUR_MS * hours for hours in (1, 3, 6, 12, 24, 48, 120, 240)
]

Values = Sequence[float]


class Frame(NamedTuple):
    """From the data's ranges to the picture's units."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> str:
        """A point, ``12.3,45.6``; outside the range it lies on the border."""
        return f"{self.across(x):.1f},{self.down(y):.1f}"

    def across(self, x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * _share(x, *self.x)

    def down(self, y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _share(y, *self.y)


class Figure(NamedTuple):
    """A chart, its heading and how to read it."""

    title: str
    svg: Markup | None  # None: not enough to draw
    how: str


def sparkline(values: Sequence[float | None], words: str, most: float = 0.5) -> Markup:
    """Bars above and below a line, oldest on the left; None leaves a gap.

    Args:
        words: what is to be seen, for who cannot see it.
        most: value of a bar of full height.
    """
    middle, wide = SPARK_HEIGHT / 2, SPARK_WIDTH / max(1, len(values))
    bars = "".join(
        f'<rect class="{_sign(value)}" x="{place * wide:.1f}" width="{max(1.0, wide - 1):.1f}" '
        f'y="{middle - max(0.0, tall):.1f}" height="{max(0.8, abs(tall)):.1f}"/>'
        for place, value in enumerate(values)
        if value is not None
        for tall in [max(-middle, min(middle, value / most * middle))]
    )
    line = f'<line class="zero" x1="0" x2="{SPARK_WIDTH}" y1="{middle}" y2="{middle}"/>'
    return _svg(line + bars, SPARK_WIDTH, SPARK_HEIGHT, words, "spark")


def lines(x_ms: Sequence[int], series: Sequence[tuple[str, Sequence[float | None]]], unit: str, words: str) -> Markup:
    """Lines over time.

    Args:
        x_ms: rising, at least one.
        series: a class of the style sheet, and a value for each time; None leaves a gap. One value at least is there.
        unit: of the values, written beside the axis' numbers.
    """
    frame = Frame(
        x=(x_ms[0], max(x_ms[-1], x_ms[0] + MINUTE_MS)),
        y=_range([value for _, values in series for value in values if value is not None]),
    )
    drawn = "".join(
        f'<polyline class="{name}" points="{" ".join(points)}"/>'
        for name, values in series
        for there, part in groupby(zip(x_ms, values, strict=True), lambda point: point[1] is not None)
        if there
        for points in [[frame.at(x, y) for x, y in part if y is not None]]
    )
    return _svg(_grid(frame, unit) + _times(frame) + drawn, WIDTH, HEIGHT, words)


def day_bars(days: Sequence[tuple[int, float, float | None, float | None]], words: str) -> Markup:
    """A bar for each day, with the ends of its interval: (day since 1970, value, low, high), oldest first."""
    first, last = days[0][0], max(days[-1][0], days[0][0] + 6)
    ends = [0.0, *(end for _, *values in days for end in values if end is not None)]
    frame = Frame(x=(first * DAY_MS, (last + 1) * DAY_MS), y=_range(ends, least=0.1, most=1.0))
    wide = (WIDTH - LEFT - RIGHT) / (last + 1 - first)
    drawn = []
    for day, value, low, high in days:
        left, zero, end = frame.across(day * DAY_MS), frame.down(0), frame.down(value)
        drawn.append(
            f'<rect class="{_sign(value)}" x="{left + 0.5:.1f}" width="{max(1.0, wide - 1):.1f}" '
            f'y="{min(zero, end):.1f}" height="{max(0.8, abs(zero - end)):.1f}"/>'
        )
        if low is not None and high is not None:
            at = left + wide / 2
            drawn.append(_line("whisker", at, frame.down(low), at, frame.down(high)))
    percent = Frame(x=frame.x, y=(100 * frame.y[0], 100 * frame.y[1]))
    return _svg(_grid(percent, "%") + _times(frame) + "".join(drawn), WIDTH, HEIGHT, words)


def calibration(points: Sequence[tuple[float, float, float]], unit: str, words: str) -> Markup:
    """Mean truth by mean forecast, with its standard error; on the diagonal a forecast means what it says."""
    spread = _range([end for x, y, error in points for end in (x, y - error, y + error)])
    frame = Frame(x=spread, y=spread)
    drawn = [_line("diagonal", frame.across(spread[0]), frame.down(spread[0]), *_corner(frame))]
    for x, y, error in points:
        at = frame.across(x)
        drawn.append(_line("whisker", at, frame.down(y - 2 * error), at, frame.down(y + 2 * error)))
        drawn.append(f'<circle class="dot" cx="{at:.1f}" cy="{frame.down(y):.1f}" r="3.2"/>')
    numbers = "".join(
        f'<text x="{frame.across(tick):.1f}" y="{HEIGHT - 5}" text-anchor="middle">{_number(tick)}</text>'
        for tick in _ticks(*spread, 6)
    )
    return _svg(_grid(frame, unit) + numbers + "".join(drawn), WIDTH, HEIGHT, words)


def _sign(value: float) -> str:
    return "up" if value > 0 else "down" if value < 0 else "flat"


def _corner(frame: Frame) -> tuple[float, float]:
    return frame.across(frame.x[1]), frame.down(frame.y[1])


def _grid(frame: Frame, unit: str) -> str:
    parts = []
    for tick in _ticks(*frame.y, 6):
        at = frame.down(tick)
        parts.append(_line("zero" if tick == 0 else "grid", LEFT, at, WIDTH - RIGHT, at))
        parts.append(f'<text x="{LEFT - 4}" y="{at + 3.5:.1f}" text-anchor="end">{_number(tick)}</text>')
    return "".join(parts) + f'<text class="unit" x="{LEFT + 3}" y="{TOP + 8}">{unit}</text>'


def _times(frame: Frame) -> str:
    first, last = frame.x
    step = next((step for step in STEPS_MS if (last - first) / step <= 6), STEPS_MS[-1])
    cut = slice(5, 10) if step >= DAY_MS else slice(11, 16)
    ticks = range(math.ceil(first / step) * step, int(last) + 1, step)
    return "".join(
        f'<text x="{min(WIDTH - 16, max(LEFT + 8, frame.across(at))):.1f}" y="{HEIGHT - 5}" '
        f'text-anchor="middle">{iso(at)[cut]}</text>'
        for at in ticks
    )


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{name}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _svg(content: str, width: int, height: int, words: str, name: str = "chart") -> Markup:
    drawn = Markup(content)  # noqa: S704 -- made here, of numbers and of names from this file alone
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        name, width, height, words, drawn
    )


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _range(values: Values, least: float = 0.0, most: float = math.inf) -> tuple[float, float]:
    """The range of an axis: that of the values, a little wider.

    >>> _range([0.0, 1.0]), _range([2.0, 2.0]), _range([0.0, 0.01], least=0.1)
    ((-0.05, 1.05), (1.9, 2.1), (-0.1, 0.1))
    """
    low, high = max(min(values), -most), min(max(values), most)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return (min(low - margin, -least), max(high + margin, least)) if least else (low - margin, high + margin)


def _ticks(low: float, high: float, about: int) -> Iterator[float]:
    """Round numbers between two ends.

    >>> list(_ticks(-0.05, 1.05, 4)), list(_ticks(0, 8, 4))
    ([0.0, 0.5, 1.0], [0.0, 2.0, 4.0, 6.0, 8.0])
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    return (place * step for place in range(math.ceil(low / step), math.floor(high / step) + 1))


def _number(value: float) -> str:
    return f"{value:.4g}" if value else "0"
