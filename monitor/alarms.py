"""What is wrong: the conditions of the alarms, as pure functions of what the monitor has seen."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, iso
from core.topic import Topic
from model.judging.comparison import Comparison
from model.registry.artefact import made_ms
from monitor.alarm_rows import Alarm
from monitor.chain import alarms as chain_alarms
from monitor.watch import key_of
from monitor.watched import PARTS, Participation, State, Watched
from node.dry_run_heights import BLOCK_MS, epoch_blocks

UPDATER_PATIENCE_MS = 5 * MINUTE_MS  # a start that makes the store ready takes a minute
FAULT_PATIENCE_MS = MINUTE_MS  # another process may hold the database, or write a file, for a moment
UNWRITTEN_PATIENCE_MS = MINUTE_MS  # the ledger's writer tries again every few seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    watched: Watched
    skills: Mapping[str, Comparison]
    participation: Mapping[str, Participation]
    threshold: float

    def lasting(self, state: State, least_ms: float = 0.0) -> Iterator[tuple[str, int]]:
        """Subjects and begins of a state that has lasted for ``least_ms``."""
        for (kind, subject), since_ms in self.watched.since_ms.items():
            if kind is state and self.watched.now_ms - since_ms >= least_ms:
                yield subject, since_ms


def conditions(
    watched: Watched,
    skills: Mapping[str, Comparison],
    participation: Mapping[str, Participation],
    thresholds: Mapping[str, float],
) -> list[Alarm]:
    """Return every alarm that holds now, in the order of its importance.

    Args:
        skills: by ``Topic.key``, the losses of the version in use against the naive forecast's on what it answered.
        participation: by ``Topic.key``.
        thresholds: by the alarm's name; an alarm without a threshold is off.
    """
    return [
        alarm
        for name, find in _FINDERS.items()
        if name in thresholds
        for alarm in find(
            _Evidence(watched=watched, skills=skills, participation=participation, threshold=thresholds[name])
        )
    ]


def can_be_over(
    name: str,
    subject: str,
    watched: Watched,
    skills: Mapping[str, Comparison],
    participation: Mapping[str, Participation],
) -> bool:
    """True if an alarm that ``conditions`` does not return is over, rather than below its threshold or out of sight.

    A monitor that was started again counts anew since when a state lasts: an alarm of before is not over by that.
    """
    if name == "inference" or name in _OF_INFERENCE or (name, subject) == ("store", "answers"):
        if not watched.inference.answers:
            return False
    elif name in {"skill", "participation"}:
        configured = any(topic.key == subject for topic in watched.topics)
        without = name == "skill" and "registry" not in watched.faults and subject not in watched.champions
        return not configured or without or subject in (skills if name == "skill" else participation)
    elif name == "submissions":
        there = [node for node in watched.nodes if node.answers]
        seen = [counts for node in there for key, counts in node.counts.items() if _worker(*key) == subject]
        submitted = not seen or any(counts.submitted_ms is not None for counts in seen)
        return (bool(there) and submitted) or not watched.nodes
    elif name in chain_alarms.FINDERS:
        return chain_alarms.can_be_over(name, subject, watched)
    elif _FILES.get(name) in watched.faults:
        return False
    return not any((state, subject) in watched.since_ms for state in _STATES.get(name, ()))


def _inference(seen: _Evidence) -> Iterator[Alarm]:
    inference, now_ms = seen.watched.inference, seen.watched.now_ms
    if not inference.answers and now_ms - inference.since_ms >= seen.threshold * SECOND_MS:
        yield Alarm(
            name="inference",
            subject="",
            what=f"inference at {inference.url} does not answer: {inference.fault}",
            since_ms=inference.since_ms,
            remedy="the node gets no answers and epochs are lost: read inference's log and start it again "
            "(docker compose up -d inference, systemctl restart birnn-inference, or scripts/run)",
        )


def _topic(seen: _Evidence) -> Iterator[Alarm]:
    topics = {topic.key: topic for topic in seen.watched.topics}
    reasons = {key_of(topic): str(topic.get("reason", "")) for topic in seen.watched.inference.topics}
    for key, since_ms in seen.lasting(State.NOT_READY) if seen.watched.inference.answers else ():
        epoch = epoch_ms(topics[key], seen.watched) if key in topics else HOUR_MS
        epochs = (seen.watched.now_ms - since_ms) / epoch
        if epochs >= seen.threshold:
            yield Alarm(
                name="topic",
                subject=key,
                what=f"topic {key} cannot be answered for {epochs:.0f} epochs: {reasons.get(key, '')}",
                since_ms=since_ms,
                remedy="birnn doctor tells which part fails: a venue, the kline store or the configuration",
            )


def epoch_ms(topic: Topic, watched: Watched) -> float:
    """How long a topic's epoch is, in milliseconds, by the measured time of a block where that is known."""
    readiness = watched.admission.get(topic.key)
    return epoch_blocks(topic) * ((readiness and readiness.block_ms) or BLOCK_MS)


def _anchor(seen: _Evidence) -> Iterator[Alarm]:
    if not seen.watched.inference.answers:
        return
    remedy = "birnn doctor --market asks every venue; add venues to MARKET_VENUES if none of them serves the symbol"
    least_ms = seen.threshold * SECOND_MS
    found: dict[str, Alarm] = {}
    for topic in seen.watched.inference.topics:
        symbol, age_ms = str(topic.get("symbol")), topic.get("anchor_age_ms")
        if age_ms is not None and age_ms >= least_ms:
            what = f"the newest price of {symbol} is {age_ms / SECOND_MS:.0f} s old"
            since_ms = seen.watched.inference.seen_ms - int(age_ms)
            found[symbol] = Alarm(name="anchor", subject=symbol, what=what, since_ms=since_ms, remedy=remedy)
    for symbol, since_ms in seen.lasting(State.NO_PRICE, least_ms):
        what = f"there is no price of {symbol}"
        found[symbol] = Alarm(name="anchor", subject=symbol, what=what, since_ms=since_ms, remedy=remedy)
    yield from found.values()


def _champion(seen: _Evidence) -> Iterator[Alarm]:
    if "registry" in seen.watched.faults:
        return
    most_ms, now_ms = seen.threshold * HOUR_MS, seen.watched.now_ms
    without = dict(seen.lasting(State.NO_CHAMPION, most_ms))
    for topic in seen.watched.topics:
        champion = seen.watched.champions.get(topic.key)
        if champion is None and topic.key in without:
            what, since_ms = f"topic {topic.key} has no network of its own", without[topic.key]
        elif champion and now_ms - made_ms(champion.version) > most_ms:
            made = made_ms(champion.version)
            what, since_ms = f"topic {topic.key} is served by a network of {iso(made)[:10]}", made + int(most_ms)
        else:
            continue
        yield Alarm(
            name="champion",
            subject=topic.key,
            what=f"{what}: no newer one has passed the gate",
            since_ms=since_ms,
            remedy="birnn status tells how the newest networks were judged; birnn tune looks for better settings",
        )


def _training(seen: _Evidence) -> Iterator[Alarm]:
    for _, since_ms in seen.lasting(State.NO_UPDATER, UPDATER_PATIENCE_MS):
        yield Alarm(
            name="training",
            subject="",
            what="the updater does not run: no klines are kept and no network is trained",
            since_ms=since_ms,
            remedy="read the updater's log and start it again "
            "(docker compose up -d updater, systemctl restart birnn-updater, or scripts/run)",
        )
    for panel, state in seen.watched.updater.panels.items() if seen.watched.updater else ():
        if state.failures and state.failures >= seen.threshold:
            outcome = state.outcome
            why = outcome.reason or f"left out: {', '.join(outcome.missing)}" if outcome else "no reason is known"
            yield Alarm(
                name="training",
                subject=panel,
                what=f"training the {panel} panel failed {state.failures} times in a row: {why}",
                since_ms=outcome.finished_ms if outcome else seen.watched.now_ms,
                remedy="birnn status tells the reason and the next try; the networks in use go on until then",
            )


def _demotion(seen: _Evidence) -> Iterator[Alarm]:
    if "registry" in seen.watched.faults:
        return
    for key, demotions in seen.watched.demotions.items():
        newest = [one for one in demotions if seen.watched.now_ms - one.demoted_ms < DAY_MS]
        if newest and len(newest) >= seen.threshold:
            last = newest[-1]
            instead = last.successor or "the naive forecast"
            yield Alarm(
                name="demotion",
                subject=key,
                what=f"topic {key}: {last.champion.version} was demoted ({last.reason}); {instead} answers",
                since_ms=last.demoted_ms,
                remedy="nothing: the next training that passes the gate takes over; birnn status tells more",
            )


def _skill(seen: _Evidence) -> Iterator[Alarm]:
    for key, live in seen.skills.items():
        if live.worse is not None and live.worse < seen.threshold and not live.no_higher:
            yield Alarm(
                name="skill",
                subject=key,
                what=f"topic {key}: the network in use is significantly worse than the naive forecast on {live.rows} "
                f"answers (chance of that without a cause {live.worse:.2g})",
                since_ms=seen.watched.now_ms,
                remedy="the next training demotes it; birnn train does so now",
            )


def _participation(seen: _Evidence) -> Iterator[Alarm]:
    for key, (share, left) in seen.participation.items():
        if left <= seen.threshold and share < 1:  # a young record allows few misses, and has none yet
            yield Alarm(
                name="participation",
                subject=key,
                what=f"topic {key}: participation falls below 90 % after {left} more missed epochs"
                if left > 0
                else f"topic {key}: participation is {100 * share:.3g} %, below 90 %",
                since_ms=seen.watched.now_ms,
                remedy="keep inference and the node running; birnn ready tells how the record stands",
            )


def _store(seen: _Evidence) -> Iterator[Alarm]:
    watched = seen.watched
    for part, since_ms in seen.lasting(State.FAULT, FAULT_PATIENCE_MS):
        yield Alarm(
            name="store",
            subject=part,
            what=f"{PARTS.get(part, part)}: {watched.faults.get(part, '')}",
            since_ms=since_ms,
            remedy="make room on the disk of DATA_DIR and check who may write there: birnn doctor looks at it; if "
            "DATABASE_URL is set, check that its database runs",
        )
    if watched.free_bytes is not None and watched.free_bytes < seen.threshold * 1e6:
        yield Alarm(
            name="store",
            subject="room",
            what=f"{watched.free_bytes / 1e6:,.0f} MB are free on the disk of DATA_DIR",
            since_ms=watched.now_ms,
            remedy="make room: a full disk keeps neither answers, klines nor networks (LEDGER_DAYS, TRAINING_DAYS)",
        )
    samples = watched.inference.samples
    lost = sum(samples.get("birnn_ledger_dropped_total", {}).values())
    waiting = sum(samples.get("birnn_ledger_unwritten", {}).values())
    late = list(seen.lasting(State.UNWRITTEN, UNWRITTEN_PATIENCE_MS))
    if watched.inference.answers and (lost or late):
        yield Alarm(
            name="store",
            subject="answers",
            what=f"{lost:.0f} answers were never written" if lost else f"{waiting:.0f} answers wait for the ledger",
            since_ms=late[0][1] if late else watched.now_ms,
            remedy="inference's log tells what the database refuses; answers go on meanwhile",
        )


def _clock(seen: _Evidence) -> Iterator[Alarm]:
    ahead = seen.watched.inference.samples.get("birnn_venue_clock_ahead_seconds", {}).values()
    off_s = max(ahead, key=abs, default=0.0)
    if seen.watched.inference.answers and abs(off_s) >= seen.threshold:
        yield Alarm(
            name="clock",
            subject="",
            what=f"this machine's clock is {abs(off_s):.1f} s {'behind' if off_s > 0 else 'ahead of'} the venue's",
            since_ms=seen.watched.now_ms,
            remedy="let the system set its clock (timedatectl set-ntp true); answers are corrected meanwhile",
        )


def _submissions(seen: _Evidence) -> Iterator[Alarm]:
    for node in seen.watched.nodes:
        for (address, topic_id), counts in node.counts.items() if node.answers else ():
            if counts.unsubmitted and counts.unsubmitted >= seen.threshold:
                yield Alarm(
                    name="submissions",
                    subject=_worker(address, topic_id),
                    what=f"the node {address} asked {counts.unsubmitted} times for topic {topic_id} and submitted "
                    "nothing",
                    since_ms=seen.watched.now_ms if counts.submitted_ms is None else counts.submitted_ms,
                    remedy="read the node's log: balance for fees, registration in the topic, whitelist, RPC address",
                )


def _market(seen: _Evidence) -> Iterator[Alarm]:
    for _, since_ms in seen.lasting(State.SIMULATED, seen.threshold * SECOND_MS):
        if seen.watched.inference.answers:
            yield Alarm(
                name="market",
                subject="",
                what="prices are SIMULATED: such answers are worth nothing on a chain",
                since_ms=since_ms,
                remedy="set MARKET=binance and start again; ALARM_MARKET=off if you only try things out",
            )


def _of_chain(find: chain_alarms.Find) -> Callable[[_Evidence], Iterable[Alarm]]:
    return lambda seen: find(seen.watched, seen.threshold)


def _worker(address: str, topic_id: int) -> str:
    return f"{topic_id} of {address}"


_OF_INFERENCE = {"topic", "anchor", "clock", "market"}  # alarms that inference alone tells
_FILES = {"training": "updater", "demotion": "registry", "champion": "registry"}  # that alarms are read from
_STATES: Mapping[str, tuple[State, ...]] = {
    "topic": (State.NOT_READY,),
    "anchor": (State.NO_PRICE,),
    "champion": (State.NO_CHAMPION,),
    "training": (State.NO_UPDATER,),
    "store": (State.FAULT, State.UNWRITTEN),
    "market": (State.SIMULATED,),
}
_FINDERS: Mapping[str, Callable[[_Evidence], Iterable[Alarm]]] = {
    "inference": _inference,
    "topic": _topic,
    "anchor": _anchor,
    "submissions": _submissions,
    "market": _market,
    "store": _store,
    "clock": _clock,
    **{name: _of_chain(find) for name, find in chain_alarms.FINDERS.items()},
    "participation": _participation,
    "skill": _skill,
    "champion": _champion,
    "training": _training,
    "demotion": _demotion,
}
