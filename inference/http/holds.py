"""Questions that are held: until they can be answered, or until the answer is worth most.

A held question is a coroutine, not a thread. While questions are held, one task checks every BEAT_S which topics can be
answered. Everything here runs on the event loop.
"""

import asyncio
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

from starlette.types import Receive

from core.topic import Topic
from inference.answering import InferenceService
from ledger.answers import Answer

MOST_HELD = 2_000
BEAT_S = 0.02
SLICE_S = 1.0  # then the wait is computed anew: the clock may be set, a window may become known
FILES = 65_536  # open files to ask the system for: each held question is a connection


class Reason(StrEnum):
    """Why a question is held."""

    NOT_YET = "not_yet"  # it cannot be answered yet
    WORTH = "worth"  # a later answer is worth more


class Gone(Exception):
    """The client of a held question has gone."""


class Holds:
    """The questions that are held now.

    Args:
        service: knows if a topic can be answered.
        patience_s: ANSWER_PATIENCE_S, how long a question is held that cannot be answered yet.
        most: most questions that are held; more are answered or refused at once.
    Attributes:
        is_ending: returns True if the process is about to end.
    """

    def __init__(self, service: InferenceService, patience_s: float, most: int = MOST_HELD) -> None:
        self.patience_s = patience_s
        self.is_ending: Callable[[], bool] = lambda: False
        self._most = most
        self.held: Counter[Reason] = Counter()  # now, by reason
        self._service = service
        self._places: set[Place] = set()
        self._waiting: dict[str, tuple[Topic, set[Place]]] = {}  # by Topic.key, for what cannot be answered yet
        self._beat: asyncio.Task[None] | None = None

    @property
    def has_place(self) -> bool:
        """True if one more question may be held."""
        return len(self._places) < self._most and not self.is_ending()

    @contextmanager
    def place(self, reason: Reason, receive: Receive) -> "Iterator[Place]":
        """Hold one question for as long as the context lasts."""
        if self._beat is None or self._beat.done():
            self._beat = asyncio.create_task(self._run())
        self.held[reason] += 1
        place = Place(self, asyncio.create_task(_client_leaves(receive)))
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.remove(place)
            self.held[reason] -= 1
            place.leaving.cancel()

    def waiting(self, topic: Topic) -> "set[Place]":
        """Return the places that are woken as soon as a topic can be answered."""
        return self._waiting.setdefault(topic.key, (topic, set()))[1]

    async def _run(self) -> None:
        while self._places:
            await asyncio.sleep(BEAT_S)
            if self.is_ending():
                for place in self._places:
                    place.wake({})
            for key, (topic, places) in list(self._waiting.items()):
                if not places:
                    del self._waiting[key]
                elif self._service.is_answerable(topic):
                    answers: dict[str, Answer] = {}
                    for place in places:
                        place.wake(answers)


class Place:
    """One held question.

    Attributes:
        leaving: is done as soon as the client is gone.
        answers: to the topic's question without a height, by asker. Places that are woken together share it: the first
            place adds the answer, and the others send it too.
    """

    def __init__(self, holds: Holds, leaving: "asyncio.Task[None]") -> None:
        self.leaving = leaving
        self.answers: dict[str, Answer] = {}
        self._holds = holds
        self._woken: asyncio.Future[None] | None = None
        leaving.add_done_callback(lambda _: self.wake({}))

    @property
    def is_ending(self) -> bool:
        """True if the process is about to end: held questions are answered or refused now."""
        return self._holds.is_ending()

    def wake(self, answers: "dict[str, Answer]") -> None:
        """End the wait, if there is one."""
        if self._woken and not self._woken.done():
            self.answers = answers
            self._woken.set_result(None)

    async def until_answerable(self, topic: Topic, seconds: float) -> None:
        """Wait until the topic can be answered, ``seconds`` are over, or the process ends.

        Raises:
            Gone: the client has gone.
        """
        places = self._holds.waiting(topic)
        places.add(self)
        try:
            await self._wait(seconds)
        finally:
            places.discard(self)

    async def pause(self, seconds: float) -> None:
        """Wait until ``seconds`` or SLICE_S are over, or the process ends.

        Raises:
            Gone: the client has gone.
        """
        await self._wait(min(SLICE_S, seconds))

    async def _wait(self, seconds: float) -> None:
        """Wait with one future and one timer only: a thousand questions may wake at once."""
        loop = asyncio.get_running_loop()
        self._woken = loop.create_future()
        timer = loop.call_later(max(0.0, seconds), self.wake, {})
        try:
            await self._woken
        finally:
            timer.cancel()
        if self.leaving.done():
            raise Gone


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def raise_file_limit() -> None:
    """Raise the limit of open files as far as the system allows, FILES at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
