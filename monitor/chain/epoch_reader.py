"""Read one part of an epoch from the chain: which requests it takes, and what to read next."""

from dataclasses import replace
from typing import NamedTuple

from chain.addresses import ChainFault, Untold
from chain.emissions import Emissions
from chain.shapes import Settled
from ledger.epochs import Epoch, Stage
from monitor.chain.heights import Heights
from monitor.chain.rows import is_of, number, with_inferences, with_network, with_reputers, with_settled, with_value
from monitor.chain.schedule import SECOND_LOOK, Due, Track, Want

SEARCHED = 64  # blocks that are asked for the one that settled an epoch, before the topic's rhythm is known
REPUTERS_EVERY = 600  # blocks: each reputer takes a request
PATIENCE = 2  # blocks, at least
SEARCHED_AGAIN = 4  # once it is known


class Reading(NamedTuple):
    """What was read."""

    row: Epoch | None  # None: nothing new
    want: Want | None  # what to read next; None: nothing is left
    height: int = 0  # at which height


class EpochReader:
    """Reads epochs at one height. It changes of a ``Due`` only what the chain itself said of the epoch.

    Raises, in every method:
        ChainFault: the chain could not be read; the same is to be read again.
    """

    def __init__(self, emissions: Emissions, heights: Heights, height: int) -> None:
        self._emissions, self._heights, self.height = emissions, heights, height

    def read(self, track: Track, due: Due, row: Epoch) -> Reading:
        """Read what is due of an epoch, and add it to the epoch's row."""
        if due.want in {Want.VALUE, Want.VALUE_AGAIN}:
            return self._value(track, due, row)
        if due.want is Want.ACTIVE_SET:
            return self._active_set(track, due, row)
        if due.want is Want.NETWORK:
            return self._network(track, due, row)
        return self._settled(track, due, row)

    def _value(self, track: Track, due: Due, row: Epoch) -> Reading:
        topic_id, closes = track.topic.topic_id, track.closes(due.nonce)
        if not row.worker or self.height >= closes:
            return Reading(None, Want.ACTIVE_SET, closes)
        if self.height < track.last_third(due.nonce):
            return Reading(None, Want.VALUE, track.last_third(due.nonce))
        found = self._emissions.latest_inference(topic_id, row.worker)
        if found is not None and found.nonce == due.nonce:
            due.sure = True
            return Reading(with_value(row, found.value), Want.ACTIVE_SET, closes)
        # The value goes when the window closes. Only while the nonce is still open does its absence tell something.
        if due.nonce not in self._emissions.open_nonces(topic_id):
            return Reading(None, Want.ACTIVE_SET, closes)
        due.sure = True
        again = closes - SECOND_LOOK
        if due.want is Want.VALUE and self.height < again:
            return Reading(with_value(row, None), Want.VALUE_AGAIN, again)
        return Reading(with_value(row, None), Want.ACTIVE_SET, closes)

    def _active_set(self, track: Track, due: Due, row: Epoch) -> Reading:
        topic_id, closes = track.topic.topic_id, track.closes(due.nonce)
        if self.height < closes:
            return Reading(None, Want.ACTIVE_SET, closes)
        if found := self._emissions.inferences(topic_id, due.nonce):
            return self._network(track, due, with_inferences(row, found))
        is_over = due.nonce < track.newest
        if due.committed or (is_over and due.absent_at):  # no worker answered
            return Reading(with_inferences(row, ()), Want.SETTLED, track.settles(due.nonce) + 1)
        if is_over:  # perhaps the chain has forgotten the epoch
            return self._settled(track, due, row)
        due.absent_at = self.height
        last = self._emissions.last_worker_nonce(topic_id)
        due.committed = last is not None and last >= due.nonce
        return Reading(None, Want.ACTIVE_SET, track.later(due, self.height))

    def _network(self, track: Track, due: Due, row: Epoch) -> Reading:
        settles = track.settles(due.nonce) + 1
        if due.nonce < track.newest or self.height >= due.nonce + track.epoch:
            return Reading(row, Want.SETTLED, settles)
        try:
            seen = self._emissions.network_inference(track.topic.topic_id)
        except ChainFault:  # the active set is kept meanwhile
            return Reading(row, Want.NETWORK, self.height + 1)
        if seen is None or not is_of(seen, row):
            return Reading(row, Want.NETWORK, track.later(due, self.height))
        return Reading(with_network(row, seen), Want.SETTLED, settles)

    def _settled(self, track: Track, due: Due, row: Epoch) -> Reading:
        planned = track.settles(due.nonce)
        if self.height <= planned:
            return Reading(row._replace(stage=Stage.CLOSED.value), Want.SETTLED, planned + 1)
        topic_id = track.topic.topic_id
        found = self._told(track, due, planned)
        losses = found.losses if found else None
        if losses is None and (losses := self._emissions.losses(topic_id, due.nonce)) is None and found is None:
            return self._unsettled(track, due, row)
        if found is None:
            searched = SEARCHED if track.settles_after is None else SEARCHED_AGAIN
            lowest = max(due.absent_at, due.nonce)
            for height in range(self.height, max(lowest, self.height - searched), -1):
                if (found := self._told(track, due, height)) is not None:
                    track.settles_after = height - due.nonce
                    break
        else:
            track.settles_after = planned - due.nonce
        settled = found or Settled(topic_id=topic_id, nonce=due.nonce, height=0)  # LCD knows neither block nor rewards
        scores = settled.scores or self._emissions.scores(topic_id, due.nonce)
        row = with_settled(row, replace(settled, losses=losses, scores=scores), found.height if found else None)
        if row.score_ema is None and row.worker and row.active:
            smoothed = self._emissions.score_ema(topic_id, row.worker)
            if smoothed is not None and smoothed.nonce == due.nonce:
                row = row._replace(score_ema=number(smoothed.score))
        if self.height >= track.reputers_at:
            track.reputers_at = self.height + REPUTERS_EVERY
            row = with_reputers(row, self._emissions.reputers(topic_id, due.nonce))
        return Reading(row, None)

    def _told(self, track: Track, due: Due, height: int) -> Settled | None:
        """Return what a block says of the epoch; None: nothing, or the block is not told."""
        try:
            of_block = self._heights.settled(height)
        except Untold:
            return None
        except ChainFault:  # without RPC there are no rewards: the chain is given some time
            if self.height <= track.settles(due.nonce) + max(PATIENCE, track.epoch // 4):
                raise
            return None
        same = (one for one in of_block if (one.topic_id, one.nonce) == (track.topic.topic_id, due.nonce))
        return next(same, None)

    def _unsettled(self, track: Track, due: Due, row: Epoch) -> Reading:
        """The epoch has no losses: not yet, never, or not any more."""
        due.absent_at = self.height
        is_late = self.height > track.settles(due.nonce) + track.epoch // 2
        if is_late and not self._emissions.inferences(track.topic.topic_id, due.nonce):
            nobody = row.detail is not None and not row.inside.inferers
            return Reading(row._replace(stage=(Stage.SETTLED if nobody else Stage.GONE).value), None)
        return Reading(row._replace(stage=Stage.CLOSED.value), Want.SETTLED, track.later(due, self.height))
