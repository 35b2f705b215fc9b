"""Which market a command on this machine uses, and the settings its processes get for it."""

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

from core.clock import SystemClock
from core.errors import ConfigError, MarketUnavailable
from core.settings import Market, Settings
from market.venues import market_from

VENUE_PATIENCE_S = 3.0
EXCHANGE_PATIENCE_S = 30.0
EXCHANGE = "market.simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketChoice:
    """The real venues or the simulated exchange, and the one line that says so."""

    market: Market  # never AUTO
    sentence: str


def choose_market(settings: Settings) -> MarketChoice:
    """Resolve ``MARKET``; not set at all, it counts as ``auto`` here."""
    wanted = settings.market if "market" in settings.model_fields_set else Market.AUTO
    if wanted is Market.BINANCE:
        return MarketChoice(
            market=Market.BINANCE, sentence=f"market: real prices (MARKET=binance; {settings.market_venues})"
        )
    if wanted is Market.SIMULATED:
        return MarketChoice(
            market=Market.SIMULATED, sentence="market: SIMULATED (MARKET=simulated); prices are invented"
        )
    venues = market_from(settings.model_copy(update={"market": Market.BINANCE}), SystemClock()).venues
    pool = ThreadPoolExecutor(len(venues), thread_name_prefix="venue")
    asked = {pool.submit(venue.hosts.answers, venue.offer.ping, VENUE_PATIENCE_S): venue.offer.name for venue in venues}
    pool.shutdown(wait=False)
    reasons = []
    for answered in as_completed(asked):
        if reach := answered.result():
            return MarketChoice(market=Market.BINANCE, sentence=f"market: real prices ({asked[answered]} answered)")
        reasons.append(f"{asked[answered]}: {reach.detail}")
    return MarketChoice(
        market=Market.SIMULATED,
        sentence=f"market: SIMULATED, prices are invented; no venue of MARKET_VENUES answered within "
        f"{VENUE_PATIENCE_S:.0f} s ({'; '.join(reasons)})",
    )


def tape_folder(settings: Settings, replay: Path | None) -> Path:
    """Where everything of one invented tape is kept: never beside real prices, nor beside another tape."""
    tape = f"seed-{settings.seed}" if replay is None else f"replay-{replay.resolve().name}"
    return settings.data_dir / "simulated" / tape


def local_environment(settings: Settings, exchange_url: str | None, data_dir: Path) -> dict[str, str]:
    """What the processes of this machine get in their environment.

    Args:
        exchange_url: of the simulated exchange; None is Binance.
        data_dir: of the market in use.
    """
    market = Market.BINANCE if exchange_url is None else Market.SIMULATED
    environment = {
        "MARKET": market.value,
        "DATA_DIR": str(data_dir.absolute()),
        "CONFIG_FILE": settings.config_file,
        "HOST": settings.host,
        "PORT": str(settings.port),
    }
    if exchange_url is not None:
        environment |= {
            "BINANCE_REST_URLS": exchange_url,
            "BINANCE_WS_URLS": f"ws{exchange_url.removeprefix('http')}",
            "BINANCE_ARCHIVE_URL": exchange_url,
            "DATABASE_URL": f"sqlite:///{data_dir.absolute() / 'ledger.sqlite3'}",
        }
    return environment


def child_command(module: str, *arguments: str) -> list[str]:
    """The command of one of our modules, tied to this process's life."""
    return [sys.executable, "-m", "cli.child", module, *arguments]


def exchange_arguments(settings: Settings, replay: Path | None) -> tuple[str, ...]:
    """What makes the simulated exchange play one tape, and go on with it after a restart."""
    tape = ("--seed", str(settings.seed))
    return (
        tape
        if replay is None
        else (*tape, "--replay", str(replay), "--state", str(tape_folder(settings, replay) / "tape.json"))
    )


@contextmanager
def simulated_exchange(settings: Settings, replay: Path | None) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The simulated exchange as a process of its own, while the block runs.

    Yields:
        Its URL and the process.
    Raises:
        MarketUnavailable: it did not come up.
        ConfigError: it refused its arguments.
    """
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


def _pass_on(lines: TextIO) -> None:
    with lines:
        for line in lines:
            sys.stdout.write(line)
            sys.stdout.flush()
