"""Losses, tests, directions, reliability and admission of each topic, from the rows of a walk."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.show.words import p_text, percent_text
from core.topic import Topic
from klines.klines import Floats, Ints
from model.heads import Kind, head_of
from model.judging.evaluation import TopicForecasts
from model.judging.significance import mean_over_time
from model.panels import panel_of
from research.backtest.admission import admission
from research.backtest.folder import Folder, StepRecord
from research.backtest.walk import Walk
from research.report.metrics import Bin, Hits, by_decile, hits, reliability
from research.words import NAIVE_WORDS, loss_words

SERVED, NEWEST, NAIVE = "served", "newest", "naive"
TOP_SHARE = 0.2  # the most confident fifth
SHORT_MIN = (5, 20)  # horizons that are pooled for the question of direction, in minutes
CURVE_POINTS = 240
BLOCKS = 5  # of time, in each of which a verdict asks who was ahead
SURE = 0.05  # below it a lead is no luck, and above 1 less it no lead is


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One topic's rows over the whole walk, in time order. N rows."""

    topic: Topic
    unseen: bool
    rows: pl.DataFrame
    baselines: tuple[str, ...]  # that have something to say about it

    def column(self, name: str) -> Floats:
        """``(N,)`` in the head's unit."""
        return self.rows[name].cast(pl.Float64).to_numpy()

    @cached_property
    def ticks(self) -> Ints:
        """``(N,)`` place in time, in candles."""
        panel = panel_of(self.topic.horizon_min)
        return self.rows["open_time_ms"].to_numpy() // panel.interval_ms

    @property
    def steps(self) -> int:
        """The horizon in candles."""
        return panel_of(self.topic.horizon_min).steps(head_of(self.topic))

    def naive_rows(self, name: str) -> NDArray[np.bool_]:
        """``(N,)`` True where a contender equals the naive forecast; rows are kept as 32-bit numbers."""
        return np.isclose(self.column(name), self.column(NAIVE), rtol=1e-6, atol=1e-12)

    def is_naive(self, name: str) -> bool:
        """True if a contender equals the naive forecast in each row."""
        return bool(self.naive_rows(name).all())

    @property
    def is_return(self) -> bool:
        """True if the topic asks for a return, which has a direction."""
        return head_of(self.topic).kind is Kind.RETURN

    @cached_property
    def losses(self) -> Mapping[str, Floats]:
        """``(N,)`` of each contender in the topic's own loss and unit, naive among them."""
        names = (NAIVE, SERVED, NEWEST, *self.baselines)
        found: dict[str, list[Floats]] = {name: [] for name in names}
        for part in self.rows.partition_by("std", maintain_order=True):  # one date's rows have one std
            of_part = Scored(topic=self.topic, unseen=self.unseen, rows=part, baselines=self.baselines)
            asked = of_part.as_forecasts(float(part["std"][0]))
            for name in names:
                found[name].append(asked.losses_of(of_part.column(name)))
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def as_forecasts(self, std: float) -> TopicForecasts:
        """The rows as evaluation has them."""
        return TopicForecasts(
            topic=self.topic,
            open_time_ms=self.rows["open_time_ms"].to_numpy(),
            came_true=self.column("truth"),
            forecast=self.column(SERVED),
            naive=self.column(NAIVE),
            close=self.rows["close"].to_numpy(),
            std=std,
        )

    @cached_property
    def confidence(self) -> Floats:
        """``(N,)`` size of the network's output before calibration, in the market's present standard deviations."""
        return np.abs(self.column("raw")) / self.column("scale")


def scored_topics(walk: Walk, folder: Folder, records: Sequence[StepRecord]) -> list[Scored]:
    """Every topic that has rows, in the walk's order."""
    found: list[Scored] = []
    if not any(record.rows for record in records):
        return found
    frames = pl.concat([folder.rows(record) for record in records if record.rows])
    for topic in walk.topics:
        rows = frames.filter(pl.col("topic") == topic.key).sort("open_time_ms")
        if len(rows):
            said = tuple(name for name in walk.baselines if not rows[name].is_nan().any())
            found.append(Scored(topic=topic, unseen=topic.symbol in walk.unseen, rows=rows, baselines=said))
    return found


def topic_report(one: Scored) -> dict[str, Any]:
    """Return the report of one topic as JSON."""
    losses = {name: float(values.mean()) for name, values in one.losses.items()}
    about = {
        "topic": one.topic.key,
        "topic_id": one.topic.topic_id,
        "symbol": one.topic.symbol,
        "target": one.topic.target.value,
        "horizon": one.topic.horizon,
        "loss": one.topic.loss,
        "unseen": one.unseen,
        "rows": len(one.rows),
        "verdict": _verdict(one),
        "equal_to_naive": [name for name in (SERVED, NEWEST, *one.baselines) if one.is_naive(name)],
        "losses": losses,
        "ratio_to_naive": {name: _ratio(loss, losses[NAIVE]) for name, loss in losses.items()},
        "against": {
            ours: {name: _against(one, ours, name) for name in (NAIVE, *one.baselines)} for ours in (SERVED, NEWEST)
        },
        "admission": _admission(one),
        "reliability": [asdict(part) for part in _reliability(one)],
        "curves": _curves(one),
    }
    if one.is_return:
        about["direction"] = {
            "deciles": [_hits_json(part) for part in direction_deciles([one])],
            "most_confident_fifth": _hits_json(most_confident([one])),
        }
    return about


def _verdict(one: Scored) -> dict[str, Any]:
    """Compare the served forecasts with the naive forecast: a sentence, and the figures behind the sentence.

    ``found`` is better, worse, unclear or naive; ``blocks`` is 0 where a block would be shorter than a horizon.
    """
    naive_share = float(one.naive_rows(SERVED).mean())
    if one.is_naive(SERVED):
        more = "" if one.is_naive(NEWEST) else " that the gate believes"
        return {"found": "naive", "words": NAIVE_WORDS + more, "blocks": 0, "won": 0, "naive_share": 1.0}
    test, lead = _against(one, SERVED, NAIVE), one.losses[SERVED] - one.losses[NAIVE]
    blocks = BLOCKS if int(one.ticks[-1] - one.ticks[0]) >= BLOCKS * one.steps else 0
    won = sum(float(part.mean()) < 0 for part in np.array_split(lead, blocks)) if blocks else 0
    p, ratio = test["dm_p"], test["ratio"]
    side = "better" if float(lead.mean()) < 0 else "worse"
    found = "unclear" if p is None or SURE <= p <= 1 - SURE else side
    lead_words = ", which never errs" if ratio is None else f" by {percent_text(abs(ratio - 1))}"
    words = f"{side} than naive{lead_words} in {loss_words(one.topic.loss)}"
    if found == "unclear":
        words += ", too little time to tell" if p is None else ", which may be luck"
    if p is not None:
        words += f", p {p_text(p).replace('<', 'below ')}"
    if blocks:
        words += ", in all five blocks" if won == blocks else f", in {won} of {blocks} blocks"
    if round(100 * naive_share):
        words += f"; naive in {percent_text(naive_share)} of the rows"
    return {"found": found, "words": words, "blocks": blocks, "won": won, "naive_share": naive_share}


def _ratio(loss: float, naive: float) -> float | None:
    if naive > 0:
        return loss / naive
    return 1.0 if loss <= 0 else None


def _against(one: Scored, ours: str, theirs: str) -> dict[str, float | None]:
    """Compare our loss with another on the same rows. The test's p is the chance of a lead like ours by luck alone."""
    lead = one.losses[ours] - one.losses[theirs]
    test = mean_over_time(lead, one.ticks, one.steps)
    told = bool(lead.any()) and test.error > 0  # where both say the same there is nothing to test
    return {
        "ratio": _ratio(float(one.losses[ours].mean()), float(one.losses[theirs].mean())),
        "difference": test.value,
        "dm": test.value / test.error if told else None,
        "dm_p": test.p_below if told else None,
    }


def _admission(one: Scored) -> dict[str, Any]:
    base_ms = one.rows["open_time_ms"].to_numpy() + panel_of(one.topic.horizon_min).interval_ms
    said = {ours: one.column(ours) for ours in (SERVED, NEWEST)}
    return admission(one.topic, base_ms, one.column("truth"), one.column(NAIVE), said)


def _reliability(one: Scored) -> list[Bin]:
    return reliability(one.column("truth"), one.column("raw" if one.is_return else NEWEST), one.ticks, one.steps)


def _curves(one: Scored) -> dict[str, Any]:
    """Sum of loss less naive loss up to each moment, in percent of the naive loss of the whole span."""
    at = np.unique(np.linspace(0, len(one.rows) - 1, CURVE_POINTS).astype(int))
    whole = float(one.losses[NAIVE].sum()) or 1.0
    return {
        "time_ms": one.rows["open_time_ms"].to_numpy()[at].tolist(),
        **{
            name: np.round(100 * np.cumsum(values - one.losses[NAIVE])[at] / whole, 5).tolist()
            for name, values in one.losses.items()
            if name != NAIVE
        },
    }


def direction_deciles(several: Sequence[Scored]) -> list[Hits]:
    """Hit rates by decile of confidence, the least confident first; rows of several topics together."""
    confidence = np.concatenate([one.confidence for one in several])
    return [_hits(several, np.sort(group)) for group in by_decile(confidence)]


def most_confident(several: Sequence[Scored]) -> Hits:
    """Hit rate of the most confident fifth of the rows of several topics together."""
    confidence = np.concatenate([one.confidence for one in several])
    return _hits(several, np.flatnonzero(confidence >= np.quantile(confidence, 1 - TOP_SHARE)))


def _hits(several: Sequence[Scored], rows: Ints) -> Hits:
    truth, raw = (np.concatenate([one.column(name) for one in several])[rows] for name in ("truth", "raw"))
    confidence = np.concatenate([one.confidence for one in several])[rows]
    ticks = np.concatenate([one.ticks for one in several])[rows]
    return hits(truth, raw, confidence, ticks, max(one.steps for one in several))


def _hits_json(part: Hits) -> dict[str, Any]:
    return {**asdict(part), "band": list(part.band)}


def pooled_directions(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Directions of all symbols together: for each horizon, and for the short ones together.

    A price and a log-return topic of one symbol and horizon ask for the same direction; one of them is taken.
    """
    asked = {(one.topic.symbol, one.topic.horizon_min): one for one in scored if one.is_return and not one.unseen}
    groups = [
        [one for one in asked.values() if one.topic.horizon_min == minutes]
        for minutes in sorted({minutes for _, minutes in asked})
    ]
    short = [one for one in asked.values() if SHORT_MIN[0] <= one.topic.horizon_min <= SHORT_MIN[1]]
    if len({one.topic.horizon_min for one in short}) > 1:
        groups.append(short)
    return [
        {
            "symbols": sorted({one.topic.symbol for one in group}),
            "horizons": list(dict.fromkeys(one.topic.horizon for one in group)),
            "deciles": [_hits_json(part) for part in direction_deciles(group)],
            "most_confident_fifth": _hits_json(most_confident(group)),
        }
        for group in groups
    ]


def decisions(records: Sequence[StepRecord], walk: Walk, scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Return the gate's decisions in time order, each with the reason.

    ``naive`` is True if the forecasts served from that date on equal the naive forecast.

    ``demoted`` says which champion was demoted at that date and why, also if the challenger then replaced the champion.
    ``verdict`` holds the figures of the test.
    """
    found = []
    rows_of = {one.topic.key: one for one in scored}
    for record in records:
        verdicts = {str(verdict["topic"]): verdict for verdict in record.verdicts}
        for topic in walk.topics:
            if (verdict := verdicts.get(topic.key)) is None:
                continue
            before, after = record.before.get(topic.key), record.after.get(topic.key)
            found.append(
                {
                    "time_ms": record.from_ms,
                    "topic": topic.key,
                    "decision": _decision(before, after, record.version),
                    "serves": after,
                    "naive": after is None or _answered_naively(rows_of.get(topic.key), record, verdict, after),
                    "reason": verdict["reason"],
                    "demoted": verdict["demoted"],
                    "verdict": verdict,
                }
            )
    return found


def _answered_naively(one: Scored | None, record: StepRecord, verdict: Mapping[str, Any], after: str) -> bool:
    """Decide by the rows of the step; if the step has no rows, by the rows of the gate."""
    if one is not None:
        opened_ms = one.rows["open_time_ms"].to_numpy() + panel_of(one.topic.horizon_min).interval_ms
        of_step = (opened_ms >= record.from_ms) & (opened_ms < record.to_ms)
        if of_step.any():
            return bool(one.naive_rows(SERVED)[of_step].all())
    judged = verdict["challenger"] if after == record.version else verdict["champion"]
    return judged is not None and judged == verdict["naive"]


def _decision(before: str | None, after: str | None, challenger: str) -> str:
    if after == challenger:
        return "promoted"
    if after == before:
        return "kept" if before else "naive"
    return "demoted"
