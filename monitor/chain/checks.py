"""Checks the topics against what the monitor has collected of the chain: arrival, contract, unit, truth, versions."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from core.settings import Settings
from core.topic import Topic
from ledger.answers import Answer
from ledger.epochs import NETWORK_ITSELF, Arrival, Epoch, Sighting, Stage
from ledger.scores import ScoreBook
from monitor.chain.looks import NO_TOPIC, NetworkLook, TopicLook, network_look, topic_look
from monitor.chain.outcome import outcome
from monitor.chain.rows import are_equal, number
from monitor.watched import Checked, TruthGap
from node.dry_run_heights import BLOCK_MS
from node.versions import NodeVersions, spoken_api
from truth.contract import MOST_OFF, contract_faults, lag_ms, no_such_topic
from truth.ranking import difference_bp
from truth.recovered import Recovered, recover_epoch
from truth.unit import MOST, Unit, unit_of

EPOCHS = 20  # newest closed epochs that are compared
NEWEST = 60  # epochs that are looked at: those of a long lag are settled late
# A truth is solved for in a few milliseconds; where reputers disagree, or the loss is of returns, it takes seconds.
SOLVE_S = 0.3  # of one check; the truth that is begun is ended
SHARE = 0.05  # of a core, on average

Rows = Sequence[tuple[Epoch, Answer | None]]  # newest first


class Checks:
    """Checks one topic at a time; ``seen`` may be read from any thread.

    Args:
        nodes: the official nodes by network, as ``node.config_file.Config`` has them.
        solve_s: most that one check spends on solving for truths; those of earlier checks are kept.
        share: most of a core that is spent on it, on average; 1 never rests.
    """

    def __init__(
        self,
        settings: Settings,
        scores: ScoreBook,
        nodes: Mapping[str | None, NodeVersions],
        *,
        solve_s: float = SOLVE_S,
        share: float = SHARE,
    ) -> None:
        self.seen: dict[str, Checked] = {}  # by Topic.key
        self._most_off = settings.alarms.get("contract", MOST_OFF)
        self._most_deviations = settings.alarms.get("unit", MOST)
        self._scores, self._nodes = scores, nodes
        self._solve_s, self._rest = solve_s, 1 / share - 1
        self._rests_until_s = float("-inf")
        self._truths: dict[tuple[str, int], Recovered | str] = {}  # by Topic.key and nonce

    def check(self, topic: Topic, rows: Rows, sightings: Mapping[int, Sighting]) -> None:
        """Check a topic.

        Args:
            rows: its epochs, of which the ``NEWEST`` are looked at.
            sightings: of its network, by topic id.
        Raises:
            ledger.database.FAULTS: the scores cannot be read.
        """
        if not rows and not sightings:
            return
        rows = rows[:NEWEST]
        sighting = sightings.get(topic.topic_id)
        network, look = network_look(sightings.get(NETWORK_ITSELF)), topic_look(sighting)
        block_ms = network.block_ms if network else None
        is_compared = look is not None and lag_ms(look.seen, block_ms) is not None  # else it is measured in a minute
        faults = contract_faults(topic, look.seen, block_ms, self._most_off) if look and is_compared else None
        if sighting and sighting.body == NO_TOPIC:
            faults = [no_such_topic(topic)]
        checked = replace(
            network_checked(network, self._nodes.get(topic.network)),
            contract=faults,
            unit=unit_checked(topic, rows, self._most_deviations),
            truth=self._truth_gap(topic, rows),
        )
        checked = with_arrival(checked, rows)
        if checked.unarrived and look and (barred := _barred(look)):
            checked = replace(checked, unarrived_why=f"{checked.unarrived_why}; {barred}")
        self.seen[topic.key] = checked

    def _truth_gap(self, topic: Topic, rows: Rows) -> TruthGap | None:
        """Compare the truths that can be recovered with those that our answers were scored against."""
        settled = [epoch for epoch, _ in rows if epoch.stage == Stage.SETTLED][:EPOCHS]
        if not settled:
            return None
        newest = max(epoch.nonce for epoch in settled)
        scored = self._scores.answers_of(topic, NEWEST, newest + 1)
        ours = {answer.height: score.truth for answer, score in scored if score and _is_of(topic, answer)}
        begun_s = ended_s = time.monotonic()
        gaps, readings = [], []
        for epoch in settled:
            truth, key = ours.get(epoch.nonce), (topic.key, epoch.nonce)
            if truth is None:
                continue
            if key not in self._truths:
                if begun_s < self._rests_until_s or ended_s - begun_s >= self._solve_s:
                    continue
                self._truths[key] = recover_epoch(epoch.inside, topic.loss)
                ended_s = time.monotonic()
            if isinstance(theirs := self._truths[key], Recovered):
                gaps.append(difference_bp(topic, truth, float(theirs.truth)))
                readings.append(theirs.is_log)
        self._rests_until_s = max(self._rests_until_s, ended_s + self._rest * (ended_s - begun_s))
        oldest = min(epoch.nonce for epoch in settled)
        self._truths = {at: one for at, one in self._truths.items() if at[0] != topic.key or at[1] >= oldest}
        return TruthGap(median(gaps), len(gaps), readings[0]) if gaps else None


def network_checked(look: NetworkLook | None, node: NodeVersions | None) -> Checked:
    """Compare a network with the official node that submits to it.

    Args:
        look: None: the network was not seen.
        node: None: it is not known.
    """
    checked = Checked(spoken=(node and spoken_api(node)) or "", submitter=node.said if node else "")
    if look is None:
        return checked
    host, upgrade = look.host, look.upgrade
    checked = replace(checked, seen_ms=look.seen_ms or 0, api=host.api if host else "")
    if host and upgrade:
        due_ms = host.time_ms + round((upgrade.height - host.height) * (look.block_ms or BLOCK_MS))
        checked = replace(checked, upgrade=upgrade, upgrade_ms=due_ms)
    return checked


def _barred(look: TopicLook) -> str:
    """Say why our worker cannot submit, by the chain itself; empty if it can, or the chain does not tell."""
    if look.access.registered is False:
        return "the chain knows no registration of WORKER_ADDRESS in the topic"
    if look.access.whitelisted is False:
        return "WORKER_ADDRESS is not on the topic's whitelist"
    return "the chain takes no submission of WORKER_ADDRESS" if look.access.can_submit is False else ""


def with_arrival(checked: Checked, rows: Rows) -> Checked:
    """Count the newest closed epochs in a row in which no answer of ours arrived; epochs that nobody saw are passed.

    So are values that the wallet submitted before our first answer: another program served it until then.
    """
    first = min((epoch.nonce for epoch, answer in rows if answer), default=math.inf)
    for epoch, answer in rows:
        ended = outcome(epoch, answer)
        if epoch.stage == Stage.OPEN or not epoch.worker:
            continue
        if epoch.arrival == Arrival.EQUAL or ended.won:
            break
        if epoch.arrival == Arrival.OTHER and epoch.nonce < first:
            continue
        if epoch.arrival in {Arrival.ABSENT, Arrival.OTHER}:
            checked = replace(
                checked,
                unarrived=checked.unarrived + 1,
                unarrived_ms=epoch.block_ms or epoch.seen_ms,
                unarrived_why=checked.unarrived_why or ended.reason,
            )
    return checked


def unit_checked(topic: Topic, rows: Rows, most: float) -> Unit | None:
    """Compare our answers with the other inferers' in the newest epochs; None while no epoch is closed."""
    compared = []
    prices = []
    for epoch, answer in rows:
        if epoch.stage == Stage.OPEN or epoch.detail is None or (answer and not _is_of(topic, answer)):
            continue
        value = answer.value if answer else number(epoch.value)
        if value is None:
            continue
        others = [
            float(one.value)
            for one in epoch.inside.inferers
            if one.value is not None and not _is_ours(epoch, one.address, one.value, value)
        ]
        compared.append((float(value), None if epoch.combined is None else float(epoch.combined), others))
        prices += [answer.anchor] if answer else []
        if len(compared) == EPOCHS:
            break
    return unit_of(topic, compared, median(prices) if prices else None, most) if compared else None


def _is_ours(epoch: Epoch, address: str, value: str, ours: str) -> bool:
    """True if an inferer of an epoch is our worker; without WORKER_ADDRESS, if its value is ours."""
    return address == epoch.worker if epoch.worker else are_equal(value, ours)


def _is_of(topic: Topic, answer: Answer) -> bool:
    """True if an answer was given to what the topic asks now, and not before a setting was corrected."""
    return (answer.target, answer.horizon_min) == (topic.asked, topic.horizon_min)
