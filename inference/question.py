"""What may be asked over HTTP, and the one line that says why something else may not. No I/O."""

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

from core.errors import WorkerError
from core.topic import Topic

LARGEST_NUMBER = 2**63 - 1  # block heights are int64 on the chain
LONGEST_ECHO = 60
NAMES = ("topic", "height", "network", "wait")  # of the query's parameters
MOST_NAMES = 20  # that are looked at
NODE, HAND = "node", "hand"  # who asks
NODES = (b"go-http-client/", b"birnn-dry-run/")  # how the User-Agent of the official node, and of ours, begins


class BadQuestion(WorkerError):
    """The question itself is wrong; asking it again will not help.

    Args:
        status: 400 for a question that cannot be understood, 404 for a topic or token that is not configured.
        message: one line.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def asker(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Who asks, told by the User-Agent: NODE, or HAND for curl, a browser and whatever else is not the node.

    A node of another make is known by "allora" in its name; a question without a name counts as the node's.

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


def refuse_misspelt(names: Collection[str]) -> None:
    """Refuse a name that is nearly one of ours which is not given; others are the node's own, and nobody's business.

    Raises:
        BadQuestion: says which was probably meant.

    >>> refuse_misspelt(["topic", "x", "topicId"])
    """
    for name in list(names)[:MOST_NAMES]:
        meant = get_close_matches(name.lower(), NAMES, n=1, cutoff=0.8) if name not in NAMES else []
        if meant and meant[0] not in names:
            raise BadQuestion(400, f"{echo(name)} is no parameter of a question; did you mean {meant[0]}?")


def echo(text: str) -> str:
    """What was asked, safe to send back: one line, printable, short.

    >>> echo("ETH\\n"), len(echo("9" * 5000))
    ("'ETH\\\\n'", 63)
    """
    shown = ascii(text[: LONGEST_ECHO + 1])
    return shown if len(shown) <= LONGEST_ECHO + 2 else shown[:LONGEST_ECHO] + "..."


def network_name(texts: Sequence[str]) -> str | None:
    """The value of ``network=``, None when it is not given.

    Raises:
        BadQuestion: given twice.

    >>> network_name(["allora-testnet-1"])
    'allora-testnet-1'
    """
    if len(texts) > 1:
        raise BadQuestion(400, f"network is given {len(texts)} times; give it once")
    return texts[0] if texts else None


class Questions:
    """The configured topics, by the names under which the nodes ask for them."""

    def __init__(self, topics: Iterable[Topic]) -> None:
        self.topics = tuple(topics)
        self._by_id: dict[int, list[Topic]] = {}
        self._by_token: dict[str, list[Topic]] = {}
        for topic in self.topics:
            self._by_id.setdefault(topic.topic_id, []).append(topic)
            self._by_token.setdefault(topic.token, []).append(topic)

    def topic(self, token: str, topic_id: int | None, network: str | None = None) -> Topic:
        """The topic that is asked for.

        Args:
            token: as the path names it.
            topic_id: as the query names it; may be None where the token has one topic only.
            network: likewise; may be None where one configured network has that topic id.
        Raises:
            BadQuestion: 404 for a token, topic or network that is not configured, 400 for those that do not fit
                together and for what several topics could answer; it lists them.
        """
        named = self._by_token.get(token)
        if named is None:
            tokens = ", ".join(sorted(self._by_token))
            raise BadQuestion(404, f"token {echo(token)} is in no configured topic; configured are {tokens}")
        found = named if topic_id is None else self._by_id.get(topic_id, [])
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
