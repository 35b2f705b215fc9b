"""Looks at the other processes: asks inference and the official nodes, and reads what they left in the data folder."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from admission.readiness import FILE as ADMISSION_FILE
from admission.readiness import Readiness, read_admission
from core.clock import MINUTE_MS, Clock
from core.errors import IncompatibleModel
from core.files import existing
from core.net.http_get import NoAnswer, http_get
from core.settings import Settings
from core.topic import Topic
from inference.probe import topics_of
from klines.spans import INTERVALS_MS
from model.registry.champions import Champion, Demotion
from model.registry.versions import Registry
from monitor.watched import Checked, InferenceSeen, NodeCounts, NodeSeen, State, Watched
from updater.state import FILE as UPDATER_FILE
from updater.state import UpdaterState

TIMEOUT_S = 3.0
DEAD_AFTER_MS = 90_000  # an updater that runs writes its heartbeat every 20 s
LATE_MS = 15 * MINUTE_MS  # of a candle after its close; the updater syncs every five minutes
REQUESTS, BUILDS, SUBMISSIONS = COUNTERS = (
    "allora_worker_inference_request_count",
    "allora_worker_data_build_count",
    "allora_worker_chain_submission_count",
)
Samples = Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]


class Watch:
    """Makes one look after the other. ``look`` is for one thread.

    Args:
        topics: of config.json.
        faults: tells what else fails, by the keys of ``Watched.faults``.
        checked: tells how the topics stand against the chain, by ``Topic.key``.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[Topic],
        clock: Clock,
        faults: Callable[[], Mapping[str, str]] = dict,
        checked: Callable[[], Mapping[str, Checked]] = dict,
    ) -> None:
        self._clock = clock
        self._topics = tuple(topics)
        self._folder = settings.data_dir
        self._market = settings.market.value.upper()
        self._other_faults, self._checked = faults, checked
        self._inference = InferenceSeen(url=settings.inference_address, since_ms=clock.now_ms())
        self._nodes = tuple(NodeSeen(url=url) for url in settings.node_metrics)
        self._pool = ThreadPoolExecutor(1 + len(self._nodes), thread_name_prefix="look")
        self._registry = Registry(self._folder)
        self._stamps: dict[str, object] = {}
        self._updater: UpdaterState | None = None
        self._champions: Mapping[str, Champion] = {}
        self._demotions: Mapping[str, Sequence[Demotion]] = {}
        self._admission: Mapping[str, Readiness] = {}
        self._faults: dict[str, str] = {}
        self._since_ms: dict[tuple[State, str], int] = {}

    def look(self) -> Watched:
        """Look at everything, all servers at once; takes no longer than the slowest answer, each part of it 3 s."""
        asked = self._pool.submit(self._ask_inference, self._inference)
        nodes = [self._pool.submit(self._ask_node, node) for node in self._nodes]
        free_bytes = self._read_folder()
        self._inference = asked.result()
        self._nodes = tuple(node.result() for node in nodes)
        now_ms = self._clock.now_ms()
        told = {"klines": _unsynced(self._updater, now_ms), **self._faults, **self._other_faults()}
        faults = {name: why for name, why in told.items() if why}
        self._keep(State.FAULT, list(faults), now_ms)
        self._note(now_ms)
        return Watched(
            now_ms=now_ms,
            market=self._market,
            inference=self._inference,
            topics=self._topics,
            since_ms=dict(self._since_ms),
            nodes=self._nodes,
            updater=self._updater,
            champions=self._champions,
            demotions=self._demotions,
            admission=self._admission,
            free_bytes=free_bytes,
            faults=faults,
            chain=dict(self._checked()),
        )

    def close(self) -> None:
        """Give up what is being asked."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask_inference(self, before: InferenceSeen) -> InferenceSeen:
        try:
            topics = _checked(topics_of(before.url, TIMEOUT_S))
            samples = _samples(f"{before.url}/metrics")
        except (NoAnswer, ValueError) as error:
            now_ms = self._clock.now_ms()
            since_ms = now_ms if before.answers else min(before.since_ms, now_ms)  # the clock may be set back
            return replace(before, answers=False, since_ms=since_ms, fault=str(error))
        now_ms = self._clock.now_ms()
        since_ms = before.since_ms if before.answers else now_ms
        return InferenceSeen(
            url=before.url, answers=True, since_ms=since_ms, fault="", seen_ms=now_ms, topics=topics, samples=samples
        )

    def _ask_node(self, before: NodeSeen) -> NodeSeen:
        try:
            workers = _by_worker(_samples(before.url))
        except (NoAnswer, ValueError, OverflowError) as error:  # a count may be infinite
            return replace(before, answers=False, fault=str(error))
        now_ms = self._clock.now_ms()
        counts = {key: _counted(before.counts.get(key), numbers, now_ms) for key, numbers in workers.items()}
        return NodeSeen(url=before.url, answers=True, fault="", seen_ms=now_ms, counts=counts)

    def _read_folder(self) -> int | None:
        """Read the files that changed; the bytes that are free on their disk."""
        with self._reading("updater", _stamp(self._folder / UPDATER_FILE)) as is_new:
            if is_new:
                self._updater = _updater_state(self._folder / UPDATER_FILE)
        with self._reading("registry", self._registry.stamp()) as is_new:
            if is_new:
                self._champions, self._demotions = self._registry.champions(), self._registry.demotions()
        with self._reading("admission", _stamp(self._folder / ADMISSION_FILE)) as is_new:
            if is_new:
                self._admission = read_admission(self._folder)[1]
        free_bytes = None
        with self._reading("disk", object()):
            folder = existing(self._folder)
            free_bytes = shutil.disk_usage(folder).free
            if os.statvfs(folder).f_flag & os.ST_RDONLY:
                raise OSError(0, "it is mounted read-only")
        return free_bytes

    @contextmanager
    def _reading(self, name: str, stamp: object) -> Iterator[bool]:
        """Note a failure of the block under ``name``; True if the file is another one than at the last time."""
        try:
            yield name not in self._stamps or stamp != self._stamps[name]
        except ValidationError as error:
            self._faults[name] = f"{UPDATER_FILE} cannot be read: {str(error).splitlines()[0]}"
        except OSError as error:
            self._faults[name] = error.strerror or str(error)
        except IncompatibleModel as error:
            self._faults[name] = str(error)
        else:
            self._stamps[name] = stamp
            self._faults.pop(name, None)

    def _note(self, now_ms: int) -> None:
        """Note since when each state lasts. What inference does not tell now stays as it was."""
        alive = self._updater and self._updater.pid and abs(now_ms - self._updater.heartbeat_ms) < DEAD_AFTER_MS
        last_ms = min(self._updater.heartbeat_ms, now_ms) if self._updater else now_ms
        self._keep(State.NO_UPDATER, [] if alive else [""], last_ms)
        if "registry" not in self._faults:
            without = [topic.key for topic in self._topics if topic.key not in self._champions]
            self._keep(State.NO_CHAMPION, without, now_ms)
        if not self._inference.answers:
            return
        topics = self._inference.topics
        self._keep(State.NOT_READY, [key_of(topic) for topic in topics if not topic["ready"]], now_ms)
        self._keep(State.NO_PRICE, [str(t.get("symbol")) for t in topics if t.get("anchor_age_ms") is None], now_ms)
        self._keep(State.SIMULATED, [""] if any(t.get("market") == "SIMULATED" for t in topics) else [], now_ms)
        unwritten = sum(self._inference.samples.get("birnn_ledger_unwritten", {}).values())
        self._keep(State.UNWRITTEN, ["answers"] if unwritten else [], now_ms)

    def _keep(self, state: State, subjects: Sequence[str], now_ms: int) -> None:
        others = {key: since_ms for key, since_ms in self._since_ms.items() if key[0] is not state}
        lasting = {(state, subject): min(now_ms, self._since_ms.get((state, subject), now_ms)) for subject in subjects}
        self._since_ms = others | lasting


def key_of(topic: Mapping[str, Any]) -> str:
    """``Topic.key`` of an entry of /topics."""
    return f"{topic['network']}/{topic['topic_id']}" if topic.get("network") else str(topic["topic_id"])


def _checked(topics: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(topics, list) or not all(
        isinstance(topic, dict) and isinstance(topic.get("ready"), bool) and "topic_id" in topic for topic in topics
    ):
        raise ValueError("another program answers: /topics has no list of topics")
    return topics


def _samples(url: str) -> Samples:
    """The numbers of a page of metrics, by name and labels.

    Raises:
        NoAnswer: as ``http_get``. ValueError: another status, or a page that has another form.
    """
    answer = http_get(url, TIMEOUT_S)
    if answer.status != 200:
        raise ValueError(f"{url} answers with status {answer.status}")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(answer.body.decode("utf-8", "replace")):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = float(sample.value)
    return found


def _by_worker(samples: Samples) -> dict[tuple[str, int], dict[str, int]]:
    """The three counters by address and topic id; 0 where the node has not counted yet."""
    found: dict[tuple[str, int], dict[str, int]] = {}
    for name in COUNTERS:
        # The reader of pages adds _total to the name of a counter that has none.
        for labels, value in (samples.get(name) or samples.get(f"{name}_total", {})).items():
            given = dict(labels)
            key = given.get("address", ""), int(given.get("topic", "0"))
            found.setdefault(key, dict.fromkeys(COUNTERS, 0))[name] = int(value)
    return found


def _counted(before: NodeCounts | None, numbers: Mapping[str, int], now_ms: int) -> NodeCounts:
    """The counters of one topic, and how many questions in a row led to no submission.

    A counter that is lower than before began anew with the node.
    """
    requests, submissions = numbers[REQUESTS], numbers[SUBMISSIONS]
    counts = NodeCounts(requests=requests, builds=numbers[BUILDS], submissions=submissions)
    if before is None:
        return counts
    begun_anew = requests < before.requests or submissions < before.submissions
    if submissions > (0 if begun_anew else before.submissions):
        return replace(counts, submitted_ms=now_ms)
    new = requests if begun_anew else requests - before.requests
    return replace(counts, unsubmitted=before.unsubmitted + new, submitted_ms=before.submitted_ms)


def _stamp(path: Path) -> object:
    """A value that changes with every swap of a file; None without the file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _unsynced(updater: UpdaterState | None, now_ms: int) -> str:
    """Why the series of klines that is furthest behind is not synced; empty if none failed, or just now."""
    late = [
        (series.newest_ms or 0, f"{name}: {series.reason}")
        for name, series in (updater.series if updater else {}).items()
        if series.reason and now_ms - _next_close_ms(name, series.newest_ms or 0) > LATE_MS
    ]
    return min(late)[1] if late else ""


def _next_close_ms(series: str, newest_ms: int) -> int:
    """When the candle after the newest one of a series such as ETHUSDT-1m closes."""
    return newest_ms + 2 * INTERVALS_MS.get(series.rpartition("-")[2], 0)


def _updater_state(path: Path) -> UpdaterState | None:
    try:
        return UpdaterState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
