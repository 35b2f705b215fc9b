"""Questions that are held instead of refused: until they can be answered, or until the answer is worth most.

A held question is a coroutine, not a thread. One task looks every BEAT_S whether the topics that are waited for can be
answered; it lives while there is something to look at. Everything here runs on the event loop.
"""

import asyncio
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

from starlette.types import Receive

from core.topic import Topic
from inference.service import InferenceService

MOST_HELD = 2_000
BEAT_S = 0.05
SLICE_S = 1.0  # the wall clock may be set, and the end of a window may become known
FILES = 65_536  # open files that the process asks for: each held question is a connection


class Reason(StrEnum):
    """What a question is held for."""

    NOT_YET = "not_yet"  # it cannot be answered yet
    WORTH = "worth"  # a later answer is worth more


class Gone(Exception):
    """The client of a held question has gone."""


class Holds:
    """The questions that are held now.

    Args:
        service: says whether a topic can be answered.
        patience_s: ANSWER_PATIENCE_S, how long a question is held that cannot be answered yet.
        most: questions that are held at once; more are answered or refused at once.
    Attributes:
        is_ending: whether the process is about to end.
    """

    def __init__(self, service: InferenceService, patience_s: float, most: int = MOST_HELD) -> None:
        self.patience_s = patience_s
        self.is_ending: Callable[[], bool] = lambda: False
        self._most = most
        self.held: Counter[Reason] = Counter()  # now, by reason
        self._service = service
        self._woken: dict[str, tuple[Topic, asyncio.Event]] = {}  # by Topic.key, of what cannot be answered yet
        self._ending: asyncio.Event | None = None
        self._beat: asyncio.Task[None] | None = None

    @property
    def has_place(self) -> bool:
        """Whether one more question may be held."""
        return self.held.total() < self._most and not self.is_ending()

    @contextmanager
    def place(self, reason: Reason, receive: Receive) -> "Iterator[Place]":
        """A place for one question, for as long as the context lasts."""
        if self._ending is None:
            self._ending = asyncio.Event()
        if self._beat is None or self._beat.done():
            self._beat = asyncio.create_task(self._run(self._ending))
        self.held[reason] += 1
        leaving = asyncio.create_task(_leaves(receive))
        try:
            yield Place(self, self._ending, leaving)
        finally:
            self.held[reason] -= 1
            leaving.cancel()

    def woken(self, topic: Topic) -> asyncio.Event:
        """What is set as soon as a topic can be answered."""
        if topic.key not in self._woken:
            self._woken[topic.key] = (topic, asyncio.Event())
        return self._woken[topic.key][1]

    async def _run(self, ending: asyncio.Event) -> None:
        while self.held.total():
            await asyncio.sleep(BEAT_S)
            if self.is_ending():
                ending.set()
            for key, (topic, event) in list(self._woken.items()):
                if self._service.is_answerable(topic):
                    event.set()
                    del self._woken[key]


class Place:
    """One held question."""

    def __init__(self, holds: Holds, ending: asyncio.Event, leaving: "asyncio.Task[None]") -> None:
        self._holds = holds
        self._ending = ending
        self._leaving = leaving

    @property
    def is_ending(self) -> bool:
        """Whether the process is about to end: what is held is answered or refused now."""
        return self._ending.is_set()

    async def until_answerable(self, topic: Topic, seconds: float) -> None:
        """Wait until the topic can be answered, so many seconds are over, or the process ends.

        Raises:
            Gone: nobody waits for the answer any more.
        """
        await self._wait(self._holds.woken(topic), seconds)

    async def pause(self, seconds: float) -> None:
        """Wait for SLICE_S at most, for so many seconds, or until the process ends.

        Raises:
            Gone: as above.
        """
        await self._wait(None, min(SLICE_S, seconds))

    async def _wait(self, event: asyncio.Event | None, seconds: float) -> None:
        waits = [asyncio.ensure_future(one.wait()) for one in (event, self._ending) if one]
        try:
            await asyncio.wait({*waits, self._leaving}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._leaving.done():
            raise Gone


async def _leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def raise_file_limit() -> None:
    """Let the process have as many connections as the system allows it, FILES at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
