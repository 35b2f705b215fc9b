"""What ``TRUTH_VENUE=auto`` and ``BASE_RULE=auto`` stand for: what the ledger says was adopted, else the default.

The monitor adopts a value once, for ever (``monitor.adopter``). Whoever reads the two settings reads them resolved.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import structlog

from core.clock import SystemClock, iso
from core.errors import ConfigError
from core.seldom import Seldom
from core.settings import AUTO, BaseRule, Settings
from ledger.database import FAULTS
from ledger.epochs import Adoption, EpochBook
from ledger.schema import one_line
from market.quarantine import Quarantine

LOOK_S = 20.0  # from one look for new adoptions to the next
READ_S = 2.0  # for the database to answer a look
SELDOM_S = 3600.0  # from one line about a database that cannot be read to the next
TRUTH_VENUE, BASE_RULE = "TRUTH_VENUE", "BASE_RULE"
DEFAULTS: Mapping[str, str] = {TRUTH_VENUE: "", BASE_RULE: BaseRule.MINUTE.value}  # of auto, until there is an adoption

log = structlog.get_logger()


def autos(settings: Settings) -> frozenset[str]:
    """Return the names of the settings whose value is ``auto``."""
    return frozenset(name for name in DEFAULTS if getattr(settings, name.lower()) == AUTO)


def resolve(settings: Settings, found: Mapping[str, Adoption]) -> Settings:
    """Return the settings with what was adopted in place of ``auto``, or the default where that is nothing usable.

    Args:
        found: adoptions by the setting's name.
    """
    chosen = {name: DEFAULTS[name] for name in autos(settings)}
    chosen |= {name: found[name].value for name in chosen.keys() & found.keys() if not fault_of(found[name], settings)}
    changes: dict[str, object] = {name.lower(): value for name, value in chosen.items()}
    if BASE_RULE in chosen:
        changes["base_rule"] = BaseRule(chosen[BASE_RULE])
    return settings.model_copy(update=changes)


def fault_of(adoption: Adoption, settings: Settings) -> str:
    """Return why an adopted value cannot be used here; empty if it can."""
    if adoption.setting == BASE_RULE:
        rules = (BaseRule.MINUTE.value, BaseRule.ASKED.value)
        return "" if adoption.value in rules else f"{adoption.value!r} is not {' or '.join(rules)}"
    from market.build import truth_venue_from  # noqa: PLC0415 -- all venues: 7 MB of a monitor without `auto`

    named = settings.model_copy(update={"truth_venue": adoption.value})
    try:
        truth_venue_from(named, SystemClock(), Quarantine(), topics=())
    except ConfigError as error:
        return str(error)
    return ""


def said(settings: Settings, found: Mapping[str, Adoption]) -> Iterator[str]:
    """Yield a sentence for each setting that is ``auto`` or overrules what was adopted."""
    for name, default in DEFAULTS.items():
        adoption, is_auto, given = found.get(name), name in autos(settings), str(getattr(settings, name.lower()))
        if adoption is None:
            if is_auto:
                yield f"{name}=auto: nothing is adopted yet, so it stands for {default or 'no venue'}"
            continue
        when = f"adopted {iso(adoption.adopted_ms)[:16].replace('T', ' ')}Z: {adoption.evidence}"
        if not is_auto:
            if name.lower() in settings.model_fields_set:
                yield f"{name}={given} overrules {adoption.value}, {when}"
        elif fault := fault_of(adoption, settings):
            yield f"{name}=auto stands for {default or 'no venue'}: {adoption.value} cannot be used: {fault}; {when}"
        else:
            yield f"{name}=auto stands for {adoption.value}, {when}; set {name} to overrule it"


class Adopted:
    """The settings of a process that runs on, with ``auto`` resolved. What it took from the ledger it keeps.

    Call it from one thread. A database that cannot be read is logged, and nothing changes meanwhile.

    Args:
        settings: as they were given.
        read_s: how long the database may take to answer.
    Attributes:
        settings: without ``auto``.
        waiting: names of the settings for which nothing is adopted yet.
    Raises:
        ConfigError: DATABASE_URL is not the URL of a database that can be used.
    """

    def __init__(self, settings: Settings, read_s: float = READ_S) -> None:
        self.settings = resolve(settings, {})
        self.waiting = autos(settings)
        self._given, self._read_s = settings, read_s
        self._book = EpochBook(settings.ledger_url) if self.waiting else None
        self._found: dict[str, Adoption] = {}
        self._reading: Future[Mapping[str, Adoption]] | None = None
        self._seldom = Seldom(every_s=SELDOM_S)
        self.look()
        self._begun_with = self.settings
        for name in sorted(self.waiting):
            log.info("nothing_adopted_yet", setting=name, stands_for=DEFAULTS[name])

    @property
    def is_outdated(self) -> bool:
        """True if ``settings`` are others than at the start."""
        return self.settings != self._begun_with

    def look(self) -> bool:
        """Take what was adopted since the last look; waits ``read_s`` at most.

        Returns:
            True if ``settings`` has changed.
        """
        if not self.waiting or self._book is None:
            return False
        before = self.settings
        try:
            found = self._read(self._book)
        except FAULTS as error:
            if count := self._seldom.due("adoptions_not_read"):
                reason = one_line(error) or f"the database does not answer within {self._read_s:g} s"
                log.warning(
                    "adoptions_not_read",
                    reason=reason,
                    meanwhile={name: DEFAULTS[name] for name in sorted(self.waiting)},
                    remedy="look at DATABASE_URL and the disk of DATA_DIR; it is tried again",
                    count=count,
                )
            return False
        for name in sorted(self.waiting & found.keys()):
            self._take(found[name])
        return self.settings != before

    def _take(self, adoption: Adoption) -> None:
        self._found[adoption.setting] = adoption
        self.waiting -= {adoption.setting}
        self.settings = resolve(self._given, self._found)
        told = adoption._asdict() | {"adopted": iso(adoption.adopted_ms)}
        del told["adopted_ms"]
        if fault := fault_of(adoption, self._given):
            log.error("adoption_not_usable", **told, reason=fault, meanwhile=f"as with {adoption.setting} unset")
        else:
            log.info("adopted", **told, overrule=f"set {adoption.setting}")

    def _read(self, book: EpochBook) -> Mapping[str, Adoption]:
        """Read in a thread: a database behind a silent network answers after minutes, or never."""
        if self._reading is None or self._reading.done():
            self._reading = Future()
            threading.Thread(target=_read_into, args=(book, self._reading), name="adoptions", daemon=True).start()
        return self._reading.result(self._read_s)


def _read_into(book: EpochBook, reading: "Future[Mapping[str, Adoption]]") -> None:
    try:
        reading.set_result(book.adoptions() if book.is_begun else {})
    except Exception as error:  # noqa: BLE001 -- raised where the result is awaited
        reading.set_exception(error)
