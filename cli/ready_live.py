"""The real record in ``birnn ready``: the criteria on what was answered, beside those of the replay."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from admission.live import NO_ANSWER, RECORD_DAYS, LiveReadiness, live_readiness
from admission.readiness import Readiness
from cli.place import Place, ledger_url
from cli.screen import say
from core.clock import DAY_MS, iso
from core.settings import Settings
from core.show.words import counted
from core.topic import Topic
from ledger.database import FAULTS
from ledger.schema import one_line, shown
from ledger.scores import ScoreBook


def live_of(
    settings: Settings, place: Place, found: Sequence[tuple[Topic, Readiness | None]], now_ms: int
) -> Mapping[str, LiveReadiness]:
    """Return how the real record of each topic stands, by ``Topic.key``; empty, with a line, if it cannot be read."""
    url = ledger_url(settings, place)
    book = ScoreBook(url)
    if not book.is_begun:
        return {topic.key: NO_ANSWER for topic, _ in found}
    try:
        return {
            topic.key: live_readiness(
                topic,
                book.record(topic, place.market.value.upper(), now_ms - RECORD_DAYS * DAY_MS),
                now_ms=now_ms,
                block_ms=one.block_ms if one else None,
            )
            for topic, one in found
        }
    except FAULTS as error:
        say(f"{shown(sa.make_url(url))}: the real record cannot be read: {one_line(error)}; only the replay is shown")
        return {}
    finally:
        book.close()


def live_words(live: LiveReadiness) -> str:
    """Say in a sentence how the real record stands.

    >>> live_words(NO_ANSWER)
    'nothing was answered yet'
    """
    if live.missed_left is None:
        return live.short
    since = iso(live.since_ms)[:10]
    share = f"{100 * live.submitted / live.expected:.1f} %"
    left = f"{counted(live.missed_left, 'more epoch')} may be missed before participation falls to 90 %"
    if not live.criteria["participation"].passed:
        left = "no epoch may be missed"
    judged = "all seven hold" if live.eligible else live.short
    return f"{judged}; {live.submitted:,} of {live.expected:,} epochs since {since} ({share}); {left}"
