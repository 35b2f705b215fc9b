"""The networks that answer topics, as the registry names them now; a bad network never replaces a good one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog

from core.clock import SECOND_MS, Clock
from core.errors import IncompatibleModel
from core.topic import Topic
from model.forecaster import BiRNNForecaster
from model.registry.champions import Champion, check
from model.registry.versions import Registry

RETRY_MS = 30 * SECOND_MS  # after a version could not be read: the disk may have been at fault

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Per topic the network in use, and the fault of the network that should be in use."""

    forecasters: Mapping[str, BiRNNForecaster]  # by Topic.key; a topic without a usable champion is absent
    faults: Mapping[str, str]  # by Topic.key; a topic without a fault is absent

    @property
    def versions(self) -> dict[str, BiRNNForecaster]:
        """The networks in use, by version."""
        return {forecaster.version: forecaster for forecaster in self.forecasters.values()}


NOTHING = Chosen(forecasters={}, faults={})


class Champions:
    """Follows ``champions.json``. Not for two threads at once."""

    def __init__(self, registry: Registry, topics: Iterable[Topic], clock: Clock) -> None:
        self._registry = registry
        self._topics = tuple(topics)
        self._clock = clock
        self._seen: object = self  # equals no stamp, so the first poll reads
        self._read_ms = 0
        self._chosen = NOTHING

    def poll(self) -> Chosen | None:
        """Return the present choice; None if nothing has changed since the last poll."""
        stamp = self._registry.stamp()
        now_ms = self._clock.now_ms()
        retry = bool(self._chosen.faults) and not 0 <= now_ms - self._read_ms < RETRY_MS
        if stamp == self._seen and not retry:
            return None
        before, self._chosen = self._chosen, self._choose()
        self._seen, self._read_ms = stamp, now_ms
        for key, fault in self._chosen.faults.items():
            if before.faults.get(key) != fault:
                in_use = self._chosen.forecasters.get(key)
                log.error("champion_refused", topic=key, reason=fault, in_use=in_use.version if in_use else None)
        return self._chosen

    def _choose(self) -> Chosen:
        try:
            champions = self._registry.champions()
        except Exception as error:  # noqa: BLE001 -- such as MemoryError: shown, and tried again
            fault = str(_as_fault("champions.json", error))
            return Chosen(
                forecasters=self._chosen.forecasters, faults=dict.fromkeys((t.key for t in self._topics), fault)
            )
        forecasters: dict[str, BiRNNForecaster] = {}
        faults: dict[str, str] = {}
        loaded: dict[str, BiRNNForecaster | IncompatibleModel] = dict(self._chosen.versions)
        for topic in self._topics:
            champion = champions.get(topic.key)
            if champion is None:
                continue
            try:
                check(topic, champion)
                forecasters[topic.key] = self._load(champion, loaded)
            except IncompatibleModel as error:
                faults[topic.key] = str(error)
                if topic.key in self._chosen.forecasters:
                    forecasters[topic.key] = self._chosen.forecasters[topic.key]
        return Chosen(forecasters=forecasters, faults=faults)

    def _load(self, champion: Champion, loaded: dict[str, BiRNNForecaster | IncompatibleModel]) -> BiRNNForecaster:
        """Return the network of a version, read and warmed up once for all its topics."""
        version = champion.version
        if version not in loaded:
            try:
                loaded[version] = BiRNNForecaster.load(self._registry.path(version), champion.manifest_sha256)
            except Exception as error:  # noqa: BLE001 -- as above
                loaded[version] = _as_fault(f"version {version}", error)
        found = loaded[version]
        if isinstance(found, IncompatibleModel):
            raise found
        return found


def _as_fault(what: str, error: Exception) -> IncompatibleModel:
    """Return any error as a fault that is shown and tried again; log an unexpected error."""
    if isinstance(error, IncompatibleModel):
        return error
    log.error("champion_not_loaded", what=what, exc_info=error)
    reason = str(error).partition("\n")[0]
    return IncompatibleModel(f"{what}: {type(error).__name__}: {reason}; see the log")
