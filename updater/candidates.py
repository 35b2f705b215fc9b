"""The networks that may serve a panel's topics, run at rows that they have not seen; and how a champion is demoted.

Nothing here loads torch: the updater's own process looks at what was answered (``updater.live``), and the training's
process judges (``updater.judging``).
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import structlog

from core.errors import IncompatibleModel, UnusableForecast
from core.topic import Topic
from model.features import Floats32
from model.forecaster import BiRNNForecaster
from model.judging.comparison import compare
from model.judging.evaluation import TopicForecasts, forecasts, outputs
from model.judging.gate import SCORED_TICKS, scored_from, why_demoted
from model.panels import PanelPlan
from model.registry.artefact import Artefact
from model.registry.champions import Champion, check
from model.registry.versions import Registry
from model.windows import Rows, Windows, spread

log = structlog.get_logger()


def demotion_rows_ms(plan: PanelPlan, end_ms: int) -> int:
    """The oldest row that can count for a demotion; no label reaches beyond ``end_ms``."""
    return end_ms - SCORED_TICKS * plan.panel.interval_ms - plan.gap_ms


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """A network, and the outputs at the newest rows that the network has not seen."""

    artefact: Artefact
    forecaster: BiRNNForecaster
    windows: Windows
    rows: Rows  # (N,) rising
    output: Floats32  # (N, O)

    def forecasts(self, rows: Rows) -> dict[str, TopicForecasts]:
        """Return the network's forecasts for a part of ``self.rows``, by ``Topic.key``."""
        output = self.output[np.searchsorted(self.rows, rows)]
        known = forecasts(self.windows, rows, output, self.forecaster.heads, self.forecaster.calibration)
        return {of_topic.topic.key: of_topic for of_topic in known}

    @cached_property
    def _unseen(self) -> dict[str, TopicForecasts]:
        return self.forecasts(self.rows)

    def why_demoted(self, topic: Topic) -> str:
        """Say why the network may not serve a topic any longer; empty if it may, or if no row can decide."""
        if (of_topic := self._unseen.get(topic.key)) is None:
            return ""
        interval_ms = self.windows.plan.panel.interval_ms
        ticks, steps = of_topic.open_time_ms // interval_ms, topic.horizon_ms // interval_ms
        # Counted from the time of publication: the champions file may hold a later date, of a return after a demotion.
        counts = ticks >= scored_from(ticks, self.artefact.manifest.created_ms // interval_ms, steps)
        return why_demoted(compare(ticks[counts], of_topic.losses[counts], of_topic.naive_losses[counts], steps))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The networks that may answer a panel's topics. Each runs once, however many topics it serves."""

    registry: Registry
    windows: Windows
    start_ms: int  # of the rows, the end excluded
    end_ms: int
    oldest_ms: int  # networks made before this may not answer
    scored: dict[str, Scored | None] = field(default_factory=dict)  # by version

    def score(self, artefact: Artefact) -> Scored:
        """Run a network at the rows, without those that it has seen.

        A network's judge part begins one longest horizon after the rows used for training, stopping and calibration,
        so no label of those rows reaches into the judge part.

        Raises:
            IncompatibleModel, UnusableForecast: the network cannot answer, or moves an answer too far.
        """
        start_ms = max(artefact.manifest.split.judge_start_ms, self.start_ms)
        windows = self.windows.reading(artefact.manifest.lookback)
        rows = windows.rows(start_ms, self.end_ms)
        forecaster = BiRNNForecaster(artefact)
        output = outputs(forecaster.network, windows, rows)
        if len(rows):
            forecaster.check_jumps(windows.gather(spread(rows)))
        return Scored(artefact=artefact, forecaster=forecaster, windows=self.windows, rows=rows, output=output)

    def published(self, version: str, manifest_sha256: str | None = None) -> Scored | None:
        """Return a published version with outputs; None if the version is too old or cannot be used."""
        try:
            artefact = self.registry.open(version, manifest_sha256)
            if artefact.manifest.created_ms < self.oldest_ms:
                return None
            if version not in self.scored:
                self.scored[version] = None  # a network that fails is not run again
                self.scored[version] = self.score(artefact)
        except (IncompatibleModel, UnusableForecast) as error:
            log.warning("network_unusable", version=version, reason=str(error))
            return None
        return self.scored[version]

    def champions(self) -> dict[str, tuple[Champion, Scored]]:
        """Return the champions that can answer now, by ``Topic.key``."""
        try:
            entries = self.registry.champions()
        except IncompatibleModel as error:
            log.warning("champions_unreadable", reason=str(error))
            return {}
        found = {}
        for topic in self.windows.plan.topics:
            if (entry := entries.get(topic.key)) is None:
                continue
            try:
                check(topic, entry)
            except IncompatibleModel as error:
                log.warning("champion_unusable", topic=topic.key, version=entry.version, reason=str(error))
                continue
            if scored := self.published(entry.version, entry.manifest_sha256):
                found[topic.key] = entry, scored
        return found

    def demote(self, topic: Topic, champion: Champion, why: str, now_ms: int) -> None:
        """Take a topic from its champion; the version that served before serves again if it may, else nobody."""
        successor = self._successor(topic, champion)
        self.registry.demote(topic, why, now_ms, back_to=successor)
        log.warning("champion_demoted", topic=topic.key, version=champion.version, reason=why, back_to=successor)

    def _successor(self, topic: Topic, gone: Champion) -> str | None:
        """Return the version that served before a champion, if that may serve again; None means the naive forecast."""
        demotions = self.registry.demotions().get(topic.key, ())
        if gone.previous is None or gone.previous in {demotion.champion.version for demotion in demotions}:
            return None
        scored = self.published(gone.previous)
        return gone.previous if scored and not scored.why_demoted(topic) else None
