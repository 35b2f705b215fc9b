"""Follow a network's epochs: read each while the chain has it, and keep what was seen."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from chain.addresses import ChainFault
from chain.emissions import Emissions
from chain.shapes import TopicSeen
from core.clock import Clock
from core.seldom import Seldom
from core.topic import Topic
from ledger.answers import Answer
from ledger.epochs import Epoch, EpochBook, Stage
from monitor.chain.epoch_reader import EpochReader
from monitor.chain.heights import Heights, Newest
from monitor.chain.rows import judged, opened
from monitor.chain.schedule import Due, Track, Want

BACK = 12  # epochs before the newest that are asked for at the beginning and after a gap
MOST_GAP = 300  # epochs of a gap that are written as not seen
MOST_FAULTS = 3  # in one step: the hosts do not answer, and the next step asks again
NO_TOPIC_BLOCKS = 100  # until a topic that is not on chain is asked for again

log = structlog.get_logger()


class EpochFollower:
    """One network's epochs, from the submission window to the rewards. For one thread.

    The schedule is in the ledger and on the chain: killed at any moment, the next follower goes on with the epochs that
    are not settled and looks for those that opened meanwhile.

    Args:
        topics: of the network.
        book: where the epochs are kept.
        emissions: reads the chain; raises ChainFault or returns None while no host of the network is known.
        heights: of the same chain.
    """

    def __init__(
        self,
        network: str,
        topics: Sequence[Topic],
        book: EpochBook,
        clock: Clock,
        *,
        emissions: Callable[[], Emissions | None],
        heights: Heights,
    ) -> None:
        self.network = network
        self.newest: Newest | None = None
        self.seen_ms: int | None = None  # when the chain was last read
        self.fault = "the chain was not asked yet"  # empty if it was read
        self.tracks = {topic.topic_id: Track(topic=topic) for topic in topics}
        self._book, self._clock = book, clock
        self._find, self._heights = emissions, heights
        self._emissions: Emissions | None = None
        self._restored = False
        self._seldom = Seldom()

    @property
    def emissions(self) -> Emissions | None:
        """Reads the chain; None while no host is known."""
        return self._emissions

    @property
    def block_ms(self) -> float | None:
        """Mean time between the chain's blocks in milliseconds; None if too few are known."""
        return self._heights.block_ms

    @property
    def requests(self) -> int:
        """Requests since the start, LCD and RPC together."""
        return self._heights.requests + (self._emissions.requests if self._emissions else 0)

    def step(self) -> bool:
        """Read what is due; True if the chain had a new block.

        Raises:
            ledger.database.FAULTS: the ledger cannot be used now; the same is read again.
        """
        if not self._book.is_begun:
            return False
        try:
            return self._step()
        except ChainFault as fault:
            self._failed(fault)
            return False

    def _step(self) -> bool:
        emissions = self._emissions = self._emissions or self._find()
        if emissions is None:
            raise ChainFault(f"no host of LCD_URLS serves {self.network or 'the network of config.json'}")
        newest = self._heights.newest(emissions)
        if newest is None:
            raise ChainFault(self._heights.fault or "the newest block is not known yet")
        if self.newest is not None:
            if newest.height < self.newest.height:
                self._begin_anew(newest)
            elif newest.height == self.newest.height:
                self.fault = self._heights.fault or self.fault
                return False
        self.newest = newest
        if not self._restored:
            self._restore(newest.height)
        self._read_all(emissions, newest.height)
        return True

    def _read_all(self, emissions: Emissions, height: int) -> None:
        faults, reader = 0, EpochReader(emissions, self._heights, height)
        for track in self.tracks.values():
            track.block_ms = self._heights.block_ms
            try:
                self._open(emissions, track, height)
            except ChainFault as fault:
                self._failed(fault)
                faults, track.look = faults + 1, height + 1
            if faults >= MOST_FAULTS:
                return
        dues = [
            (due.want, due.height, track, due)
            for track in self.tracks.values()
            for due in track.dues.values()
            if due.height <= height and track.seen is not None
        ]
        for _, _, track, due in sorted(dues, key=lambda one: one[:2]):
            if track.dues.get(due.nonce) is not due:
                continue  # the chain said meanwhile that there is no such epoch
            try:
                for _ in Want:  # a part that is long over is passed on from at once
                    self._read(emissions, track, due, reader)
                    if due.height > height or due.nonce not in track.dues:
                        break
            except ChainFault as fault:
                self._failed(fault)
                faults, due.height = faults + 1, height + 1
                if faults >= MOST_FAULTS:
                    return
            else:
                self.saw()
        if not faults and not self._heights.fault:
            self.fault = ""

    def saw(self) -> None:
        """Note that the chain was read just now."""
        self.seen_ms, self.fault = self._clock.now_ms(), ""

    def _failed(self, fault: ChainFault) -> None:
        self.fault = str(fault)
        if count := self._seldom.due("chain_not_read"):
            remedy = "check LCD_URLS and the hosts with birnn chain probe; answers do not wait for it"
            log.warning("chain_not_read", network=self.network, reason=str(fault), remedy=remedy, count=count)

    # --- epochs that open --------------------------------------------------------------------------------------------

    def _open(self, emissions: Emissions, track: Track, height: int) -> None:
        """Follow the epochs that have opened since the newest one."""
        if (nonce := track.foresee(height)) is not None and height >= track.look:
            track.begin(nonce, height, sure=False)
        elif height >= max(track.look, track.newest + track.epoch):
            self.look(emissions, track, height)

    def look(self, emissions: Emissions, track: Track, height: int) -> TopicSeen | None:
        """Read the topic itself, and follow the epochs that it tells of; None: there is no such topic."""
        seen = emissions.topic(track.topic.topic_id)
        self.saw()
        if seen is None:
            track.look = height + NO_TOPIC_BLOCKS
            return None
        track.seen = seen
        told = seen.newest_nonce
        for nonce in [due.nonce for due in track.dues.values() if not due.sure]:
            if nonce > told:
                del track.dues[nonce]
            else:
                # One that the chain has passed since is as sure as those that ``_fill`` adds.
                track.dues[nonce].sure = (told - nonce) % track.epoch == 0 or track.dues[nonce].sure
        late = height - (told + track.epoch)
        track.look = height + max(1, min(late, track.epoch))
        if told > track.newest:
            self._fill(track, told, height)
        elif told < track.newest and track.newest not in track.dues:
            track.newest, track.unopened = told, track.newest
        return seen

    def _fill(self, track: Track, told: int, height: int) -> None:
        """Follow the newest epoch, and those between it and the newest one that was followed."""
        known = track.newest
        between = [told - back * track.epoch for back in range(1, MOST_GAP + 1)]
        between = [nonce for nonce in between if nonce > known and nonce not in track.dues and nonce > 0]
        for nonce in reversed(between[:BACK]):
            track.begin(nonce, height, sure=True, told=known > 0)
        if known > 0:
            gone = [opened(track.topic, nonce, self._heights.time_of(nonce)) for nonce in between[BACK:]]
            self._write([self._judged(epoch._replace(stage=Stage.GONE.value)) for epoch in gone])
        track.begin(told, height, sure=True)

    # --- epochs that are followed ------------------------------------------------------------------------------------

    def _read(self, emissions: Emissions, track: Track, due: Due, reader: EpochReader) -> None:
        height = reader.height
        if not due.sure and (due.want > Want.VALUE or not track.topic.worker):
            self.look(emissions, track, height)
            if due.nonce not in track.dues or not due.sure:
                track.dues.pop(due.nonce, None)
                return
        before = self._row(track, due)
        if before.block_ms is None and due.want is Want.ACTIVE_SET:  # RPC does not tell, or not that far back
            with suppress(ChainFault):  # the active set is worth more
                before = before._replace(block_ms=emissions.time_of(due.nonce))
        reading = reader.read(track, due, before)
        if not due.sure:  # our worker's value was not there: is the epoch?
            self.look(emissions, track, height)
            if due.nonce not in track.dues or not due.sure:
                track.dues.pop(due.nonce, None)
                return
        row = reading.row
        if row is not None and row != before and (due.told or row.detail is not None):
            self._write([self._judged(row)])
        # Last: were the ledger not to be written, the same would be read again.
        if reading.want is None:
            del track.dues[due.nonce]
        else:
            due.want, due.height = reading.want, reading.height

    def _row(self, track: Track, due: Due) -> Epoch:
        """Return the epoch as it is kept, or a new one."""
        block_ms = self._heights.time_of(due.nonce)
        for epoch, _ in self._book.epochs_of(track.topic, 1, before_nonce=due.nonce + 1):
            if epoch.nonce == due.nonce and (block_ms is None or epoch.block_ms in {None, block_ms}):
                return epoch._replace(worker=track.topic.worker, block_ms=epoch.block_ms or block_ms)
        return opened(track.topic, due.nonce, block_ms)  # also in place of one of an earlier chain

    def _judged(self, epoch: Epoch) -> Epoch:
        answer = self._book.answer(epoch.network, epoch.topic_id, epoch.nonce)
        return judged(epoch._replace(block_ms=epoch.block_ms or _block_ms(answer)), answer)

    def _write(self, rows: Sequence[Epoch]) -> None:
        now_ms = self._clock.now_ms()
        self._book.write([row._replace(seen_ms=now_ms) for row in rows])

    # --- starts ------------------------------------------------------------------------------------------------------

    def _restore(self, height: int) -> None:
        """Go on with the epochs that an earlier follower left."""
        for track in self.tracks.values():
            newest = self._book.epochs_of(track.topic, 1, inside=False)
            track.newest = newest[0][0].nonce if newest and newest[0][0].nonce <= height else 0
        left = self._book.unsettled(self.network, inside=False)
        if any(epoch.nonce > height for epoch in left):
            self._give_up(above=height)
        for epoch in left:
            if epoch.nonce <= height and (track_of := self.tracks.get(epoch.topic_id)) is not None:
                later = Want.NETWORK if epoch.combined is None else Want.SETTLED
                want = Want.VALUE if epoch.stage == Stage.OPEN else later
                track_of.dues[epoch.nonce] = Due(nonce=epoch.nonce, want=want, height=0, sure=True)
        self._restored = True

    def _begin_anew(self, newest: Newest) -> None:
        """The chain began anew: nothing of the old chain can be read any more."""
        log.warning(
            "chain_began_anew",
            network=self.network,
            height=newest.height,
            before=self.newest.height if self.newest else None,
            remedy="nothing if the chain began anew; else a host of LCD_URLS or RPC_URLS is of another chain",
        )
        self._heights.forget()
        self._give_up(above=0)
        self.tracks = {topic_id: Track(topic=track.topic) for topic_id, track in self.tracks.items()}

    def _give_up(self, above: int) -> None:
        """Write that epochs with greater nonces are gone: they are of a chain that has begun anew since."""
        left = [epoch for epoch in self._book.unsettled(self.network) if epoch.nonce > above]
        self._write([self._judged(epoch._replace(stage=Stage.GONE.value)) for epoch in left])


def _block_ms(answer: Answer | None) -> int | None:
    return answer.block_ms if answer else None
