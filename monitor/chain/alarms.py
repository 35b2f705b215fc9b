"""The alarms that the chain tells: arrival, contract, unit, truth, upgrade; pure functions of ``Watched.chain``."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf

from chain.versions import api_of
from core.clock import DAY_MS, iso
from monitor.alarm_rows import Alarm
from monitor.watched import Checked, Watched
from node.addresses import is_public
from truth.contract import Fault

Find = Callable[[Watched, float], Iterable[Alarm]]  # the number is the alarm's threshold

STALE_MS = DAY_MS // 24  # a chain that was not seen for so long tells nothing new
LEAST_TRUTHS = 5  # recovered truths that a median rests on


def can_be_over(name: str, subject: str, watched: Watched) -> bool:
    """True if an alarm that does not hold any more is over, and not merely out of sight.

    Args:
        name: one of ``FINDERS``.
    """
    topics = {key: seen for key, seen in watched.chain.items() if subject in {key, _network(key)}}
    if not topics:  # the topic left the config, or nothing was read since the start
        return bool(watched.chain) and not any(subject in {topic.key, topic.network} for topic in watched.topics)
    if any(_is_stale(seen, watched) for seen in topics.values()):
        return False
    if name == "contract":
        return all(seen.contract is not None for seen in topics.values())
    if name == "unit":
        return all(seen.unit is not None and seen.unit.deviations is not None for seen in topics.values())
    return name != "truth" or all(seen.truth and seen.truth.epochs >= LEAST_TRUTHS for seen in topics.values())


def _is_stale(seen: Checked, watched: Watched) -> bool:
    return watched.now_ms - seen.seen_ms > STALE_MS


def _network(key: str) -> str:
    return key.rpartition("/")[0]


def _arrival(watched: Watched, threshold: float) -> Iterator[Alarm]:
    for key, seen in watched.chain.items():
        if seen.unarrived and seen.unarrived >= threshold:
            yield Alarm(
                name="arrival",
                subject=key,
                what=f"topic {key}: in {seen.unarrived} epochs in a row no answer of ours arrived on chain "
                f"(the newest: {seen.unarrived_why})",
                since_ms=seen.unarrived_ms,
                remedy="read the node's log: balance for fees, registration in the topic, whitelist, RPC address; "
                "compare WORKER_ADDRESS with the node's wallet",
            )


def broken(key: str, seen: Checked, market: str) -> list[Fault]:
    """Return the contract's faults that cost something: sure ones, on a public network, of answers at real prices."""
    if market == "SIMULATED" or not is_public(_network(key)):
        return []
    return [fault for fault in seen.contract or () if fault.is_sure]


def _contract(watched: Watched, threshold: float) -> Iterator[Alarm]:
    for key, seen in watched.chain.items():
        if faults := [fault for fault in broken(key, seen, watched.market) if fault.off > threshold]:
            yield Alarm(
                name="contract",
                subject=key,
                what="; ".join(fault.what for fault in faults),
                since_ms=watched.now_ms,
                remedy="; ".join(dict.fromkeys(fault.remedy for fault in faults)),
            )


def _unit(watched: Watched, threshold: float) -> Iterator[Alarm]:
    for key, seen in watched.chain.items():
        if seen.unit and (fault := seen.unit.fault):
            yield Alarm(name="unit", subject=key, what=fault.what, since_ms=watched.now_ms, remedy=fault.remedy)


def _truth(watched: Watched, threshold: float) -> Iterator[Alarm]:
    for key, seen in watched.chain.items():
        if seen.truth and seen.truth.epochs >= LEAST_TRUTHS and seen.truth.bp > threshold:
            yield Alarm(
                name="truth",
                subject=key,
                what=f"topic {key}: what the reputers score against is {seen.truth.bp:,.3g} basis points off the truth "
                f"that we train and score by (median of {seen.truth.epochs} epochs)",
                since_ms=watched.now_ms,
                remedy=f"birnn truth --topic {key.rpartition('/')[2]} names the venue, the definition and the moment "
                "that fit: set TRUTH_VENUE, Volatility and BASE_RULE to them",
            )


def upgrade_words(network: str, seen: Checked, now_ms: int, within_days: float = inf) -> list[str]:
    """Say what a scheduled upgrade and another version of the API mean for a network's submissions; empty: nothing.

    Args:
        within_days: an upgrade later than that is not told.
    """
    said = []
    if seen.api and seen.spoken and seen.api != seen.spoken:
        said.append(
            f"{network} speaks API {seen.api}, and {seen.submitter or 'the node'} is built for {seen.spoken}: its "
            "submissions may be refused"
        )
    days = (seen.upgrade_ms - now_ms) / DAY_MS
    if seen.upgrade and days <= within_days:
        when = f"in {days:.1f} days, about {iso(seen.upgrade_ms)[:16].replace('T', ' ')}Z" if days > 0 else "now due"
        said.append(f"{network} is upgraded to {seen.upgrade.name} at height {seen.upgrade.height}, {when}")
        coming = api_of(seen.upgrade.name)
        if coming and seen.spoken and coming != seen.spoken:
            said.append(f"that release speaks API {coming}, and {seen.submitter} is built for {seen.spoken}")
    return said


def _upgrade(watched: Watched, threshold: float) -> Iterator[Alarm]:
    for network, seen in {_network(key): seen for key, seen in watched.chain.items()}.items():
        if said := upgrade_words(network, seen, watched.now_ms, threshold):
            yield Alarm(
                name="upgrade",
                subject=network,
                what="; ".join(said),
                since_ms=watched.now_ms,
                remedy="read the release notes of the chain and of the official node; take the node's release that "
                "speaks the new API (NODE_IMAGE_TAG), and birnn chain probe after the upgrade",
            )


FINDERS: Mapping[str, Find] = {
    "arrival": _arrival,
    "contract": _contract,
    "unit": _unit,
    "truth": _truth,
    "upgrade": _upgrade,
}
