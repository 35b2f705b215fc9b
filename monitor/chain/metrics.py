"""The metrics of the topics' checks against the chain."""

from collections.abc import Callable, Collection, Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from core.topic import Topic
from monitor.chain.alarms import LEAST_TRUTHS, broken
from monitor.watched import Checked, Watched

TOPIC_LABELS = ("network", "topic")  # as inference has them: chain id, empty when the config does not say; and topic id


class OfChecks(Collector):
    """What the newest look knows of arrival, contract, unit, truth and upgrades."""

    def __init__(
        self, topics: Collection[Topic], now_ms: Callable[[], int], watched: Callable[[], Watched | None]
    ) -> None:
        self._topics, self._now_ms, self._watched = topics, now_ms, watched

    def collect(self) -> Iterable[Metric]:
        unarrived = GaugeMetricFamily(
            "birnn_chain_unarrived_epochs",
            "Newest closed epochs in a row in which no answer of ours arrived on chain",
            labels=TOPIC_LABELS,
        )
        faults = GaugeMetricFamily(
            "birnn_chain_contract_faults",
            "Differences between the topic on chain and what we train for that are no guess",
            labels=TOPIC_LABELS,
        )
        unit = GaugeMetricFamily(
            "birnn_chain_unit_fault", "1 while our answers are off from the other inferers'", labels=TOPIC_LABELS
        )
        off = GaugeMetricFamily(
            "birnn_chain_unit_deviations",
            "Robust deviations of our answers from the other inferers', median of the last epochs",
            labels=TOPIC_LABELS,
        )
        gap = GaugeMetricFamily(
            "birnn_chain_truth_gap_bp",
            "Basis points from the truth that reputers score against to ours, median of the last epochs",
            labels=TOPIC_LABELS,
        )
        upgrade = GaugeMetricFamily(
            "birnn_chain_upgrade_seconds", "Until the scheduled upgrade of the chain", labels=["network"]
        )
        spoken = GaugeMetricFamily(
            "birnn_chain_api_spoken", "1 if the official node speaks the network's API, else 0", labels=["network"]
        )
        watched = self._watched()
        networks: dict[str, Checked] = {}
        for topic in self._topics if watched else ():
            if watched is None or (seen := watched.chain.get(topic.key)) is None:
                continue
            at = [topic.network or "", str(topic.topic_id)]
            networks[at[0]] = seen
            unarrived.add_metric(at, seen.unarrived)
            faults.add_metric(at, len(broken(topic.key, seen, watched.market)))
            if seen.unit:
                unit.add_metric(at, bool(seen.unit.fault))
            if seen.unit and seen.unit.deviations is not None:
                off.add_metric(at, seen.unit.deviations)
            if seen.truth and seen.truth.epochs >= LEAST_TRUTHS:
                gap.add_metric(at, seen.truth.bp)
        for network, seen in networks.items():
            if seen.upgrade:
                upgrade.add_metric([network], (seen.upgrade_ms - self._now_ms()) / 1000)
            if seen.api and seen.spoken:
                spoken.add_metric([network], seen.api == seen.spoken)
        return unarrived, faults, unit, off, gap, upgrade, spoken
