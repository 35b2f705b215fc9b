"""The two pages as HTML, from a snapshot and from a topic's newest answers."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from admission.words import CRITERIA
from core.clock import SECOND_MS
from core.show.words import counted, number_text
from monitor.api import Row
from monitor.chain import words as chain_words
from monitor.chain.results import Result
from monitor.pages import words
from monitor.pages.chain import chain_figures
from monitor.pages.charts import Figure, calibration, day_bars, lines, sparkline
from monitor.snapshot import Snapshot, TopicView
from monitor.watched import PARTS
from updater.state import SeriesState

LISTED = 50  # answers, and epochs, in the tables of a topic's page
DRAWN = 150  # points of the chart of forecasts
LEAST_ROWS = 40  # scored answers, below which no calibration is drawn
GROUPS = 8  # points of the calibration
OLD_MS = 60 * SECOND_MS  # a snapshot older than this is stale: the monitor is stuck
ALIVE_MS = 60 * SECOND_MS  # an updater with an older heartbeat counts as ended

# Read once: templates that an upgrade changes below a running monitor would not fit its code.
FILES = {entry.name: entry.read_text("utf-8") for entry in files("monitor.pages").joinpath("templates").iterdir()}
STYLE, ICON = FILES["style.css"], FILES["icon.svg"]
STYLE_PATH = f"/style-{hashlib.sha256(STYLE.encode()).hexdigest()[:12]}.css"  # changes with the content


class PriceRow(NamedTuple):
    """Where the prices of a symbol come from, and the state of its stored candles."""

    symbol: str
    proxy: str
    venue: str
    age_ms: int | None
    candles_of: str
    ratio: float | None
    faults: Sequence[str]
    series: Sequence[tuple[str, SeriesState]]


def front_page(snapshot: Snapshot, now_ms: int) -> str:
    """The page of all topics."""
    return _TEMPLATES.get_template("front.html").render(
        _common(snapshot, now_ms)
        | {
            "prices": _prices(snapshot),
            "worst": _worst(snapshot),
            "scored": any(view.judged[1].n for view in snapshot.topics),
            "epochs_won": chain_words.headline_words(view.shape.chain for view in snapshot.topics),
        }
    )


def topic_page(
    snapshot: Snapshot, view: TopicView, rows: Sequence[Row], results: Sequence[Result], fault: str, now_ms: int
) -> str:
    """A topic's page.

    Args:
        rows: newest first, more than LISTED for the charts.
        results: of its epochs, likewise.
        fault: why these cannot be read; empty if they can.
    """
    chain = view.shape.chain
    return _TEMPLATES.get_template("topic.html").render(
        _common(snapshot, now_ms)
        | {
            "view": view,
            "rows": rows[:LISTED],
            "figures": _figures(view, rows),
            "results": results[:LISTED],
            "chain_figures": chain_figures(results, chain.logarithms if chain else None),
            "ledger_fault": fault,
        }
    )


def _common(snapshot: Snapshot, now_ms: int) -> dict[str, Any]:
    watched = snapshot.watched
    stale_ms = now_ms - snapshot.made_ms
    return {
        "snapshot": snapshot,
        "watched": watched,
        "now_ms": now_ms,
        "stale": words.age(stale_ms) if stale_ms > OLD_MS else "",
        "updater_lives": bool(
            watched.updater and watched.updater.pid and now_ms - watched.updater.heartbeat_ms < ALIVE_MS
        ),
        "style_path": STYLE_PATH,
        "headline": words.headline(snapshot),
    }


def _worst(snapshot: Snapshot) -> TopicView | None:
    """The topic to look at first; None if no topic does worse than the naive forecast."""
    first = next(iter(snapshot.topics), None)
    if first is None or first.rank[0] < 3:
        return first
    return first if first.rank[1] < 0 else None


def _prices(snapshot: Snapshot) -> Sequence[PriceRow]:
    by_symbol: dict[str, list[TopicView]] = {}
    for view in snapshot.topics:
        by_symbol.setdefault(view.seen.symbol, []).append(view)
    series: Mapping[str, SeriesState] = snapshot.watched.updater.series if snapshot.watched.updater else {}
    rows = []
    for symbol, views in sorted(by_symbol.items()):
        one = views[0].seen
        faults = sorted({fault for view in views for fault in (view.seen.truth_fault, view.seen.stream) if fault})
        stored = [
            (interval, series[f"{symbol}-{interval}"]) for interval in ("1m", "1h") if f"{symbol}-{interval}" in series
        ]
        rows.append(
            PriceRow(
                symbol=symbol,
                proxy=one.proxy or "",
                venue=one.venue or "",
                age_ms=one.anchor_age_ms,
                candles_of=one.candles_of or "",
                ratio=one.truth_ratio,
                faults=[*faults, *(f"{interval} store: {state.reason}" for interval, state in stored if state.reason)],
                series=stored,
            )
        )
    return rows


def _figures(view: TopicView, rows: Sequence[Row]) -> Sequence[Figure]:
    is_volatility = view.seen.target == "volatility"
    points = [point for row in reversed(rows) if (point := _point(row, view.seen.target)) is not None]
    unit = "%" if is_volatility else "bp"
    what = "volatility in per cent" if is_volatility else "move from the base price in basis points"
    newest = points[-DRAWN:]
    against = (
        lines(
            [point.end_ms for point in newest],
            [("truth", [point.truth for point in newest]), ("forecast", [point.forecast for point in newest])],
            unit,
            f"forecast and truth of the newest {len(newest)} scored answers",
        )
        if len(newest) > 1
        else None
    )
    days = [
        (day, skill.skill, skill.low, skill.high) for day, skill in view.by_day if skill.n and skill.skill is not None
    ]
    daily = day_bars(days, "skill of each day") if days else None
    beyond = "" if is_volatility else ", both beyond what the naive forecast says"
    return [
        Figure("Forecast against truth", against, f"{what}; the newest {counted(len(newest), 'scored answer')}, UTC"),
        Figure(
            "Loss against naive, by day",
            daily,
            "share of the naive forecast's loss that was saved; below 0 it lost more. Thin lines: 95 % interval",
        ),
        Figure(
            "Calibration",
            _calibration(points, is_volatility, unit),
            f"what came true on average, by size of the forecast{beyond}; on the dashed line a forecast means what "
            "it says. Thin lines: two standard errors",
        ),
    ]


class _Point(NamedTuple):
    end_ms: int
    forecast: float
    truth: float
    naive: float


def _point(row: Row, target: str) -> _Point | None:
    """Forecast, truth and naive of a scored answer, in the unit of the charts; None if it is not scored."""
    answer, score = row
    if score is None or score.loss is None or score.truth is None or score.naive is None:
        return None
    numbers = [float(answer.value), score.truth, score.naive]
    if target == "price":
        base = score.plain_naive or math.nan
        numbers = [1e4 * (number / base - 1) for number in numbers]
    else:
        numbers = [(100 if target == "volatility" else 1e4) * number for number in numbers]
    return _Point(score.end_ms, *numbers) if all(map(math.isfinite, numbers)) else None


def _calibration(points: Sequence[_Point], is_volatility: bool, unit: str) -> Markup | None:
    shift = np.array([0.0 if is_volatility else point.naive for point in points])
    forecast = np.array([point.forecast for point in points]) - shift
    truth = np.array([point.truth for point in points]) - shift
    if len(points) < LEAST_ROWS or np.ptp(forecast) <= 1e-9 * max(1.0, float(np.abs(forecast).max())):
        return None
    groups = np.array_split(np.argsort(forecast), GROUPS)
    return calibration(
        [
            (float(forecast[at].mean()), float(truth[at].mean()), float(truth[at].std(ddof=1)) / math.sqrt(len(at)))
            for at in groups
        ],
        unit,
        "mean truth by mean forecast",
    )


def _spark(view: TopicView) -> Markup:
    values = [skill.skill for _, skill in view.by_day]
    there = sum(value is not None for value in values)
    return sparkline(values, f"skill of each of the last {len(values)} days, {there} with scores")


def _environment() -> Environment:
    environment = Environment(
        loader=DictLoader(FILES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "admission": words.admission_cell,
        "age": words.age,
        "allo": chain_words.allo,
        "decimal": chain_words.decimal_words,
        "counted": counted,
        "interval": words.skill_interval,
        "number": words.shown_number,
        "number_text": number_text,
        "skill": words.skill_value,
        "skill_class": words.skill_class,
        "skill_words": words.skill_words,
        "spark": _spark,
        "verdict": words.skill_verdict,
        "version": words.version_words,
        "why_worst": words.why_worst,
    }
    environment.globals |= {
        "CHAIN": chain_words,
        "CRITERIA": CRITERIA,
        "PARTS": PARTS,
        "SPANS": words.SPANS,
        "history": words.history,
        "training_last": words.training_last,
        "training_next": words.training_next,
        "training_now": words.training_now,
        "when": words.when,
    }
    return environment


_TEMPLATES = _environment()
