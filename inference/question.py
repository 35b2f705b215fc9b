"""The questions that may be asked over HTTP, and a one-line fault for any other question. No I/O."""

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

from core.errors import WorkerError
from core.topic import Topic

LARGEST_NUMBER = 2**63 - 1  # block heights are int64 on the chain
LONGEST_ECHO = 60
NAMES = ("topic", "height", "network", "wait")  # of the query's parameters
MOST_NAMES = 20  # parameters that are checked
NODE, HAND = "node", "hand"  # who asks
NODES = (b"go-http-client/", b"birnn-dry-run/")  # beginnings of the official node's User-Agent, and of ours


class BadQuestion(WorkerError):
    """The question itself is wrong: the same question will fail again.

    Args:
        status: 400 for a question that cannot be understood, 404 for a topic or token that is not configured.
        message: one line.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def asker(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return who asks, by the User-Agent: NODE, or HAND for curl, a browser and other programs.

    Other makes of the node have "allora" in the name. A question without a User-Agent counts as the node's.

    Args:
        headers: names in lower case.

    >>> asker([(b"host", b"x"), (b"user-agent", b"curl/8.5.0")]), asker([(b"user-agent", b"Go-http-client/1.1")])
    ('hand', 'node')
    """
    for name, value in headers:
        if name == b"user-agent":
            agent = value.lower()
            return NODE if not agent or agent.startswith(NODES) or b"allora" in agent else HAND
    return NODE


def whole_number(name: str, texts: Sequence[str]) -> int | None:
    """Return the value of a query parameter; None if it is not given.

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


def refuse_misspelt(names: Collection[str]) -> None:
    """Refuse a misspelt parameter, unless the right one is given too. Other unknown names are the node's own.

    Raises:
        BadQuestion: names the parameter that was probably meant.

    >>> refuse_misspelt(["topic", "x", "topicId"])
    """
    for name in list(names)[:MOST_NAMES]:
        meant = get_close_matches(name.lower(), NAMES, n=1, cutoff=0.8) if name not in NAMES else []
        if meant and meant[0] not in names:
            raise BadQuestion(400, f"{echo(name)} is no parameter of a question; did you mean {meant[0]}?")


def echo(text: str) -> str:
    """Return a part of the question in a form that is safe to send back: printable, short, on one line.

    >>> echo("ETH\\n"), len(echo("9" * 5000))
    ("'ETH\\\\n'", 63)
    """
    shown = ascii(text[: LONGEST_ECHO + 1])
    return shown if len(shown) <= LONGEST_ECHO + 2 else shown[:LONGEST_ECHO] + "..."


def network_name(texts: Sequence[str]) -> str | None:
    """Return the value of ``network=``; None if it is not given.

    Raises:
        BadQuestion: given twice.

    >>> network_name(["allora-testnet-1"])
    'allora-testnet-1'
    """
    if len(texts) > 1:
        raise BadQuestion(400, f"network is given {len(texts)} times; give it once")
    return texts[0] if texts else None


class Questions:
    """The configured topics, found by the names that nodes use."""

    def __init__(self, topics: Iterable[Topic]) -> None:
        self.topics = tuple(topics)
        self._by_id: dict[int, list[Topic]] = {}
        self._by_token: dict[str, list[Topic]] = {}
        for topic in self.topics:
            self._by_id.setdefault(topic.topic_id, []).append(topic)
            self._by_token.setdefault(topic.token, []).append(topic)

    def topic(self, token: str, topic_id: int | None, network: str | None = None) -> Topic:
        """Return the topic of a question.

        Args:
            token: from the path.
            topic_id: from the query; may be None if the token has one topic only.
            network: from the query; may be None if one configured network has that topic id.
        Raises:
            BadQuestion: 404 if token, topic or network is not configured. 400 if they do not fit together, or if
                several topics could be meant; the message lists them.
        """
        topics_of_token = self._by_token.get(token)
        if topics_of_token is None:
            tokens = ", ".join(sorted(self._by_token))
            raise BadQuestion(404, f"token {echo(token)} is in no configured topic; configured are {tokens}")
        found = topics_of_token if topic_id is None else self._by_id.get(topic_id, [])
        if not found:
            ids = ", ".join(str(known) for known in sorted(self._by_id))
            raise BadQuestion(404, f"topic {topic_id} is not configured; configured are {ids}")
        if network is not None:
            networks = ", ".join(sorted({topic.network or "one without a name" for topic in found}))
            found = [topic for topic in found if topic.network == network]
            if not found:
                what = token if topic_id is None else f"topic {topic_id}"
                raise BadQuestion(404, f"{what} is not configured for network {echo(network)}, but for {networks}")
        if topic_id is None and len(found) > 1:
            raise BadQuestion(400, f"{token} has several topics; add ?topic= with one of {_choices(found)}")
        if len(found) > 1:
            raise BadQuestion(400, f"topic {topic_id} is of several networks; add {_networks(found)}")
        topic = found[0]
        if topic.token != token:
            raise BadQuestion(400, f"topic {topic.key} is about {topic.token}, the path says {token}")
        return topic


def _choices(topics: Sequence[Topic]) -> str:
    several = len({topic.network for topic in topics}) > 1
    return ", ".join(
        f"{topic.topic_id} ({topic.target} {topic.horizon}{f', {topic.network}' if several else ''})"
        for topic in topics
    )


def _networks(topics: Sequence[Topic]) -> str:
    return " or ".join(f"&network={topic.network} ({topic.token} {topic.target} {topic.horizon})" for topic in topics)
