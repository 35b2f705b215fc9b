"""The report of ``birnn status``: state of the updater, champions, demotions, admission, topics of inference."""

from pathlib import Path
from typing import Any

from admission.readiness import read_admission
from cli.adoptions import adoption_report
from cli.place import endpoint_of, page_of, place_of
from cli.ready import admission_words, in_order
from cli.status.arrival import arrival_report
from cli.verbs import topics_as_far_as_known
from core.clock import SystemClock
from core.errors import IncompatibleModel, WorkerError
from core.net.http_get import NoAnswer
from core.settings import Settings
from inference.probe import topics_of
from model.registry.versions import Registry
from updater.state import read_state

ALIVE_WITHIN_MS = 60_000  # an updater with an older heartbeat counts as ended


def status_report(settings: Settings) -> dict[str, Any]:
    """Return the report as JSON: the topics of inference, and the data folder if an updater has written into it."""
    place = place_of(settings)
    market, folder = place.market.value.upper(), place.folder
    has_state = any((folder / name).exists() for name in ("updater.json", "champions.json"))
    endpoint = endpoint_report(endpoint_of(settings, place))
    configured = [{"network": one.network, "topic_id": one.topic_id} for one in topics_as_far_as_known(settings)]
    return {
        "place": place.sentence,
        "market": market,
        "endpoint": endpoint,
        "arrivals": arrival_report(settings, endpoint.get("topics") or configured),
        "page": page_of(settings, place),
        "retrain_cron": settings.retrain_cron,
        **adoption_report(settings),
        "folders": [{"folder": str(folder), "market": market, **_folder_report(folder)}] if has_state else [],
    }


def endpoint_report(url: str) -> dict[str, Any]:
    """Return the topics that inference at ``url`` lists, or the reason why inference did not answer."""
    try:
        return {"url": url, "answers": True, "topics": topics_of(url)}
    except NoAnswer as error:
        return {"url": url, "answers": False, "reason": error.kind}


def _folder_report(folder: Path) -> dict[str, Any]:
    state = read_state(folder)
    report: dict[str, Any] = {"updater": None if state is None else state.model_dump(mode="json")}
    report |= {"champions": {}, "demotions": {}, "admission": {}}
    if state is not None:
        is_recent = SystemClock().now_ms() - state.heartbeat_ms < ALIVE_WITHIN_MS
        report["updater_alive"] = state.pid != 0 and is_recent  # an updater that ends writes 0
    try:
        registry = Registry(folder)
        report["champions"] = {key: champion.model_dump() for key, champion in registry.champions().items()}
        report["demotions"] = {
            topic: [demotion.model_dump(mode="json") for demotion in demotions]
            for topic, demotions in registry.demotions().items()
        }
    except WorkerError as error:
        report["champions_refused"] = str(error)
    try:
        _, by_topic = read_admission(folder)
        report["admission"] = {topic: admission_words(readiness) for topic, readiness in in_order(by_topic)}
    except IncompatibleModel as error:
        report["admission_refused"] = str(error)
    return report
