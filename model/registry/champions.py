"""Which version serves which topic, and which were demoted: the content of ``champions.json``."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from core.clock import iso
from core.errors import IncompatibleModel
from core.topic import Target, Topic, Volatility, horizon_text
from model.heads import head_of
from model.registry.artefact import Artefact, Sha256, StrictModel

# What a champion was chosen for: network, token, symbol, target, measure of volatility, horizon in minutes. The unit of
# a volatility is not part of it: a network forecasts per minute, and the answer is brought to the topic's unit.
Question = tuple[str | None, str, str, Target, str, int]


class Champion(StrictModel):
    """The version that serves a topic, and the topic it was chosen for."""

    version: str
    manifest_sha256: Sha256
    since_ms: NonNegativeInt
    previous: str | None  # the version that served the same topic before
    network: str | None  # chain id
    token: str
    symbol: str
    target: Target
    horizon_min: PositiveInt
    volatility: Volatility = Volatility.STD  # the meaning of files older than this field

    def serves(self, topic: Topic) -> bool:
        """True if the champion was chosen for this very question."""
        return _question(self) == _question(topic)


class Demotion(StrictModel):
    """A champion that was taken from its topic, and why. Its version does not come back to that topic."""

    champion: Champion  # as it was
    demoted_ms: NonNegativeInt
    reason: str
    successor: str | None  # the version before it, which serves again; None: the naive forecast


class ChampionsFile(StrictModel):
    """The whole file."""

    schema_version: Literal[2]  # 1 was keyed by the topic's id alone
    champions: dict[str, Champion]  # by Topic.key
    demotions: dict[str, tuple[Demotion, ...]] = Field(default_factory=dict)  # by Topic.key, newest last


def check(topic: Topic, champion: Champion) -> None:
    """Refuse a champion that was chosen for another question under the same key.

    Raises:
        IncompatibleModel: names both questions.
    """
    if not champion.serves(topic):
        raise IncompatibleModel(
            f"topic {topic.key}: champion {champion.version} was chosen for {_words(_question(champion))}, "
            f"config.json asks for {_words(_question(topic))}; use another DATA_DIR or wait for the next training"
        )


def _question(asked: Topic | Champion) -> Question:
    return (asked.network, asked.token, asked.symbol, asked.target, asked.volatility.measure, asked.horizon_min)


def _words(question: Question) -> str:
    network, token, symbol, target, measure, horizon_min = question
    what = f"{target} ({measure})" if target is Target.VOLATILITY else target
    return f"{token} {what} {horizon_text(horizon_min)} of {symbol} on {network or 'a network not given'}"


def champion_of(topic: Topic, artefact: Artefact, now_ms: int, *, previous: str | None) -> Champion:
    """The entry of a version that serves a topic from ``now_ms`` on."""
    return Champion(
        version=artefact.version,
        manifest_sha256=artefact.manifest_sha256,
        since_ms=now_ms,
        previous=previous,
        network=topic.network,
        token=topic.token,
        symbol=topic.symbol,
        target=topic.target,
        horizon_min=topic.horizon_min,
        volatility=topic.volatility,
    )


def require_not_demoted(topic: Topic, version: str, content: ChampionsFile) -> None:
    """
    Raises:
        IncompatibleModel: the version was demoted in this topic; says when and why.
    """
    for demotion in content.demotions.get(topic.key, ()):
        if demotion.champion.version == version:
            raise IncompatibleModel(
                f"topic {topic.key}: {version} was demoted {iso(demotion.demoted_ms)} ({demotion.reason}); train anew"
            )


def require_trained_for(topic: Topic, artefact: Artefact) -> None:
    """
    Raises:
        IncompatibleModel: the version has no such symbol or head; names what it has.
    """
    head, manifest = head_of(topic).key, artefact.manifest
    if topic.symbol not in manifest.symbols or head not in manifest.heads:
        raise IncompatibleModel(
            f"topic {topic.key} needs {head} of {topic.symbol}; version {artefact.version} has "
            f"{', '.join(manifest.heads)} of {', '.join(manifest.symbols)}"
        )
