"""What may be asked over HTTP, and the one line that says why something else may not. No I/O."""

from collections.abc import Iterable, Sequence

from core.errors import WorkerError
from core.topic import Topic

LARGEST_NUMBER = 2**63 - 1  # block heights are int64 on the chain
LONGEST_ECHO = 60


class BadQuestion(WorkerError):
    """The question itself is wrong; asking it again will not help.

    Args:
        status: 400 for a question that cannot be understood, 404 for a topic or token that is not configured.
        message: one line.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def whole_number(name: str, texts: Sequence[str]) -> int | None:
    """The value of a query parameter, None when it is not given.

    Raises:
        BadQuestion: given twice, or not a whole number from 0 to 2**63 - 1 in plain digits.

    >>> whole_number("height", ["812"]), whole_number("height", [])
    (812, None)
    """
    if not texts:
        return None
    if len(texts) > 1:
        raise BadQuestion(400, f"{name} is given {len(texts)} times; give it once")
    text = texts[0]
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= LARGEST_NUMBER):
        raise BadQuestion(400, f"{name} must be a whole number from 0 to {LARGEST_NUMBER}, was {echo(text)}")
    return int(text)


def echo(text: str) -> str:
    """What was asked, safe to send back: one line, printable, short.

    >>> echo("ETH\\n"), len(echo("9" * 5000))
    ("'ETH\\\\n'", 63)
    """
    shown = ascii(text[: LONGEST_ECHO + 1])
    return shown if len(shown) <= LONGEST_ECHO + 2 else shown[:LONGEST_ECHO] + "..."


class Questions:
    """The configured topics, by the names under which the node asks for them."""

    def __init__(self, topics: Iterable[Topic]) -> None:
        self.topics = tuple(topics)
        self._by_id = {topic.topic_id: topic for topic in self.topics}
        self._by_token: dict[str, list[Topic]] = {}
        for topic in self.topics:
            self._by_token.setdefault(topic.token, []).append(topic)

    def topic(self, token: str, topic_id: int | None) -> Topic:
        """The topic that is asked for.

        Args:
            token: as the path names it.
            topic_id: as the query names it; may be None where the token has one topic only.
        Raises:
            BadQuestion: 404 for a token or a topic that is not configured, 400 for two that do not fit together
                and for a token alone that several topics share.
        """
        named = self._by_token.get(token)
        if named is None:
            tokens = ", ".join(sorted(self._by_token))
            raise BadQuestion(404, f"token {echo(token)} is in no configured topic; configured are {tokens}")
        if topic_id is None:
            if len(named) > 1:
                choices = ", ".join(f"{topic.topic_id} ({topic.target} {topic.horizon})" for topic in named)
                raise BadQuestion(400, f"{token} has several topics; add ?topic= with one of {choices}")
            return named[0]
        topic = self._by_id.get(topic_id)
        if topic is None:
            ids = ", ".join(str(known) for known in sorted(self._by_id))
            raise BadQuestion(404, f"topic {topic_id} is not configured; configured are {ids}")
        if topic.token != token:
            raise BadQuestion(400, f"topic {topic_id} is about {topic.token}, the path says {token}")
        return topic
