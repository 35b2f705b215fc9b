"""How long an answer is held: each second of market is worth something, until the nonce's window closes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.clock import SECOND_MS, iso
from core.setting_values import AUTO_WAIT, LONGEST_WAIT_S, wait_s
from core.topic import Topic
from inference.base import SURE, Base, BaseSource, Chain, oldest_base_ms
from node.dry_run_heights import BLOCK_MS, epoch_blocks, window_blocks

LANDING_BLOCKS, LANDING_MS = 3, 15 * SECOND_MS  # from an answer to its block: three blocks, at least so long
WINDOW_AWAITED_MS = 3 * SECOND_MS  # for the chain's word when a window ends
KEPT_MS = 2 * SECOND_MS  # an answer comes so long before its base is too old
SILENT_EPOCHS = 2  # after which the node may have been started again


class TooEarly(Exception):
    """The answer is worth waiting for until ``due_ms``."""

    def __init__(self, due_ms: int) -> None:
        super().__init__(f"answered {iso(due_ms)}")
        self.due_ms = due_ms


@dataclass(slots=True, kw_only=True)
class Waits:
    """Decides how long each question is held, because a later answer is worth more. For the event loop alone.

    Args:
        setting: ANSWER_WAIT, for topics that have no Wait of their own.
        chains: followers by chain id; they know when a window ends.
        in_turn: chain ids whose node starts its topics one after the other. The first question after a silence is not
            held there.
    """

    setting: str
    chains: Mapping[str | None, Chain]
    in_turn: frozenset[str | None] = frozenset()
    _asked: dict[str, tuple[int, int, int]] = field(
        default_factory=dict
    )  # by Topic.key: newest height, when it was asked, when the height before it was asked

    def check(self, topic: Topic, height: int, base: Base, asked_ms: int, now_ms: int) -> None:
        """Return if a question is to be answered now.

        Raises:
            TooEarly: a later answer is worth more.
        """
        setting, silent_ms = topic.wait or self.setting, self._silent_ms(topic, height, asked_ms)
        if setting == "0" or base.source not in SURE:
            return
        if (due_ms := self._due_ms(topic, height, base, setting, silent_ms, asked_ms, now_ms)) > now_ms:
            raise TooEarly(due_ms)

    def _due_ms(
        self, topic: Topic, height: int, base: Base, setting: str, silent_ms: int, asked_ms: int, now_ms: int
    ) -> int:
        is_auto = setting == AUTO_WAIT
        is_dry = base.source is BaseSource.DRY_RUN  # a dry run is to show its first answer at once
        if is_auto and not is_dry and not topic.held:
            return 0
        if (is_dry or topic.network in self.in_turn) and silent_ms > SILENT_EPOCHS * epoch_blocks(topic) * BLOCK_MS:
            return 0
        wanted_ms = base.ms + round(SECOND_MS * (LONGEST_WAIT_S if is_auto else wait_s(setting)))
        wanted_ms = min(wanted_ms, base.ms + oldest_base_ms(topic) - KEPT_MS)
        latest_ms = self._latest_ms(topic, height, base)
        if latest_ms is None and 0 <= now_ms - asked_ms < WINDOW_AWAITED_MS:
            return min(wanted_ms, now_ms + SECOND_MS // 4)
        if latest_ms is None:
            return 0 if is_auto else wanted_ms
        return min(wanted_ms, latest_ms)

    def _latest_ms(self, topic: Topic, height: int, base: Base) -> int | None:
        """Return the latest moment for an answer that lands in the window; None if the window is not known."""
        if base.block_ms is None:
            return None
        if base.source is BaseSource.DRY_RUN:
            return base.block_ms + window_blocks(topic) * BLOCK_MS - max(LANDING_BLOCKS * BLOCK_MS, LANDING_MS)
        chain = self.chains.get(topic.network)
        end, a_block_ms = (chain.window_end(topic.topic_id, height), chain.block_ms) if chain else (None, None)
        if end is None or a_block_ms is None:
            return None
        landing_ms = max(LANDING_BLOCKS * a_block_ms, LANDING_MS)
        return round(base.block_ms + (end - height) * a_block_ms - landing_ms)

    def _silent_ms(self, topic: Topic, height: int, asked_ms: int) -> int:
        """Return the time since a question for another height; longer than any silence before the second height."""
        known = self._asked.get(topic.key)
        if known is None or known[0] != height:
            before_ms = known[1] if known else 0
            known = self._asked[topic.key] = (height, asked_ms, before_ms)
        return asked_ms - known[2]


NO_WAITS = Waits(setting="0", chains={})
