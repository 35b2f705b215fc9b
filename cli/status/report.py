"""The report of ``birnn status``: the updater's state file, the champions, and the running endpoint's own view."""

from pathlib import Path
from typing import Any

from admission.readiness import read_admission
from cli.place import endpoint_of, place_of
from cli.ready import admission_words, in_order
from core.clock import SystemClock
from core.errors import IncompatibleModel, WorkerError
from core.net.http_get import NoAnswer
from core.settings import Settings
from inference.probe import topics_of
from model.registry.versions import Registry
from updater.state import read_state

ALIVE_WITHIN_MS = 60_000


def status_report(settings: Settings) -> dict[str, Any]:
    """The report as JSON: the endpoint, and the data folder if an updater has run on it."""
    place = place_of(settings)
    folders = [(place.market.value.upper(), place.folder)]
    return {
        "place": place.sentence,
        "market": place.market.value.upper(),
        "endpoint": endpoint_report(endpoint_of(settings, place)),
        "retrain_cron": settings.retrain_cron,
        "folders": [
            {"folder": str(folder), "market": market, **_folder(folder)}
            for market, folder in folders
            if (folder / "updater.json").exists() or (folder / "champions.json").exists()
        ],
    }


def endpoint_report(url: str) -> dict[str, Any]:
    """Return the document of ``/topics``, or the reason why inference did not answer."""
    try:
        return {"url": url, "answers": True, "topics": topics_of(url)}
    except NoAnswer as error:
        return {"url": url, "answers": False, "reason": error.kind}


def _folder(folder: Path) -> dict[str, Any]:
    state = read_state(folder)
    report: dict[str, Any] = {"updater": None if state is None else state.model_dump(mode="json")}
    report |= {"champions": {}, "demotions": {}, "admission": {}}
    if state is not None:
        is_seen = SystemClock().now_ms() - state.heartbeat_ms < ALIVE_WITHIN_MS
        report["updater_alive"] = state.pid != 0 and is_seen
    try:
        registry = Registry(folder)
        report["champions"] = {key: champion.model_dump() for key, champion in registry.champions().items()}
        report["demotions"] = {
            key: [one.model_dump(mode="json") for one in several] for key, several in registry.demotions().items()
        }
    except WorkerError as error:
        report["champions_refused"] = str(error)
    try:
        _, readiness = read_admission(folder)
        report["admission"] = {key: admission_words(one) for key, one in in_order(readiness)}
    except IncompatibleModel as error:
        report["admission_refused"] = str(error)
    return report
