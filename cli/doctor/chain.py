"""The checks of ``birnn doctor`` against the chain."""

from collections.abc import Iterator, Mapping, Sequence

from cli.doctor.check import Check, not_looked_at, warning, well, wrong
from core.clock import Clock
from core.settings import Settings
from core.topic import Topic
from ledger.database import FAULTS
from ledger.epochs import EpochBook
from ledger.scores import ScoreBook
from monitor.chain.alarms import FINDERS
from monitor.chain.checks import NEWEST, Checks
from monitor.watched import InferenceSeen, Watched
from node.versions import NodeVersions
from truth.start_check import StartCheck

SOLVE_S = 1.0  # of each topic, for the truths that the reputers scored against


def chain_checks(
    settings: Settings,
    topics: Sequence[Topic],
    nodes: Mapping[str | None, NodeVersions],
    market: str,
    clock: Clock,
) -> Iterator[Check]:
    """Compare the topics with the chain, and our answers with what the monitor has collected of it.

    Args:
        settings: with the DATA_DIR in use.
        nodes: the official nodes, by network.
        market: BINANCE or SIMULATED.
    """
    if not settings.lcds:
        yield not_looked_at("LCD_URLS is not set: nobody compares our topics and answers with the chain")
        return
    if not topics:
        yield not_looked_at("there are no topics to ask for")
        return
    found = StartCheck(settings, topics, clock).wait()
    for line in found.stops:
        said, _, remedy = line.rpartition("; ")
        yield wrong(said, remedy)
    yield from map(warning, found.warnings)
    if found.agreed:
        yield well(f"as we train for them: topics {', '.join(found.agreed)}")
    yield from _collected(settings, topics, nodes, market, clock)


def _collected(
    settings: Settings,
    topics: Sequence[Topic],
    nodes: Mapping[str | None, NodeVersions],
    market: str,
    clock: Clock,
) -> Iterator[Check]:
    """Check what the monitor has collected of the chain: arrival, unit, truth, upgrade."""
    epochs, scores = EpochBook(settings.ledger_url), ScoreBook(settings.ledger_url)
    try:
        checks = Checks(settings, scores, nodes, solve_s=SOLVE_S, share=1)
        for topic in topics if epochs.is_begun else ():
            checks.check(topic, epochs.epochs_of(topic, NEWEST), epochs.sightings(topic.network or ""))
    except FAULTS as error:
        yield warning(f"the ledger cannot be read: {error}", "birnn status says where it is")
        return
    finally:
        epochs.close()
        scores.close()
    seen = Watched(
        now_ms=clock.now_ms(),
        market=market,
        inference=InferenceSeen(url=""),
        topics=topics,
        chain=checks.seen,
    )
    for name, threshold in settings.alarms.items():
        if name in FINDERS and name != "contract":  # which was asked just now
            yield from (wrong(alarm.what, alarm.remedy) for alarm in FINDERS[name](seen, threshold))
    for key, checked in checks.seen.items():
        if checked.unit and not checked.unit.fault:
            yield Check(
                "not looked at" if checked.unit.deviations is None else "well", f"unit of {key}: {checked.unit.line}"
            )
