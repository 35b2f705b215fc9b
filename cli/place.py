"""Find the folder that a verb works on: by MARKET if set, else that of the last ``birnn run``, else DATA_DIR.

``DATA_DIR/last-run.json`` records the last run. Each simulated tape has a folder of its own.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from core.data_folder import only_updater, refuse_file
from core.errors import ConfigError
from core.files import replace_json
from core.settings import Market, Settings

LAST_RUN = "last-run.json"
SIMULATED_FOLDER = "simulated"


class LastRun(BaseModel):
    """The record of a ``birnn run``. ``folder`` is relative to DATA_DIR, so that DATA_DIR can be moved."""

    model_config = ConfigDict(frozen=True)

    market: Market
    folder: Path
    seed: int
    replay: Path | None
    url: str = ""  # of inference
    page: str = ""  # URL of the monitor's page


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The folder that a verb works on, and the market whose prices it holds."""

    folder: Path
    market: Market  # never AUTO
    because: str
    last: LastRun | None = None  # the run that decided the folder
    decided: bool = True  # False if neither MARKET nor a run decided

    @property
    def sentence(self) -> str:
        """A line for the user that names the folder and the reason."""
        invented = ", SIMULATED" if self.market is Market.SIMULATED else ""
        return f"data: {self.folder} ({self.because}{invented})"


def tape_folder(settings: Settings, replay: Path | None) -> Path:
    """Return the folder that keeps the klines of one tape apart from real klines and from other tapes."""
    tape = f"seed-{settings.seed}" if replay is None else f"replay-{replay.resolve().name}"
    return settings.data_dir / SIMULATED_FOLDER / tape


def said_market(settings: Settings) -> Market:
    """Return the setting MARKET; AUTO if MARKET is not set."""
    return settings.market if "market" in settings.model_fields_set else Market.AUTO


def place_of(settings: Settings) -> Place:
    """Return the place of a verb. ``birnn run`` does not use this function.

    Raises:
        ConfigError: the last run's folder is gone, or its record cannot be read.
    """
    refuse_file(settings.data_dir)
    base, market = settings.data_dir.absolute(), said_market(settings)
    if is_tape(base) and market is not Market.BINANCE:
        return Place(folder=base, market=Market.SIMULATED, because="DATA_DIR")
    last = None if market is Market.BINANCE else _last_run(base)
    other_seed = last and "seed" in settings.model_fields_set and settings.seed != last.seed
    if last and (market is Market.AUTO or (last.market is Market.SIMULATED and not other_seed)):
        folder = (base / last.folder).absolute()
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: the last birnn run kept its data there, and the folder is gone; start scripts/run again, "
                f"set MARKET, or delete {base / LAST_RUN}"
            )
        return Place(folder=folder, market=last.market, because="what the last birnn run used", last=last)
    if market is Market.SIMULATED:
        folder = tape_folder(settings, None).absolute()
        return Place(folder=folder, market=Market.SIMULATED, because="MARKET=simulated")
    because = "MARKET=binance" if market is Market.BINANCE else "DATA_DIR; no birnn run yet"
    return Place(folder=base, market=Market.BINANCE, because=because, decided=market is Market.BINANCE)


def endpoint_of(settings: Settings, place: Place | None) -> str:
    """Return the URL of inference: from HOST and PORT if either is set, else from the last run."""
    if place and place.last and place.last.url and not {"host", "port"} & settings.model_fields_set:
        return place.last.url
    return f"http://{settings.host}:{settings.port}"


def ledger_url(settings: Settings, place: Place) -> str:
    """Return the URL of the ledger of a place: a simulated market has a ledger of its own."""
    if place.market is Market.SIMULATED:
        settings = settings.model_copy(update={"database_url": ""})
    return settings.model_copy(update={"data_dir": place.folder}).ledger_url


def page_of(settings: Settings, place: Place | None) -> str:
    """Return the URL of the monitor's page: by MONITOR_HOST and MONITOR_PORT if either is set, else of the last run."""
    if place and place.last and place.last.page and not {"monitor_host", "monitor_port"} & settings.model_fields_set:
        return place.last.page
    return f"http://{settings.monitor_host}:{settings.monitor_port}"


def note_run(settings: Settings, market: Market, replay: Path | None, url: str, page: str = "") -> None:
    """Record a run for the other verbs. A failure to write, such as a full disk, is ignored.

    Args:
        url: of inference.
        page: URL of the monitor's page.
    """
    folder = tape_folder(settings, replay) if market is Market.SIMULATED else settings.data_dir
    last = LastRun(
        market=market,
        folder=folder.relative_to(settings.data_dir),
        seed=settings.seed,
        replay=replay and replay.absolute(),
        url=url,
        page=page,
    )
    with contextlib.suppress(OSError):
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        replace_json(settings.data_dir / LAST_RUN, last.model_dump(mode="json"))


def try_folders(settings: Settings, replay: Path | None) -> None:
    """Check that the run's folder can be written and is not in use; both folders if MARKET is not set.

    Raises:
        ConfigError: the folder cannot be made, is in use, or DATA_DIR is the folder of a tape.
        WorkerError: the disk is full or read-only.
    """
    market, tape = said_market(settings), tape_folder(settings, replay)
    if is_tape(settings.data_dir.absolute()):
        raise ConfigError(
            f"DATA_DIR={settings.data_dir} holds prices of the simulated exchange only; "
            f"set DATA_DIR={settings.data_dir.parents[1]}, and MARKET=simulated to use these prices"
        )
    folders = [] if market is Market.SIMULATED else [settings.data_dir]
    folders += [tape] if market is Market.SIMULATED or (market is Market.AUTO and tape.exists()) else []
    for folder in folders:
        with only_updater(folder):
            pass


def is_tape(folder: Path) -> bool:
    """True if the folder is that of a simulated tape."""
    return folder.parent.name == SIMULATED_FOLDER and folder.name.startswith(("seed-", "replay-"))


def _last_run(base: Path) -> LastRun | None:
    path = base / LAST_RUN
    try:
        return LastRun.model_validate(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; check its owner and mode") from error
    except (ValueError, ValidationError) as error:
        raise ConfigError(f"{path}: is not a record of birnn run; delete it, or start scripts/run again") from error
