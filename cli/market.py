"""The market that a command uses, real or simulated, and the environment of its processes."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from cli.place import said_market, tape_folder
from core.clock import SystemClock
from core.errors import ConfigError, MarketUnavailable
from core.logs import readable
from core.process.commands import RUN, child_command
from core.settings import Market, Settings

VENUE_PATIENCE_S = 3.0
EXCHANGE_PATIENCE_S = 30.0
EXCHANGE = "exchange"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketChoice:
    """The choice of real venues or the simulated exchange, with a line for the user."""

    market: Market  # never AUTO
    sentence: str


def choose_market(settings: Settings, replay: Path | None = None) -> MarketChoice:
    """Choose the market by ``MARKET``, which counts as ``auto`` if it is not set.

    Args:
        replay: folder that the simulated exchange plays, with MARKET=simulated.
    Raises:
        ConfigError: the folder holds nothing to replay.
    """
    from market.venues.registry import check_names  # noqa: PLC0415  (refusing a second run must not wait for imports)

    check_names(settings)
    wanted = said_market(settings)
    if wanted is Market.BINANCE:
        return MarketChoice(
            market=Market.BINANCE, sentence=f"market: real prices (MARKET=binance; {settings.market_venues})"
        )
    if wanted is Market.SIMULATED:
        return MarketChoice(
            market=Market.SIMULATED, sentence=f"market: SIMULATED (MARKET=simulated); {_prices(replay)}"
        )
    from market.build import market_from  # noqa: PLC0415  (as above)

    real = settings.model_copy(update={"market": Market.BINANCE})
    venues = market_from(real, SystemClock(), topics=()).venues  # they are pinged, so no topics are needed
    pool = ThreadPoolExecutor(len(venues), thread_name_prefix="venue")
    asked = {pool.submit(venue.hosts.ping, venue.info.ping, VENUE_PATIENCE_S): venue.info.name for venue in venues}
    pool.shutdown(wait=False)
    reasons = []
    for answered in as_completed(asked):
        if not (why_not := answered.result()):
            return MarketChoice(market=Market.BINANCE, sentence=f"market: real prices ({asked[answered]} answered)")
        reasons.append(f"{asked[answered]}: {why_not.partition('; ')[0]}")
    hosts = sum(len(venue.hosts.urls) for venue in venues)
    return MarketChoice(
        market=Market.SIMULATED,
        sentence=f"market: SIMULATED, {_prices(replay)}; no venue of MARKET_VENUES answered within "
        f"{VENUE_PATIENCE_S:.0f} s ({hosts} hosts tried; {reasons[0]}; birnn doctor --market names all)",
    )


def _prices(replay: Path | None) -> str:
    if replay is None:
        return "prices are invented"
    from market.store.recording import recorded_days  # noqa: PLC0415 -- polars, for a replay alone

    return f"replayed: real klines of {recorded_days(replay)} from {replay}, moved to now"


def local_environment(settings: Settings, exchange_url: str | None, data_dir: Path) -> dict[str, str]:
    """The environment of the processes of this machine.

    Args:
        exchange_url: of the simulated exchange; None for real venues.
        data_dir: of the market in use.
    """
    market = Market.BINANCE if exchange_url is None else Market.SIMULATED
    environment = {
        "MARKET": market.value,
        "DATA_DIR": str(data_dir.absolute()),
        "CONFIG_FILE": settings.config_file,
        "HOST": settings.host,
        "PORT": str(settings.port),
        RUN: "1",
        # The dry-run node's heights belong to no chain.
        "RPC_URLS": settings.rpc_urls or "none",
    }
    if exchange_url is not None:
        line = settings.venues if "binance" in settings.venues else ("binance", *settings.venues)
        environment |= {
            "MARKET_VENUES": ",".join(line),  # the simulated exchange is the one at Binance's hosts
            "BINANCE_REST_URLS": exchange_url,
            "BINANCE_WS_URLS": f"ws{exchange_url.removeprefix('http')}",
            "BINANCE_ARCHIVE_URL": exchange_url,
            "DATABASE_URL": f"sqlite:///{data_dir.absolute() / 'ledger.sqlite3'}",
        }
    return environment


def exchange_arguments(settings: Settings, replay: Path | None) -> tuple[str, ...]:
    """Arguments that let the simulated exchange play one tape, and continue that tape after a restart."""
    tape = ("--seed", str(settings.seed))
    return (
        tape
        if replay is None
        else (*tape, "--replay", str(replay), "--state", str(tape_folder(settings, replay) / "tape.json"))
    )


@contextmanager
def simulated_exchange(settings: Settings, replay: Path | None) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run the simulated exchange as a process while the block runs.

    Yields:
        URL and process.
    Raises:
        MarketUnavailable: the process did not come up.
        ConfigError: the process refused its arguments.
    """
    with contextlib.suppress(OSError):  # a warning about the disk was shown already
        tape_folder(settings, replay).mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        child_command(EXCHANGE, *exchange_arguments(settings, replay)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(EXCHANGE_PATIENCE_S, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None  # noqa: S101  (PIPE above)
        first = process.stdout.readline()
        watchdog.cancel()
        if not first:
            if process.wait() == 2:
                raise ConfigError("the simulated exchange refused its arguments (see its line above)")
            raise MarketUnavailable(f"the simulated exchange did not come up within {EXCHANGE_PATIENCE_S:.0f} s")
        threading.Thread(target=_pass_on, args=(process.stdout,), daemon=True, name="exchange-output").start()
        yield str(json.loads(first)["url"]), process
    finally:
        watchdog.cancel()
        if process.poll() is None:
            process.terminate()
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def replaying(settings: Settings, replay: Path | None) -> Settings:
    """The settings with the market that a replay needs.

    Raises:
        ConfigError: MARKET is real, the folder does not exist, or the folder holds nothing to replay.
    """
    if replay is None:
        return settings
    if said_market(settings) is Market.BINANCE:
        raise ConfigError(f"--replay {replay} needs the simulated exchange: add --market simulated")
    if not replay.is_dir():
        raise ConfigError(f"--replay {replay}: no such folder; name a folder of Parquet klines")
    _prices(replay)  # raises if there is nothing to replay
    return settings.model_copy(update={"market": Market.SIMULATED})


def _pass_on(lines: TextIO) -> None:
    with lines:
        for line in lines:
            sys.stdout.write(readable(line.rstrip("\n")) + "\n")
            sys.stdout.flush()
