"""Snapshots and answers as a node on the simulated exchange has them; every number is made from a seed."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from fastapi import FastAPI

from admission.criteria import NAMES, Criterion
from admission.readiness import Days, Readiness, Standing
from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, Clock, SystemClock, iso
from core.sources import NAIVE, NETWORK, PERSISTENCE
from core.topic import Target, Volatility, catalogue, topic_key
from ledger.answers import Answer
from model.judging.skill import Skill
from model.registry.champions import Champion, Demotion
from model.stretch import Stretch
from monitor.api import Row
from monitor.app import Answers, Epochs, create_app
from monitor.chain.filled import EpochRow
from monitor.chain.results import ChainSeen, on_chain
from monitor.snapshot import NO_SCORE, Snapshot
from monitor.view import View
from monitor.watched import InferenceSeen, NodeSeen, Watched
from tests.fakes.clock import eventually
from tests.fakes.net import free_port
from tests.monitor.economy import epoch_rows
from updater.state import Outcome, PanelState, SeriesState, UpdaterState, Verdict

NET = "allora-testnet-1"
VERSION = "minute-20261130T165347Z-2630ab"
OLDER = "minute-20261124T104501Z-77c0de"
HOSTILE = '<script>alert("x")</script><img src=https://evil.example/x onerror=alert(1)>'
PRICES = {"BTC": 98_790.0, "ETH": 2_755.0, "SOL": 187.2}


class Scored(NamedTuple):
    """What a page reads of a score."""

    end_ms: int
    reason: str = ""
    venue: str = "binance"
    truth: float | None = None
    truth_sd: float | None = None
    naive: float | None = None
    plain_naive: float | None = None
    loss: float | None = None
    naive_loss: float | None = None
    plain_naive_loss: float | None = None
    right_direction: bool | None = None
    error_bp: float | None = None


class Live(NamedTuple):
    """A topic's real record by the criteria of admission."""

    criteria: Mapping[str, Criterion]
    submitted: int
    expected: int
    missed_left: int | None
    since_ms: int
    expected_day: date | None
    short: str


class Alarmed(NamedTuple):
    """What a page reads of an alarm."""

    name: str
    subject: str
    what: str
    since_ms: int
    remedy: str


@dataclass(frozen=True, kw_only=True)
class SampleSkills:
    """Skills around a topic's own level."""

    levels: Mapping[str, float | None]  # by Topic.key; None: no score yet
    today: int

    def skill(self, key: str, days: int) -> Skill:
        level = self.levels.get(key)
        if level is None:
            return NO_SCORE
        half = 0.0 if level == 0 else 0.18 / days**0.5
        return Skill(n=280 * days, skill=level, low=level - half, high=level + half)

    def by_day(self, key: str) -> Mapping[int, Skill]:
        level = self.levels.get(key)
        if level is None:
            return {}
        spread = np.random.default_rng(len(key)).normal(level, 0.0 if level == 0 else 0.12, 26)
        return {
            self.today - back: Skill(n=288, skill=float(one), low=float(one) - 0.15, high=float(one) + 0.15)
            for back, one in enumerate(spread)
        }

    def by_version(self, key: str) -> Mapping[str, Skill]:
        level = self.levels.get(key)
        if not level:
            return {}
        return {
            VERSION: Skill(n=1_430, skill=level, low=level - 0.06, high=level + 0.06),
            OLDER: Skill(n=5_800, skill=level + 0.05, low=level + 0.01, high=level + 0.09),
        }


@dataclass(frozen=True, kw_only=True, repr=False)  # a traceback would show it for ten seconds
class Sample:
    """A snapshot, and the answers behind its topics' pages."""

    snapshot: Snapshot
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)  # by Topic.key
    on_chain: Mapping[str, Sequence[EpochRow]] = field(default_factory=dict)  # likewise

    def answers(self, key: str, limit: int) -> Sequence[Row]:
        return self.rows.get(key, ())[:limit]

    def epochs(self, key: str, limit: int) -> Sequence[EpochRow]:
        return self.on_chain.get(key, ())[:limit]


def topic_entry(topic_id: int, now_ms: int, network: str | None = NET, **changes: Any) -> dict[str, Any]:
    """A topic as inference lists it on ``/topics``."""
    known = catalogue()[network or NET, topic_id]
    value = {"price": "2755.055001470885", "log_return": "-0.00000752244749386763"}.get(known.target)
    has_network = known.target == Target.VOLATILITY
    entry = {
        "topic_id": topic_id,
        "token": known.asset,
        "symbol": f"{known.asset}USDT",
        "proxy": None,
        "target": known.target,
        "volatility": Volatility.STD_HORIZON.value if has_network else None,
        "horizon": known.horizon,
        "loss": known.loss,
        "network": network,
        "market": "BINANCE",
        "ready": True,
        "reason": "",
        "champion": VERSION,
        "forecast": NETWORK if has_network else NAIVE,
        "naive_because": "" if has_network else "the network adds nothing",
        "venue": "binance",
        "candles_of": "binance",
        "truth_ratio": None,
        "truth_fault": "",
        "anchor_age_ms": 765,
        "stream": "",
        "last_answer": {
            "height": 359_211_480,
            "answered": iso(now_ms - 92_000),
            "answered_ms": now_ms - 92_000,
            "version": VERSION if has_network else PERSISTENCE,
            "forecast": NETWORK if has_network else NAIVE,
            "value": value or "0.00329612483487898",
        },
    }
    return entry | changes


def _criteria(short: Sequence[str]) -> Mapping[str, Criterion]:
    return {
        name: Criterion(value=0.62, bound=0.4 if name in short else 0.55, passed=name not in short) for name in NAMES
    }


def readiness(topic_id: int, network: str | None, short: Sequence[str]) -> Readiness:
    """A topic's line of admission.json."""
    days = Days(median=None if short else 4.0, p90=None if short else 9.0, never=0.6 if short else 0.0)
    return Readiness(
        network=network,
        topic_id=topic_id,
        standing=Standing(
            eligible=not short, known_s=60, days=days, holds=None if short else 0.97, criteria=_criteria(short)
        ),
        shown={},
        stretch=Stretch(),
        objective="admission",
        short="wait longer: ANSWER_WAIT=auto" if short else "",
    )


def sample(now_ms: int, topics: Sequence[dict[str, Any]], *, market: str = "BINANCE", **changes: Any) -> Sample:
    """A snapshot of some topics: the last of them broken, the volatilities with a network, one of them losing."""
    levels: dict[str, float | None] = {}
    rows: dict[str, Sequence[Row]] = {}
    champions, demotions, ready, live, verdicts = {}, {}, {}, {}, []
    random = np.random.default_rng(3)
    for place, topic in enumerate(topics):
        key = topic_key(topic["network"], topic["topic_id"])
        has_network = topic["forecast"] == NETWORK
        levels[key] = (0.31, -0.14, 0.08)[place % 3] if has_network else 0.0 if place % 4 else None
        rows[key] = made_answers(topic, now_ms, levels[key] or 0.0, random)
        short = ("direction", "log_aspect") if place % 2 else ()
        ready[key] = readiness(topic["topic_id"], topic["network"], short)
        live[key] = Live(
            criteria=_criteria(("n_eff", *short)),
            submitted=3_512,
            expected=3_540,
            missed_left=31,
            since_ms=now_ms - 12 * DAY_MS,
            expected_day=date(2026, 12, 9),
            short="short of rows and right directions",
        )
        if has_network:
            champion = Champion(
                version=VERSION,
                manifest_sha256="0" * 64,
                since_ms=now_ms - 20 * HOUR_MS,
                previous=OLDER,
                network=topic["network"],
                token=topic["token"],
                symbol=topic["symbol"],
                target=Target.VOLATILITY,
                horizon_min=15,
            )
            champions[key] = champion
            demotions[key] = (
                Demotion(
                    champion=champion.model_copy(update={"version": "minute-20261121T084500Z-b0bb1e"}),
                    demoted_ms=now_ms - 5 * DAY_MS,
                    reason="worse than the naive forecast on 1,204 of its own answers (p 0.002)",
                    successor=None,
                ),
            )
        verdicts.append(
            Verdict(
                topic=key,
                symbol=topic["symbol"],
                head="volatility-15m",
                loss="mse",
                rows=15_656,
                challenger=0.39,
                naive=0.61,
                promoted=has_network,
                reason="better than the naive forecast and than the champion" if has_network else "nothing is gained",
            )
        )
    updater = UpdaterState(
        pid=1,
        started_ms=now_ms - DAY_MS,
        heartbeat_ms=now_ms - 4_000,
        series={
            f"{symbol}-1m": SeriesState(
                synced_ms=now_ms - 40_000, fetched_rows=5, newest_ms=now_ms // MINUTE_MS * MINUTE_MS - MINUTE_MS, gaps=0
            )
            for symbol in sorted({topic["symbol"] for topic in topics})
        },
        panels={
            "minute": PanelState(
                next_run_ms=now_ms + 3 * HOUR_MS,
                outcome=Outcome(
                    panel="minute",
                    ok=True,
                    version=VERSION,
                    finished_ms=now_ms - 20 * HOUR_MS,
                    took_s=151.5,
                    rows=43_641,
                    verdicts=tuple(verdicts),
                ),
            ),
            "hour": PanelState(
                running_since_ms=now_ms - 60_000,
                per_cent=40.0,
                left_s=95.0,
                progress="epoch 5 of 12, loss 0.1268",
                outcome=Outcome(
                    panel="hour",
                    ok=False,
                    reason="BTCUSDT has 12 days of klines, a training needs 60",
                    finished_ms=now_ms - 7 * HOUR_MS,
                    took_s=1.2,
                ),
            ),
        },
    )
    inference = InferenceSeen(
        url="http://127.0.0.1:8000", answers=True, since_ms=now_ms - DAY_MS, fault="", seen_ms=now_ms, topics=topics
    )
    watched = Watched(
        now_ms=now_ms,
        market=market,
        inference=changes.get("inference", inference),
        nodes=(NodeSeen(url="http://127.0.0.1:2112", answers=True, fault="", seen_ms=now_ms),),
        updater=updater,
        champions=champions,
        demotions=demotions,
        admission=ready,
        free_bytes=62_318_804_992,
        faults=changes.get("faults", {}),
        chain=changes.get("chain", {}),
    )
    skills = SampleSkills(levels=levels | changes.get("levels", {}), today=now_ms // DAY_MS)
    view = View(skills, changes.get("stretched", ()))
    epochs: Mapping[str, Sequence[EpochRow]] = changes.get("epochs", {})
    chain = ChainSeen(
        changes.get("reads_chain", False),
        changes.get("chain_seen_ms", {}),
        {key: on_chain(seen, now_ms) for key, seen in epochs.items()},
    )
    snapshot = view.build(watched, changes.get("alarms", ()), live, chain)
    return Sample(snapshot=snapshot, rows=rows, on_chain=epochs)


def made_answers(topic: dict[str, Any], now_ms: int, level: float, random: np.random.Generator) -> Sequence[Row]:
    """A thousand answers five minutes apart, newest first: two not over yet, one that cannot be scored."""
    price = PRICES.get(topic["token"], 100.0)
    is_price, is_volatility = topic["target"] == "price", topic["target"] == "volatility"
    rows: list[Row] = []
    for place in range(1_000):
        answered_ms = now_ms - 92_000 - place * 5 * MINUTE_MS
        move = float(random.normal(0, 0.0015))
        said = move * level + float(random.normal(0, 0.0004)) * (level != 0)
        plain = price if is_price else 0.0033 if is_volatility else 0.0
        truth = price * (1 + move) if is_price else 0.0033 + abs(move) if is_volatility else move
        value = price * (1 + said) if is_price else 0.0033 + abs(said) if is_volatility else said
        value = float(f"{value:.12f}")  # as sent
        answer = Answer(
            topic["network"] or "",
            topic["topic_id"],
            359_211_480 - 60 * place,
            f"{value:.12f}",
            (VERSION if place < 300 else OLDER) if topic["forecast"] == NETWORK else PERSISTENCE,
            topic["symbol"],
            topic["target"],
            10,
            price,
            answered_ms - 391,
            answered_ms - 4_391,
            answered_ms,
            topic["market"],
            venue="binance",
            forecast=topic["forecast"],
            asked_ms=answered_ms,
            base_ms=answered_ms // MINUTE_MS * MINUTE_MS,
            base_source="chain",
        )
        end_ms = answer.base_ms + 10 * MINUTE_MS
        loss, naive_loss = (truth - value) ** 2, (truth - plain) ** 2
        score = Scored(
            end_ms,
            truth=truth,
            truth_sd=abs(truth) * 1e-5,
            naive=plain,
            plain_naive=plain,
            loss=loss,
            naive_loss=naive_loss,
            plain_naive_loss=naive_loss,
            right_direction=None if said == 0 else said * move > 0,
            error_bp=1e4 * (value / truth - 1) if is_price or is_volatility else 1e4 * (value - truth),
        )
        unscored = Scored(end_ms, reason="3 of 10 candles of BTCUSDT are missing at binance")
        rows.append((answer, None if place < 2 else unscored if place == 6 else score))
    return rows


def usual(now_ms: int | None = None, market: str = "BINANCE") -> Sample:
    """A node with seven topics, one not answered, one worse than naive, and three alarms; two were seen on chain."""
    now_ms = now_ms or SystemClock().now_ms()
    topics = [topic_entry(topic_id, now_ms) for topic_id in (1, 14, 64, 82, 79, 80)]
    topics = [entry | {"market": market} for entry in topics]
    topics.append(
        topic_entry(38, now_ms, ready=False, forecast=None, reason="the newest price of SOLUSDT is 312 s old")
        | {"market": market, "anchor_age_ms": 312_000}
    )
    alarms = [
        Alarmed(
            "topic",
            f"{NET}/38",
            "SOL price 8h (topic 38) cannot be answered: the newest price of SOLUSDT is 312 s old",
            now_ms - 5 * MINUTE_MS,
            "check the connection to the venue: birnn doctor",
        ),
        Alarmed(
            "skill",
            f"{NET}/79",
            "BTC volatility 15m (topic 79) is worse than the naive forecast: -14 % over 7 days (p 0.003)",
            now_ms - 3 * HOUR_MS,
            "nothing to do: the next training demotes it; birnn scores --topic 79 shows since when",
        ),
    ]
    if market != "BINANCE":
        alarms.append(
            Alarmed("market", "", "answers are made from SIMULATED prices", now_ms - DAY_MS, "set MARKET=binance")
        )
    epochs = {f"{NET}/{ours}": epoch_rows(there, NET, as_id=ours, end_ms=now_ms) for ours, there in ((1, 1), (82, 3))}
    seen_ms = {NET: now_ms - 20_000}
    return sample(now_ms, topics, market=market, alarms=alarms, epochs=epochs, reads_chain=True, chain_seen_ms=seen_ms)


@contextmanager
def served(
    one: Sample, clock: Clock | None = None, answers: Answers | None = None, epochs: Epochs | None = None
) -> Iterator[str]:
    """The monitor's pages over a sample, on loopback; yields the URL.

    Args:
        answers: in the place of the sample's, as are ``epochs``.
    """
    app = create_app(lambda: one.snapshot, answers or one.answers, epochs or one.epochs, clock or SystemClock())
    with serving(app) as url:
        yield url


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """An application on loopback; yields the URL."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, what="the monitor's start")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
