"""A serving process over time: restarts, stale markets, new and broken champions, asked over a socket."""

import math
import re
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from cli.status.report import endpoint_report
from cli.status.tables import headline
from core.clock import HOUR_MS, MINUTE_MS, SystemClock, iso
from core.net.http_get import http_get
from core.settings import NoModelPolicy
from core.topic import Target, Volatility
from exchange.server import SimulatedExchange
from klines.klines import Klines
from ledger.answer_log import RECENT
from market.listings import Listings
from market.venues.binance.rest import Binance
from model.answer import carried
from model.features import unbroken_needed
from model.panels import HOUR, MINUTE
from model.registry.versions import Registry
from tests.fakes.clock import BASE_MS, RunningClock, eventually
from tests.fakes.net import free_port
from tests.fakes.venue_server import entry_of
from tests.inference.hanging import hanging
from tests.inference.stand import (
    BTC_8H,
    ETH_10M,
    ETH_24H,
    QUESTIONS,
    SOL_15M,
    TOPICS,
    Node,
    moment_ms,
    node,
    publish,
    topic,
)


def test_a_repeated_question_gets_the_same_answer_also_after_a_restart(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    path = "/inference/ETH?topic=1&height=812"
    with node(tmp_path, exchange, clock) as running:
        first = running.get(path)
        clock.jump(MINUTE_MS)
        eventually(lambda: running.get("/inference/ETH?topic=1").text != first.text, what="another price")
        again = running.get(path)
        other = running.get("/inference/ETH?topic=1&height=813")
    assert other.text != first.text
    clock.jump(MINUTE_MS)
    with node(tmp_path, exchange, clock, wait=False) as running:
        restarted = running.get(path)
    names = ("X-Topic", "X-Model-Version", "X-As-Of", "X-Answered", "X-Market")
    for answer in (first, again, restarted):
        assert answer.headers.keys() == first.headers.keys()
    ages_ms = [int(answer.headers["X-Anchor-Age-Ms"]) for answer in (first, again, restarted)]
    for number, answer in enumerate((again, restarted), 1):
        assert moment_ms(answer.headers["X-Asked"]) > moment_ms(answer.headers["X-Answered"])
        assert (answer.status_code, answer.text) == (200, first.text)
        assert [answer.headers[name] for name in names] == [first.headers[name] for name in names]
        assert ages_ms[number] >= ages_ms[0] + number * MINUTE_MS, "the price is older when it is told again"


def test_the_last_answer_of_a_topic_is_known_after_a_restart(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock) as running:
        given = running.get("/inference/ETH?topic=1&height=812")
    with node(tmp_path, exchange, clock, wait=False) as running:
        last = {state["topic_id"]: state["last_answer"] for state in running.get("/topics").json()}
    assert (last[1]["height"], last[1]["value"]) == (812, given.text)
    assert last[82] is None


def test_an_answer_of_long_ago_is_not_given_again_and_no_other_is(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    path = "/inference/ETH?topic=1&height=812"
    with node(tmp_path, exchange, clock) as running:
        assert running.get(path).status_code == 200
        clock.jump(3 * HOUR_MS)
        eventually(running.ready, what="/readyz")
        refused = running.get(path)
    assert (refused.status_code, "\n" in refused.text) == (503, False)
    assert f"height 812 was answered {iso(BASE_MS)[:14]}" in refused.text
    with node(tmp_path, exchange, clock) as running:
        assert running.get(path).text == refused.text, "after a restart, too"
        assert running.get("/inference/ETH?topic=1&height=813").status_code == 200


def test_a_clock_that_is_set_back_is_waited_out(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock, topics=[ETH_10M, SOL_15M]) as running:
        exchange.fail_next("/api", count=100_000, status=503)
        clock.jump(-10 * MINUTE_MS)
        for path in ("/inference/ETH", "/inference/SOL"):
            refused = running.get(path)
            assert (refused.status_code, "clock was set back" in refused.text) == (503, True), refused.text
        exchange.clear_faults()
        eventually(running.ready, what="/readyz")


class Holed(Binance):
    """A venue that was out of order for ten minutes: nobody will ever have those candles."""

    until_ms = BASE_MS - (unbroken_needed(MINUTE) - 1) * MINUTE_MS

    def klines(self, symbol: str, interval_ms: int, start_ms: int, end_ms: int) -> Klines:
        found = super().klines(symbol, interval_ms, start_ms, end_ms)
        if interval_ms != MINUTE_MS:
            return found
        return found.between(0, self.until_ms - 10 * MINUTE_MS).merge(found.between(self.until_ms, 2**62))


def test_a_champion_is_back_as_soon_as_the_candles_after_an_outage_are_enough(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    version = publish(registry, 0.5, clock.now_ms())
    registry.promote([ETH_10M], version, clock.now_ms())
    with node(tmp_path, exchange, clock, topics=[ETH_10M], venue=Holed) as running:
        assert running.get("/inference/ETH").headers["X-Model-Version"] == "persistence"
        assert "missing between" in running.get("/topics").json()[0]["persistence"]
        clock.jump(MINUTE_MS)
        eventually(lambda: forecast_asof_ms(running) == BASE_MS + MINUTE_MS, what="the champion's forecast")
        eventually(running.ready, what="/readyz")
        assert running.get("/inference/ETH").headers["X-Model-Version"] == version


def test_an_answer_that_memory_has_let_go_is_still_the_same(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock) as running, requests.Session() as session:

        def ask(height: int) -> str:
            return session.get(f"{running.url}/inference/ETH?topic=1&height={height}", timeout=5).text

        first = ask(0)
        for height in range(1, RECENT + 1):
            ask(height)
        eventually(lambda: running.ledger.recall(ETH_10M, 0) is None, what="the first answer leaving memory")
        before = running.live.anchor("ETHUSDT")
        clock.jump(20_000)
        eventually(lambda: running.live.anchor("ETHUSDT") != before, what="another price")
        assert ask(0) == first
        assert ask(RECENT + 1) != first


def test_a_database_that_hangs_costs_only_the_questions_that_need_it(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock) as running, requests.Session() as session:

        def ask(height: int) -> requests.Response:
            return session.get(f"{running.url}/inference/ETH?topic=1&height={height}", timeout=5)

        first = ask(0).text
        for height in range(1, RECENT + 1):
            ask(height)
        eventually(lambda: running.ledger.recall(ETH_10M, 0) is None, what="the first answer leaving memory")
        with hanging(tmp_path / "ledger.sqlite3"):
            for _ in range(3):
                refused = ask(0)
                assert (refused.status_code, "\n" in refused.text) == (503, False)
                assert "height 0 was answered before is not known" in refused.text
                assert "X-Asked" in refused.headers
                assert ask(RECENT).status_code == 200, "memory has it"
                assert ask(RECENT + 1).status_code == 200, "nobody asked before"
        eventually(lambda: ask(0).text == first, what="the answer that was given first")
    eventually(lambda: [line["status"] for line in running.lines if line["height"] == 0][1:4] == [503] * 3)


def test_a_stale_market_is_503_with_a_reason_and_then_recovers(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    with node(tmp_path, exchange, clock) as running:
        exchange.fail_next("/api", count=100_000, status=503)
        clock.jump(40_000)
        price, volatility = "/inference/ETH?topic=1&height=5", "/inference/SOL?height=5"
        refused = running.get(price)
        assert refused.status_code == 503
        assert "MAX_ANCHOR_AGE_S" in refused.text
        assert "\n" not in refused.text
        assert "X-Asked" in refused.headers
        assert running.get(volatility).status_code == 200, "it rests on candles alone"
        clock.jump(4 * MINUTE_MS)
        refused = running.get("/inference/SOL?height=6")
        assert refused.status_code == 503
        assert "MAX_KLINE_AGE_S" in refused.text
        assert running.get("/inference/BTC").status_code == 200, "its candles are of an hour"
        reasons = running.get("/readyz")
        assert reasons.status_code == 503
        assert {line.split(":")[0] for line in reasons.text.splitlines()} == {
            f"topic allora-testnet-1/{number}" for number in (1, 2, 82)
        }
        exchange.clear_faults()
        clock.jump(30_000)  # past the back-off
        eventually(running.ready, what="/readyz")
        assert running.get(price).status_code == 200, "a failed answer is not remembered"


def test_a_start_without_a_venue_says_so_and_goes_on(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    exchange.fail_next("/api", count=100_000, status=503)
    with node(tmp_path, exchange, clock, wait=False) as running:
        assert running.get("/healthz").status_code == 200
        eventually(lambda: "503" in running.get("/readyz").text, what="the venue's failure as the reason")
        refused = running.get("/inference/ETH?topic=1&height=1")
        assert (refused.status_code, "\n" in refused.text) == (503, False)
        exchange.clear_faults()
        clock.jump(30_000)
        eventually(running.ready, what="/readyz")
        assert running.get("/inference/ETH?topic=1&height=1").status_code == 200


def test_without_a_champion_refuse_is_503(tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock) -> None:
    registry = Registry(tmp_path)
    registry.promote([ETH_10M], publish(registry, 0.5, clock.now_ms()), clock.now_ms())
    with node(tmp_path, exchange, clock, policy=NoModelPolicy.REFUSE, wait=False) as running:
        eventually(lambda: running.get("/inference/ETH?topic=1").status_code == 200, what="the champion's answer")
        refused = running.get("/inference/SOL")
        assert refused.status_code == 503
        assert "no champion yet; NO_MODEL_POLICY is refuse" in refused.text
        clock.jump(200 * HOUR_MS)
        eventually(lambda: "MAX_MODEL_AGE_H" in running.get("/inference/ETH?topic=1").text, what="too old a champion")


def test_a_champion_answers_by_its_target_and_each_panel_has_its_own(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    minute = publish(registry, 0.5, clock.now_ms())
    hour = publish(registry, 0.25, clock.now_ms(), HOUR)
    registry.promote([ETH_10M, SOL_15M], minute, clock.now_ms())
    registry.promote([BTC_8H, ETH_24H], hour, clock.now_ms())
    with node(tmp_path, exchange, clock) as running:
        versions = {}
        for number, (asked, path) in enumerate(QUESTIONS):
            answer = running.get(f"{path}{'&' if '?' in path else '?'}height={number}")
            versions[asked.topic_id] = answer.headers["X-Model-Version"]
            state, kept = running.service.state(asked), running.service.last(asked)
            assert state
            assert state.forecast
            assert kept
            since_ms = kept.anchor_asof_ms - state.klines_end_ms
            expected = carried(state.forecast, state.close, kept.anchor, since_ms).volatility
            if state.forecast.log_return is not None:
                expected = state.forecast.log_return
                assert expected != 0
                if asked.target is Target.PRICE:
                    expected = kept.anchor * math.exp(expected)
            assert expected
            assert float(answer.text) == pytest.approx(expected * asked.unit, rel=1e-12)
            assert (answer.headers["X-Forecast"], kept.forecast) == ("network", "network")
        assert versions == {1: minute, 82: minute, 2: hour, 64: hour}


def test_a_network_that_adds_nothing_is_called_naive_wherever_its_answer_is_told_of(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    version = publish(registry, 0.0, clock.now_ms())  # a return of nothing, and the present volatility
    registry.promote([ETH_10M, SOL_15M], version, clock.now_ms())
    with node(tmp_path, exchange, clock, topics=[ETH_10M, SOL_15M]) as running:
        eth, sol = running.get("/inference/ETH?height=5"), running.get("/inference/SOL?height=5")
        assert (eth.headers["X-Model-Version"], eth.headers["X-Forecast"]) == (version, "naive")
        assert (sol.headers["X-Model-Version"], sol.headers["X-Forecast"]) == (version, "network")
        states = {state["topic_id"]: state for state in running.get("/topics").json()}
        assert (states[1]["forecast"], states[1]["naive_because"]) == ("naive", "the network adds nothing")
        assert (states[82]["forecast"], states[82]["naive_because"]) == ("network", "")
        assert states[1]["last_answer"]["forecast"] == "naive"
        scraped = running.get("/metrics").text
        assert 'birnn_topic_naive{network="allora-testnet-1",topic="1"} 1.0' in scraped
        assert 'birnn_topic_persistence{network="allora-testnet-1",topic="1"} 0.0' in scraped
        assert 'birnn_topic_naive{network="allora-testnet-1",topic="82"} 0.0' in scraped
        eventually(lambda: len(running.lines) == 2, what="the log lines")
        assert {line["topic_id"]: line["forecast"] for line in running.lines} == {1: "naive", 82: "network"}
        eventually(lambda: not running.ledger.unwritten, what="the ledger")
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as connection:
        rows = connection.execute("SELECT topic_id, target, forecast FROM answers ORDER BY topic_id").fetchall()
    assert rows == [(1, "price", "naive"), (82, "volatility std_horizon", "network")]


def test_a_champion_that_was_chosen_for_a_volatility_per_minute_answers_in_the_network_s_unit(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    version = publish(registry, 0.25, clock.now_ms())
    registry.promote([replace(SOL_15M, volatility=Volatility.STD)], version, clock.now_ms())
    with node(tmp_path, exchange, clock, topics=[SOL_15M]) as running:
        answer = running.get("/inference/SOL")
        state, kept = running.service.state(SOL_15M), running.service.last(SOL_15M)
        assert answer.headers["X-Model-Version"] == version
        assert state
        assert state.forecast
        assert kept
        since_ms = kept.anchor_asof_ms - state.klines_end_ms
        per_minute = carried(state.forecast, state.close, kept.anchor, since_ms).volatility
        assert per_minute
        assert float(answer.text) == pytest.approx(per_minute * 15**0.5, rel=1e-12)


def test_a_swap_under_load_never_gives_a_mixed_or_missing_answer(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    down, up = (publish(registry, output, clock.now_ms()) for output in (-1.0, 1.0))
    registry.promote([ETH_10M], down, clock.now_ms())
    answers: list[tuple[int, str, str]] = []
    ending = threading.Event()
    with node(tmp_path, exchange, clock, topics=[ETH_10M]) as running:

        def ask(first: int) -> None:
            with requests.Session() as session:
                for height in range(first, 10**9, len(askers)):
                    if ending.is_set():
                        return
                    answer = session.get(f"{running.url}/inference/ETH?height={height}", timeout=5)
                    answers.append((answer.status_code, answer.headers.get("X-Model-Version", ""), answer.text))

        askers = [threading.Thread(target=ask, args=(first,)) for first in range(3)]
        for asker in askers:
            asker.start()
        try:
            for version in (up, down, up, down):
                registry.promote([ETH_10M], version, clock.now_ms())
                eventually(lambda v=version: answers[-1][1] == v, 2.0, "the new champion")  # type: ignore[misc]
            for _ in range(2):  # a candle closes under load, too
                clock.jump(25_000)
                jumped_ms = clock.now_ms()
                eventually(lambda at=jumped_ms: anchor_ms(running) >= at, what="a fresh anchor")  # type: ignore[misc]
            eventually(lambda: forecast_asof_ms(running) == BASE_MS + MINUTE_MS, what="the candle's forecast")
            least = max(500, len(answers) + 10)  # three are under way that may have been made before
            eventually(lambda: len(answers) > least, what="more answers")
        finally:
            ending.set()
            for asker in askers:
                asker.join()
    assert {status for status, _, _ in answers} == {200}
    assert {version for _, version, _ in answers} == {down, up}
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as ledger:
        rows = ledger.execute("SELECT version, value, anchor, asof_ms, height FROM answers").fetchall()
    ledger.close()
    assert sorted((v, text) for _, v, text in answers) == sorted((v, text) for v, text, *_ in rows)
    moves: dict[tuple[str, int], list[float]] = {}
    for version, text, anchor, asof_ms, _ in rows:
        moves.setdefault((version, asof_ms), []).append(math.log(float(text) / anchor))
    for (version, asof_ms), found in moves.items():
        # The networks say one deviation of the horizon down and up: nothing of the one in an answer of the other.
        assert max(found) - min(found) < 1e-9, "one forecast per version and window"
        assert found[0] < 0 if version == down else found[0] > 0
        assert asof_ms in {BASE_MS, BASE_MS + MINUTE_MS}
    assert moves[down, BASE_MS][0] == pytest.approx(-moves[up, BASE_MS][0], rel=1e-6)
    assert (down, BASE_MS + MINUTE_MS) in moves


def test_counts_of_a_version_end_when_another_answers_though_nobody_scrapes(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock
) -> None:
    registry = Registry(tmp_path)
    down, up = (publish(registry, output, clock.now_ms()) for output in (-1.0, 1.0))
    with node(tmp_path, exchange, clock, topics=[ETH_10M]) as running:

        def put_to_use(version: str) -> None:
            registry.promote([ETH_10M], version, clock.now_ms())
            eventually(lambda: in_use(running) == version, what="the champion")

        for version in (down, up):
            put_to_use(version)
            assert running.get("/inference/ETH").headers["X-Model-Version"] == version
        put_to_use(down)
        scraped = running.get("/metrics").text
    assert f'version="{down}"}}' not in re.sub("birnn_model.*", "", scraped)


def in_use(running: Node) -> str:
    state = running.service.state(ETH_10M)
    return state.champion if state else ""


def anchor_ms(running: Node) -> int:
    anchor = running.live.anchor("ETHUSDT")
    return anchor.asof_ms if anchor else 0


def forecast_asof_ms(running: Node) -> int:
    state = running.service.state(ETH_10M)
    return state.forecast.asof_ms if state and state.forecast else 0


def torn(folder: Path, registry: Registry) -> None:
    version = publish(registry, -0.5, BASE_MS)
    registry.promote([ETH_10M], version, BASE_MS)
    (registry.path(version) / "model.onnx").write_bytes(b"torn")


def made_for_other_code(folder: Path, registry: Registry) -> None:
    registry.promote([ETH_10M], publish(registry, -0.5, BASE_MS, feature_version=999), BASE_MS)


def chosen_for_another_topic(folder: Path, registry: Registry) -> None:
    version = publish(registry, -0.5, BASE_MS)
    registry.promote([topic(1, "ETH", 10, Target.LOG_RETURN)], version, BASE_MS)


def champions_torn(folder: Path, registry: Registry) -> None:
    (folder / "champions.json").write_text('{"champions": ')


@pytest.mark.parametrize("spoil", [torn, made_for_other_code, chosen_for_another_topic, champions_torn])
def test_a_broken_champion_leaves_the_old_one_in_use_and_is_seen(
    tmp_path: Path, exchange: SimulatedExchange, clock: RunningClock, spoil: Callable[[Path, Registry], None]
) -> None:
    registry = Registry(tmp_path)
    good = publish(registry, 0.5, clock.now_ms())
    registry.promote([ETH_10M], good, clock.now_ms())
    with node(tmp_path, exchange, clock, topics=[ETH_10M]) as running:
        spoil(tmp_path, registry)
        eventually(lambda: running.get("/topics").json()[0]["fault"] != "", what="the fault on /topics")
        state = running.get("/topics").json()[0]
        assert (state["champion"], state["ready"]) == (good, True)
        assert running.get("/inference/ETH?topic=1").headers["X-Model-Version"] == good
        better = publish(registry, 0.75, clock.now_ms())
        registry.promote([ETH_10M], better, clock.now_ms())
        eventually(lambda: running.get("/inference/ETH").headers["X-Model-Version"] == better, what="the next champion")
        assert running.get("/topics").json()[0]["fault"] == ""


# -- a symbol that a venue lists as another pair -- ----------------------------------------------------------------


def test_from_the_moment_that_a_venue_lists_another_pair_nothing_is_answered(tmp_path: Path) -> None:
    clock, port = RunningClock(), free_port()
    away = Binance([f"http://127.0.0.1:{port}"], "", SystemClock(), timeout_s=2, patience_s=0)
    listings = Listings([away], TOPICS, threading.Event())
    with SimulatedExchange(clock=clock) as exchange, node(tmp_path, exchange, clock, listings=listings) as running:
        before = running.get("/inference/ETH?topic=1&height=70000")
        assert before.status_code == 200, "nothing waits for a venue that is away"
        back = SimulatedExchange(port=port)
        back.fail_next("/api/v3/exchangeInfo", 9, status=200, body=entry_of("ETHUSDT", "ETH", "BTC"))
        with back:
            eventually(lambda: running.get("/inference/ETH?topic=1").status_code == 503, 30, "the word of the venue")
        says = "ETHUSDT cannot answer for ETH: binance lists it as ETH in BTC, not ETH in dollars; correct Token"
        for path in ("/inference/ETH?topic=1", "/inference/ETH?topic=1&height=70000", "/inference/ETH?topic=2"):
            answer = running.get(path)
            assert (answer.status_code, says in answer.text) == (503, True), "also not again, once the venue is gone"
        ready = running.get("/readyz")
        assert (ready.status_code, ready.text.count(says)) == (503, 2)
        states = {state["topic_id"]: state for state in running.get("/topics").json()}
        assert (states[1]["ready"], says in states[1]["reason"]) == (False, True)
        assert states[82]["ready"], "another symbol's topic is answered"
        assert running.get("/inference/SOL?topic=82").status_code == 200
        assert headline(endpoint_report(running.url)).endswith("not answered: 1, 2")
        reply = http_get(f"{running.url}/inference/ETH?topic=1&height=70001", 5)
        assert (reply.status, says.encode() in reply.body) == (503, True), "the dry run shows the body"
