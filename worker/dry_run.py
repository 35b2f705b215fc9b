"""The dry-run node: asks as the official node does and logs the values. It never signs and never sends.

Without a chain the heights are those of ``node.dry_run_heights``.
"""

import threading
import time
from collections.abc import Sequence
from decimal import Decimal
from email.message import Message
from importlib.metadata import version

import structlog

from core.clock import MINUTE_MS, SECOND_MS, Clock
from core.errors import UnusableForecast
from core.net.http_get import NoAnswer, http_get
from core.topic import Topic
from node.dry_run_heights import BLOCK_MS, block_height, epoch_blocks, epoch_start, window_blocks
from node.endpoint import inference_url, submission

RETRY_S = 5.0
TIMEOUT_S = 300.0  # longer than an answer is ever held; the official node waits without end
BODY_LIMIT = 4096
SHOWN_BODY = 200
USER_AGENT = f"birnn-dry-run/{version('birnn-worker')}"  # inference recognises the node's questions by this name

log = structlog.get_logger()


def _age_ms(text: str | None) -> int | None:
    return int(text) if text and len(text) < 19 and text.isascii() and text.isdigit() else None


class DryRunNode:
    """Asks for each topic in a thread of its own: a question that hangs delays no other topic."""

    def __init__(
        self,
        topics: Sequence[Topic],
        clock: Clock,
        stopped: threading.Event,
        *,
        base_url: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """
        Args:
            clock: its sleep should end when ``stopped`` is set.
            stopped: ends every topic's loop before its next question.
            base_url: see ``inference_url``.
            timeout_s: see ``http_get``.
        """
        self._topics = topics
        self._clock = clock
        self._stopped = stopped
        self._base_url = base_url
        self._timeout_s = timeout_s

    def start(self) -> list[threading.Thread]:
        """Start the threads, first questions spread over a second. Daemons, since a read may hang."""
        threads = [
            threading.Thread(
                target=self.follow, args=(topic, index / len(self._topics)), name=f"topic-{topic.key}", daemon=True
            )
            for index, topic in enumerate(self._topics)
        ]
        for thread in threads:
            thread.start()
        return threads

    def follow(self, topic: Topic, delay_s: float = 0.0) -> None:
        """Ask for ``topic`` at once and then at the start of each epoch, until stopped.

        The first window opens with the first question, in the middle of an epoch too: a topic with an epoch of a day
        is answered at once.
        """
        self._clock.sleep(delay_s)
        epoch = epoch_blocks(topic)
        opened_ms = self._clock.now_ms()
        height = epoch_start(topic, block_height(opened_ms))
        while not self._stopped.is_set():
            next_ms = (height + epoch) * BLOCK_MS
            closes_ms = min(opened_ms + window_blocks(topic) * BLOCK_MS, next_ms)
            self.answer(topic, height, opened_ms=opened_ms, closes_ms=closes_ms)
            while (left_ms := next_ms - self._clock.now_ms()) > 0 and not self._stopped.is_set():
                self._clock.sleep(min(left_ms, MINUTE_MS) / SECOND_MS)  # in slices: the wall clock may be set
            height = epoch_start(topic, block_height(self._clock.now_ms()))
            opened_ms = height * BLOCK_MS

    def answer(self, topic: Topic, height: int, *, opened_ms: int, closes_ms: int) -> Decimal | None:
        """Ask for one nonce until there is a value to submit or its window closes.

        Returns:
            The value that would be submitted; None if no value came in time.
        """
        while not self._stopped.is_set():
            value = self._question(topic, height, opened_ms)
            if value is not None:
                return value
            if self._clock.now_ms() + RETRY_S * SECOND_MS >= closes_ms:
                return None
            self._clock.sleep(RETRY_S)
        return None

    def _question(self, topic: Topic, height: int, opened_ms: int) -> Decimal | None:
        url = inference_url(topic, height, self._base_url)
        began = time.perf_counter()
        answer, failure = None, ""
        try:
            answer = http_get(url, self._timeout_s, most_bytes=BODY_LIMIT, user_agent=USER_AGENT)
        except NoAnswer as error:
            failure = str(error)
        took_ms = round((time.perf_counter() - began) * SECOND_MS, 1)
        if self._stopped.is_set():
            return None  # the process is ending: write nothing
        headers = answer.headers if answer else Message()
        line = log.bind(
            topic_id=topic.topic_id,
            network=topic.network,
            token=topic.token,
            target=topic.target,
            height=height,
            url=url,
            status=answer and answer.status,
            body=answer.body[:SHOWN_BODY].decode("utf-8", "replace") if answer else "",
            model_version=headers.get("X-Model-Version"),
            forecast=headers.get("X-Forecast"),
            anchor_age_ms=_age_ms(headers.get("X-Anchor-Age-Ms")),
            forecast_age_ms=_age_ms(headers.get("X-Forecast-Age-Ms")),
            took_ms=took_ms,
            window_ms=self._clock.now_ms() - opened_ms,
        )
        try:
            if answer is None:
                raise UnusableForecast(failure)
            value = submission(answer.status, answer.body)
        except UnusableForecast as error:
            line.warning("nothing_to_submit", value=None, reason=str(error))
            return None
        line.info("would_submit", value=str(value))
        return value
