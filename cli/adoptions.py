"""What ``TRUTH_VENUE=auto`` and ``BASE_RULE=auto`` stand for, as the verbs read and tell it."""

from collections.abc import Mapping
from typing import Any

from cli.place import ledger_url, place_of
from cli.scores.record import NothingAnswered, reading
from core.errors import WorkerError
from core.settings import Settings
from ledger.epochs import Adoption, EpochBook
from truth.adopted import autos, resolve, said


def adoption_report(settings: Settings) -> dict[str, Any]:
    """Return ``adoptions``, a row for each, ``adoption_words``, a sentence for each setting that is ``auto`` or
    overrules one, and ``adoptions_refused`` if a setting is ``auto`` and the ledger cannot be read.
    """
    report: dict[str, Any] = {}
    found: Mapping[str, Adoption] = {}
    try:
        found = _read(settings)
    except WorkerError as error:
        if autos(settings):
            report["adoptions_refused"] = str(error)
    report["adoptions"] = [found[name]._asdict() for name in sorted(found)]
    report["adoption_words"] = list(said(settings, found))
    return report


def resolved(settings: Settings) -> Settings:
    """Return the settings without ``auto``: as adopted, or the defaults where the ledger cannot be read."""
    try:
        return resolve(settings, _read(settings))
    except WorkerError:
        return resolve(settings, {})


def _read(settings: Settings) -> Mapping[str, Adoption]:
    """Raises WorkerError if the ledger is there and cannot be read."""
    url = ledger_url(settings, place_of(settings))
    try:
        with reading(url):
            book = EpochBook(url)
            try:
                return book.adoptions()
            finally:
                book.close()
    except NothingAnswered:
        return {}
