"""Demotes champions that were worse than the naive forecast on what they really answered, by the monitor's scores.

``model.judging.live`` has the rule, docs/decisions/0004 the reasons. The updater looks whenever it has synced its
klines: every few minutes, and before each training. It only reads the database; one that cannot be read changes
nothing.
"""

from collections.abc import Mapping

import structlog

from admission.readiness import read_admission
from core.clock import HOUR_MS, Clock
from core.errors import IncompatibleModel, WorkerError
from core.settings import Settings
from core.topic import Topic
from ledger.database import FAULTS
from ledger.schema import one_line
from ledger.scores import ScoreBook
from market.store.home_store import HomeStore
from model.panels import PanelPlan
from model.registry.champions import Champion
from model.registry.versions import Registry
from model.stretch import Stretch
from model.windows import build
from updater.candidates import Candidates, demotion_rows_ms
from updater.live_losses import live_losses, why_worse

log = structlog.get_logger()


class LiveJudge:
    """Looks at what champions answered. The caller must call the methods from one thread at a time."""

    def __init__(
        self,
        *,
        settings: Settings,
        plans: Mapping[str, PanelPlan],
        store: HomeStore,
        registry: Registry,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._plans = plans
        self._store = store
        self._registry = registry
        self._clock = clock
        self._fault = ""  # why the last look failed; empty if it did not

    def look(self) -> None:
        """Demote champions that are significantly worse than the naive forecast; a failure is in the log, once."""
        fault = ""
        try:
            book = ScoreBook(self._settings.ledger_url)
            try:
                if book.is_begun:
                    self._look(book)
                else:
                    fault = "nothing was answered yet"
            finally:
                book.close()
        except FAULTS as error:
            fault = one_line(error)
        except WorkerError as error:
            fault = str(error)
        except Exception as error:  # a bug must not stop klines and trainings
            log.exception("live_look_failed")
            fault = repr(error)
        if fault and fault != self._fault:
            log.warning("live_scores_not_judged", reason=fault, meanwhile="champions stay; trainings judge them")
        self._fault = fault

    def _look(self, book: ScoreBook) -> None:
        champions = self._registry.champions()
        stretches = self._stretches()
        for plan in self._plans.values():
            worse = {}
            for topic in plan.topics:
                champion = champions.get(topic.key)
                if champion is None or not champion.serves(topic):
                    continue
                # A row earlier than that belongs to an earlier service, or to another question under the same number.
                columns = book.columns(topic, champion.since_ms + topic.horizon_ms)
                objective, stretch = self._settings.objective, stretches.get(topic.key)
                if why := why_worse(topic, live_losses(topic, champion, columns, objective, stretch)):
                    worse[topic] = champion, why
            if worse:
                self._demote(plan, worse)

    def _demote(self, plan: PanelPlan, worse: Mapping[Topic, tuple[Champion, str]]) -> None:
        candidates = self._candidates(plan)
        for topic, (champion, why) in worse.items():
            candidates.demote(topic, champion, why, self._clock.now_ms())

    def _candidates(self, plan: PanelPlan) -> Candidates:
        """The networks that may take over, at the rows that would demote them."""
        now_ms = self._clock.now_ms()
        start_ms = demotion_rows_ms(plan, now_ms)
        first_ms = start_ms - 2 * plan.panel.rows_needed * plan.panel.interval_ms
        klines = {
            symbol: self._store.read(symbol, plan.panel.interval_ms, first_ms, now_ms).closed(now_ms)
            for symbol in plan.symbols
        }
        return Candidates(
            registry=self._registry,
            windows=build(plan, klines),
            start_ms=start_ms,
            end_ms=now_ms,
            oldest_ms=now_ms - self._settings.max_model_age_h * HOUR_MS,
        )

    def _stretches(self) -> Mapping[str, Stretch]:
        try:
            return {key: one.stretch for key, one in read_admission(self._settings.data_dir)[1].items()}
        except (OSError, IncompatibleModel):  # the admission records say so, and make the file anew
            return {}
