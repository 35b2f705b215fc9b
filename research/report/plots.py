"""The report's pictures as SVG text: no fonts, scripts or files of its own, readable on light and on dark pages."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from core.clock import DAY_MS
from klines.klines import Floats
from research.report.metrics import TWO_SIDED
from research.report.scores import NAIVE, NEWEST, SERVED, Scored
from research.words import label

INK = "#010203"  # stands for the colour of the page's text
COLOURS = {
    SERVED: "#3b82f6",
    NEWEST: "#3b82f6",
    NAIVE: "#8b8f98",
    "har": "#f59e0b",
    "ridge": "#10b981",
    "lightgbm": "#ef4444",
    "guide": "#d946ef",
    "example": "#a16207",
}
LEAST_PERCENT = 1.0  # percent of the naive loss: least range above and below
FAR_OFF = 3.0  # times the range of other lines; beyond it a line leaves the picture and its end stands in the legend
DAYS_SHOWN, POINTS_SHOWN = 2, 500
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "axes.unicode_minus": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def loss_over_time(report: Mapping[str, Any]) -> str:
    """Draw the running sum of loss less naive loss: a falling line gains on the naive forecast."""
    curves = report["curves"]
    times = _dates(curves["time_ms"])
    naive = [name for name in curves if name in report["equal_to_naive"]]
    names = [name for name in curves if name != "time_ms" and name not in naive]
    if SERVED in names and NEWEST in names and curves[SERVED] == curves[NEWEST]:
        names.remove(NEWEST)
    ends = {name: curves[name][-1] for name in names}
    near = 0.2 + max((abs(end) for end in sorted(ends.values(), key=abs)[: max(2, len(ends) // 2 + 1)]), default=0.0)
    inside = [name for name in names if abs(ends[name]) <= FAR_OFF * near]
    with _figure(report["topic"]) as (figure, axes):
        for name in names:
            ours = name in (SERVED, NEWEST)
            axes.plot(
                times,
                curves[name],
                "--" if name == NEWEST else "-",
                color=_colour(name),
                lw=2.2 if ours else 1.3,
                zorder=5 if ours else 3,
                label=f"{label(name)} {_percent_text(ends[name])}",
            )
        if naive:
            said = f"naive: {', '.join(map(label, naive))}"
            axes.axhline(0, color=_colour(SERVED if SERVED in naive else NAIVE), lw=2.2, zorder=6, label=said)
        else:
            axes.axhline(0, color=INK, lw=1)
        least = LEAST_PERCENT if SERVED in naive else 0.0
        low = min([-least, 0.0, *(min(curves[name]) for name in inside)])
        high = max([least, 0.0, *(max(curves[name]) for name in inside)])
        room = 0.08 * (high - low) or 0.1
        axes.set_ylim(low - room, high + room)
        axes.set_ylabel("loss less naive loss, %")
        if len(times) > 1:  # a picture without a line has no dates of its own
            axes.set_xlim(times[0], times[-1])
        _time_axis(axes)
        _legend(figure)
        return _svg(figure)


def forecast_and_truth(one: Scored, is_naive: bool) -> str:
    """Draw forecast and truth: the last days for a volatility, a scatter of the network's output for a return.

    Args:
        is_naive: True if what is served is the naive forecast: a return is then drawn on equal scales.
    """
    with _figure(one.topic.key) as (figure, axes):
        if one.is_return:
            at = np.unique(np.linspace(0, len(one.rows) - 1, POINTS_SHOWN).astype(int))
            said, true = _percent(one, "raw")[at], _percent(one, "truth")[at]
            axes.scatter(said, true, s=8, color=_colour(NAIVE if is_naive else NEWEST), alpha=0.5, lw=0)
            axes.axhline(0, color=INK, lw=0.8)
            axes.axvline(0, color=INK, lw=0.8)
            if is_naive:
                axes.axvline(0, color=_colour(SERVED), lw=2.2, label="naive: what is served")
                axes.set_xlim(*_room(np.concatenate([said, true])))
                _legend(figure)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
            axes.set_xlabel("network before calibration, %")
            axes.set_ylabel("came true, %")
            return _svg(figure)
        last = one.rows.filter(pl.col("open_time_ms") >= int(one.rows["open_time_ms"][-1]) - DAYS_SHOWN * DAY_MS)
        times = _dates(last["open_time_ms"].to_list())
        served = "naive: what is served" if is_naive else "served"
        for name, words, colour, width in (("truth", "came true", INK, 0.8), (SERVED, served, _colour(SERVED), 1.6)):
            values = 100 * one.topic.unit * last[name].cast(pl.Float64).to_numpy()
            axes.plot(times, values, color=colour, lw=width, alpha=0.6 if name == "truth" else 1.0, label=words)
        axes.set_ylabel("volatility in the topic's unit, %")
        _time_axis(axes)
        _legend(figure)
        return _svg(figure)


def reliability_plot(report: Mapping[str, Any], unit: float) -> str:
    """Draw the mean truth by decile of the forecast; on the diagonal a forecast means what it says.

    Args:
        unit: ``Topic.unit``, in which the topic is asked.
    """
    parts, percent = report["reliability"], 100 * unit
    said, true = (percent * np.array([part[name] for part in parts]) for name in ("forecast", "truth"))
    error = percent * np.array([np.nan if part["error"] is None else part["error"] for part in parts])
    half = np.nan_to_num(TWO_SIDED * error)
    with _figure(report["topic"]) as (figure, axes):
        axes.axline((0.0, 0.0), slope=1.0, color=INK, lw=0.8, ls=":")
        axes.axhline(float(true.mean()), color=INK, lw=0.5, alpha=0.5)
        axes.errorbar(said, true, half, fmt="o-", color=_colour(NEWEST), ms=4, lw=1.4, elinewidth=0.9)
        axes.set_xlim(*_room(said))
        axes.set_ylim(*_room(np.concatenate([true - half, true + half])))
        axes.set_xlabel("forecast, mean of each tenth, %")
        axes.set_ylabel("came true, mean, %")
        return _svg(figure)


def direction_plot(deciles: Sequence[Mapping[str, Any]], name: str) -> str:
    """Draw the share of right directions by tenth of confidence; the band holds 95 of 100 coins."""
    places = np.arange(1, len(deciles) + 1)
    with _figure(name) as (figure, axes):
        low, high = (100 * np.array([part["band"][edge] for part in deciles]) for edge in (0, 1))
        axes.bar(places, high - low, 0.8, bottom=low, color=INK, alpha=0.13, lw=0)
        axes.axhline(50, color=INK, lw=0.8)
        rates = 100 * np.array([part["rate"] for part in deciles])
        axes.plot(places, rates, "o", color=_colour(NEWEST), ms=6)
        axes.set_ylim(*_room(np.concatenate([low, high, rates])))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        axes.set_xlabel("tenth of confidence, the most confident right")
        axes.set_ylabel("direction right, %")
        return _svg(figure)


@contextmanager
def _figure(name: str) -> Iterator[tuple[Figure, Axes]]:
    style: Any = {**_STYLE, "svg.hashsalt": f"backtest {name}"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        yield figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ([0-9.]+)px [^;\"]+", r"font-size: \1px", text)
    return re.sub(r"\n\s*", "\n", text)


def _colour(name: str) -> str:
    return COLOURS.get(name, INK)


def _dates(times_ms: Sequence[int]) -> Any:
    return np.array(times_ms, dtype="datetime64[ms]")


def _percent(one: Scored, name: str) -> Floats:
    return 100 * one.column(name)


def _percent_text(number: float) -> str:
    return f"{number:+.2f} %" if abs(number) < 100 else f"{number:+,.0f} %"


def _room(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    room = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _time_axis(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=2, handlelength=1.4, columnspacing=1.2)
