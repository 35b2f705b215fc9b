"""Which panels must be trained now rather than on schedule: a topic has no champion that can answer."""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from core.clock import HOUR_MS, Clock
from core.errors import IncompatibleModel
from core.topic import Topic
from model.forecaster import BiRNNForecaster
from model.heads import head_of
from model.panels import PanelPlan
from model.registry.champions import Champion, check
from model.registry.versions import Registry
from updater.state import StateFile, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCheck:
    """Reads the registry and the state; changes nothing."""

    registry: Registry
    state: StateFile
    clock: Clock
    max_model_age_h: int

    def reason(self, plan: PanelPlan) -> str:
        """Return the first reason to train a panel now; empty if there is none."""
        try:
            champions = self.registry.champions()
        except IncompatibleModel as error:
            return str(error)
        versions = [version for version in self.registry.versions() if version.startswith(f"{plan.panel.name}-")]
        settled = self._settled(plan.panel.name, versions[-1]) if versions else _nothing
        fit: dict[str, str] = {}
        for topic in plan.topics:
            why = self._why_unusable(topic, champions.get(topic.key), fit)
            if why and not settled(topic):
                return why
        return ""

    def _settled(self, panel: str, newest: str) -> Callable[[Topic], bool]:
        """Return a test for topics that need no training at once although the newest version is not their champion.

        The version lost there, or was trained without the symbol because klines were missing; training again at once
        would change nothing. The schedule and the retries train these topics.
        """
        if self._why_unfit(newest):
            return _nothing
        try:
            verdicts = [Verdict.model_validate(score) for score in self.registry.open(newest).manifest.scores]
        except ValidationError:  # written by another release; the next round writes readable ones
            return _nothing
        lost = {(v.topic, v.symbol, v.head) for v in verdicts if not v.promoted}
        last = self.state.panel(panel).outcome
        left_out = last.missing if last and last.version == newest else {}
        return lambda topic: (topic.key, topic.symbol, head_of(topic).key) in lost or topic.symbol in left_out

    def _why_unusable(self, topic: Topic, champion: Champion | None, known: dict[str, str]) -> str:
        """Say why a champion cannot answer a topic; empty if it can. ``known`` keeps the reasons by version."""
        if champion is None:
            return f"topic {topic.key} has no champion"
        try:
            check(topic, champion)
        except IncompatibleModel as error:
            return str(error)
        if champion.version not in known:
            known[champion.version] = self._why_unfit(champion.version)
        return known[champion.version]

    def _why_unfit(self, version: str) -> str:
        try:
            made_ms = BiRNNForecaster.load(self.registry.path(version)).manifest.created_ms
        except IncompatibleModel as error:
            return str(error)
        too_old = self.clock.now_ms() - made_ms > self.max_model_age_h * HOUR_MS
        return f"{version} is older than MAX_MODEL_AGE_H={self.max_model_age_h}" if too_old else ""


def _nothing(_: Topic) -> bool:
    return False
