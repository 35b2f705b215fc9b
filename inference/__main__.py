"""``python -m inference``: answers the offchain node until SIGTERM or SIGINT."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn

from chain.follower import Follower
from core.clock import HOUR_MS, SECOND_MS, Clock, CorrectedClock, SystemClock
from core.errors import ConfigError
from core.files import DISK_REFUSES
from core.heap import keep_heap_whole
from core.logs import configure_logging
from core.process.command_line import CommandLine
from core.process.commands import RUN, say_ready
from core.process.listener import handed_over, listen
from core.setting_values import AUTO_WAIT
from core.settings import Market, Settings, load_settings, settings_warnings
from core.topic import Target, Topic
from inference.answering import InferenceService
from inference.base import Bases
from inference.forecast_cache import ForecastCache, rows_to_keep
from inference.http.app import create_app, create_server
from inference.http.fast_route import GATHER_LINES_S, write_lines
from inference.http.holds import Holds, raise_file_limit
from inference.http.metrics import Metrics
from inference.poller import Poller
from inference.stretches import Stretches
from inference.topic_state import Limits
from inference.waits import Waits
from ledger.answer_log import Ledger
from ledger.background_writer import BackgroundWriter
from market.build import market_from, truth_venue_from
from market.failover.failover import Failover
from market.listings import Listings
from market.live.live_market import LiveMarket
from market.live.truth_ratio import TruthFeed
from market.store.warm_start import read_warm_starts
from market.venues.registry import stream_from
from model.registry.versions import Registry
from node.config_file import Config, read_config
from node.versions import starts_in_turn, takes_held_answers
from truth.adopted import Adopted

WRONG_CONFIG = 2  # exit status
VENUE_TIMEOUT_S = 3.0  # a request that hangs is given up; the next one comes a second later
SWITCH_S = 0.0005  # a computing thread gives way to the event loop; Python's 5 ms are ten answers' time
WORTH = "each second that an answer may wait is worth more than any network"
STOP_S = 0.3  # for each background thread; a thread that hangs in a request is left behind

log = structlog.get_logger()


def main(arguments: Sequence[str] = ()) -> int:
    """Run until a signal; return 2, with one line on stderr, if the arguments or the configuration are wrong."""
    keep_heap_whole()
    # Until there is a server to stop, a signal ends the process at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        CommandLine(prog="python -m inference", description="Answer the offchain node.").parse_args(arguments)
        return serve(load_settings(), SystemClock(), handed_over())
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG_CONFIG


def serve(settings: Settings, machine: Clock, given: socket.socket | None = None) -> int:
    """Answer until a signal.

    Args:
        machine: the machine's clock, or a faster clock in tests. It is corrected by the venue's clock here.
        given: the socket to answer on, if another process holds it open; None listens on HOST and PORT.
    Raises:
        ConfigError: a setting is wrong, or names something that cannot be had.
    """
    adopted = _adopted(settings)
    settings = adopted.settings
    clock = CorrectedClock(machine)
    config = read_config(*settings.config_files, node_version=settings.node_version, own=settings.address)
    topics = config.topics
    rows = rows_to_keep(topics)
    tails, homes = read_warm_starts(settings.klines_dir, rows, settings.venues)
    waits = {"timeout_s": VENUE_TIMEOUT_S, "patience_s": 0.0}
    venues = market_from(settings, clock, topics=topics, homes=homes, **waits)
    stream = stream_from(settings, rows)
    _make(settings.data_dir)
    with given or listen(settings.host, settings.port) as listener:
        market = settings.market.value.upper()
        ledger = Ledger(settings.ledger_url, topics, market, clock, settings.data_dir)
        chains = _chains_from(settings, config, clock)
        truth = _truth_from(settings, topics, venues, clock)
        live = LiveMarket(venues, rows, clock, stream, tails)
        bases = Bases(rule=settings.base_rule, node_delay_ms=round(settings.node_delay_s * SECOND_MS), chains=chains)
        stretches = Stretches(settings.objective, settings.data_dir)
        forecasts = ForecastCache(topics, live, Registry(settings.data_dir), clock)
        listings = Listings(venues.venues, topics, threading.Event())
        service = InferenceService(
            forecasts,
            topics,
            live,
            ledger,
            clock,
            limits=_limits(settings),
            market=market,
            stretches=stretches,
            bases=bases,
            waits=_waits_from(settings, config, chains),
            truth=truth,
            listings=listings,
        )
        journal = BackgroundWriter[dict[str, Any]]("answer-lines", write_lines, gather_s=GATHER_LINES_S)
        holds = Holds(service, settings.answer_patience_s)
        raise_file_limit()
        metrics = Metrics(service, live, venues, settings.data_dir, holds)
        server = create_server(create_app(service, metrics, journal, holds, settings.page_address), market)
        holds.is_ending = lambda: server.should_exit
        _end_on_signals(server)
        sys.setswitchinterval(SWITCH_S)
        feeds = [truth] if truth else []  # of the truth venue; the poller may add one
        adopt = _adopter(adopted, service, feeds, lambda now: _truth_from(now, topics, venues, clock))
        background: tuple[Poller | Follower, ...] = (
            Poller(forecasts, stretches, ledger, bases, clock, adopt),
            *chains.values(),
        )
        try:
            host, port = listener.getsockname()[:2]
            log.info("listening", url=f"http://{host}:{port}", topics=[t.key for t in topics], answers_from=market)
            _log_notes(settings, config, chains)
            listings.start()
            live.start(_ready_after(forecasts.candles_closed))
            for one in (*background, *feeds):
                one.start()
            server.run(sockets=[listener])
        finally:
            ledger.close()
            live.stop(STOP_S)
            for one in (*background, *feeds):
                one.stop(STOP_S)
            listings.stop()
            journal.close(STOP_S)
        log.info("ended")
    return 0


def _adopted(settings: Settings) -> Adopted:
    """Begin the log, and resolve the settings that are ``auto``."""
    if settings.market is Market.AUTO:
        raise ConfigError("MARKET=auto is for `birnn run` alone; set MARKET to binance or simulated")
    configure_logging(
        settings.log_level,
        service="inference",
        simulated=settings.market is Market.SIMULATED,
        form=settings.log_format,
    )
    return Adopted(settings)


def _ready_after(closed: Callable[[int], None]) -> Callable[[int], None]:
    """Return ``closed`` followed by ``say_ready``: once there are forecasts, the start has succeeded."""

    def closed_and_ready(interval_ms: int) -> None:
        closed(interval_ms)
        say_ready()

    return closed_and_ready


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in DISK_REFUSES:  # else the ledger logs it; answers need no disk
            raise ConfigError(
                f"DATA_DIR={folder}: cannot be made: {error.strerror}; name a folder that may be written to"
            ) from error


def _limits(settings: Settings) -> Limits:
    return Limits(
        anchor_ms=settings.max_anchor_age_s * SECOND_MS,
        klines_ms=settings.max_kline_age_s * SECOND_MS,
        model_ms=settings.max_model_age_h * HOUR_MS,
        policy=settings.no_model_policy,
    )


def _end_on_signals(server: uvicorn.Server) -> None:
    """Let SIGTERM and SIGINT end the server before and after it serves; while it serves it catches them itself."""

    def stop(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _log_notes(settings: Settings, config: Config, chains: Mapping[str | None, Follower]) -> None:
    if RUN not in os.environ:  # birnn run has shown the warnings already
        for warning in (*settings_warnings(), *config.warnings):
            log.warning("config_unwise", reason=warning)
    for note in sorted({topic.proxy for topic in config.topics if topic.proxy}):
        log.info("proxy", note=note, remedy="Symbol in config.json names another pair")
    _log_unheld(settings, config, chains)


def _chains_from(settings: Settings, config: Config, clock: Clock) -> dict[str | None, Follower]:
    """Return a follower of each network's chain, by chain id; empty if RPC_URLS is ``none`` or no address is known."""
    return {
        network: Follower(found, network, clock, [t.topic_id for t in config.topics if t.network == network])
        for network, found in settings.rpcs(config.rpc_urls).items()
    }


def _waits_from(settings: Settings, config: Config, chains: Mapping[str | None, Follower]) -> Waits:
    in_turn = frozenset(network for network, versions in config.nodes.items() if starts_in_turn(versions))
    return Waits(setting=settings.answer_wait, chains=chains, in_turn=in_turn)


def _log_unheld(settings: Settings, config: Config, chains: Mapping[str | None, Follower]) -> None:
    """Log on which networks ``auto`` holds no answer, and what to do about it."""
    autos = [topic for topic in config.topics if (topic.wait or settings.answer_wait) == AUTO_WAIT]
    for network in dict.fromkeys(topic.network for topic in autos):
        node = config.nodes[network]
        if network not in chains:
            if RUN in os.environ:  # the heights of the dry-run node need no chain
                continue
            reason = "the chain is not asked, so it is not known how long an answer may wait"
            remedy = "name the chain's addresses in RPC_URLS, or in nodeRpcs of config.json"
        elif takes_held_answers(node):
            continue
        else:
            reason = f"whether {node.said} waits for an answer without a time limit is not known"
            remedy = "" if node.is_named else "name the node's version in NODE_VERSION, or "
            remedy += "try ANSWER_WAIT=45"
        log.info("answers_not_held", network=network, reason=reason, remedy=f"{WORTH}: {remedy}")


def _truth_from(settings: Settings, topics: Sequence[Topic], venues: Failover, clock: Clock) -> TruthFeed | None:
    """Return the feed of TRUTH_VENUE; None if TRUTH_VENUE is not set, or prices come from that venue anyway.

    Raises:
        ConfigError: the venue's URL or key is wrong.
    """
    waits = {"timeout_s": VENUE_TIMEOUT_S, "patience_s": 0.0}
    truth = truth_venue_from(settings, clock, venues.quarantine, topics=topics, **waits)
    if truth is None:
        return None
    symbols = [topic.symbol for topic in topics if topic.target is Target.PRICE]
    return TruthFeed(truth, venues, symbols, clock)


def _adopter(
    adopted: Adopted,
    service: InferenceService,
    feeds: list[TruthFeed],
    feed_of: Callable[[Settings], TruthFeed | None],
) -> Callable[[], None]:
    """Return what puts new adoptions to use in place: to end for them would break off the questions that are held.

    Args:
        feeds: the truth venue's feed, if there is one; a new one is started and added.
        feed_of: makes the feed that settings ask for.
    """

    def adopt() -> None:
        if adopted.look():
            if not feeds and (feed := feed_of(adopted.settings)):
                feeds.append(feed)
                feed.start()
            service.adopt(adopted.settings.base_rule, feeds[0] if feeds else None)

    return adopt


def _leave(_: int, __: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
