"""A champion that had to go: remembered with the reason, never half gone, and not back by itself."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ConfigError, IncompatibleModel
from core.topic import Topic
from model.registry.versions import Registry
from tests.model.registry.test_versions import BTC_5M, ETH_10M, artefact
from tests.process import kill_writer

WHY = "worse than the naive forecast on its last 2000 rows: p 0.012"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def served(registry: Registry) -> tuple[str, str]:
    """A topic that two versions have served, one after the other; the newer one serves another topic as well."""
    first, second = registry.publish(artefact(1)), registry.publish(artefact(2))
    registry.promote([ETH_10M], first, now_ms=1)
    registry.promote([ETH_10M, BTC_5M], second, now_ms=2)
    return first, second


def test_back_to_the_version_before(registry: Registry, served: tuple[str, str]) -> None:
    first, second = served
    registry.demote(ETH_10M, WHY, 3, back_to=first)
    champions = registry.champions()
    assert (champions[ETH_10M.key].version, champions[ETH_10M.key].since_ms) == (first, 3)
    assert champions[ETH_10M.key].previous is None, "what was demoted is nobody's previous"
    assert champions[BTC_5M.key].version == second, "other topics keep theirs"
    (demotion,) = registry.demotions()[ETH_10M.key]
    assert (demotion.champion.version, demotion.champion.since_ms) == (second, 2)
    assert (demotion.demoted_ms, demotion.reason, demotion.successor) == (3, WHY, first)
    assert BTC_5M.key not in registry.demotions()


def test_back_to_the_naive_forecast(registry: Registry, served: tuple[str, str]) -> None:
    stamp = registry.stamp()
    registry.demote(ETH_10M, WHY, 3, back_to=None)
    assert registry.champions().keys() == {BTC_5M.key}
    assert registry.demotions()[ETH_10M.key][-1].successor is None
    assert registry.stamp() != stamp, "inference notices"


def test_what_was_demoted_does_not_come_back(registry: Registry, served: tuple[str, str]) -> None:
    first, second = served
    registry.demote(ETH_10M, WHY, 3, back_to=first)
    registry.demote(ETH_10M, "and again", 4, back_to=None)
    for version, why in ((second, "worse than the naive"), (first, "and again")):
        with pytest.raises(IncompatibleModel, match=f"{version} was demoted 1970-.*{why}"):
            registry.promote([BTC_5M, ETH_10M], version, now_ms=5)
    assert ETH_10M.key not in registry.champions()
    registry.promote([BTC_5M], first, now_ms=6)
    third = registry.publish(artefact(3))
    registry.promote([ETH_10M], third, now_ms=7)
    assert registry.champions()[ETH_10M.key].previous is None
    assert [one.champion.version for one in registry.demotions()[ETH_10M.key]] == [second, first]


def test_demotions_are_forgotten_with_their_versions(registry: Registry, served: tuple[str, str]) -> None:
    first, second = served
    registry.demote(ETH_10M, WHY, 3, back_to=first)
    registry.promote([BTC_5M], registry.publish(artefact(3)), now_ms=4)
    registry.promote([BTC_5M], registry.publish(artefact(4)), now_ms=5)
    assert second in registry.purge(keep=0)
    registry.demote(ETH_10M, WHY, 6, back_to=None)
    assert [one.champion.version for one in registry.demotions()[ETH_10M.key]] == [first]


def none_there(registry: Registry, served: tuple[str, str]) -> tuple[Topic, str | None]:
    return replace(ETH_10M, topic_id=77), None


def another_question(registry: Registry, served: tuple[str, str]) -> tuple[Topic, str | None]:
    return replace(ETH_10M, horizon_min=20), None


def torn(registry: Registry, served: tuple[str, str]) -> tuple[Topic, str | None]:
    (registry.path(served[0]) / "model.onnx").write_bytes(b"torn")
    return ETH_10M, served[0]


def itself(registry: Registry, served: tuple[str, str]) -> tuple[Topic, str | None]:
    return ETH_10M, served[1]


def not_trained_for_it(registry: Registry, served: tuple[str, str]) -> tuple[Topic, str | None]:
    other = artefact(9)
    manifest = other.manifest.model_copy(update={"symbols": ("SOLUSDT",)})
    return ETH_10M, registry.publish(replace(other, manifest=manifest))


@pytest.mark.parametrize("case", [none_there, another_question, torn, itself, not_trained_for_it])
def test_a_demotion_that_cannot_be_changes_nothing(
    registry: Registry, served: tuple[str, str], case: Callable[[Registry, tuple[str, str]], tuple[Topic, str | None]]
) -> None:
    topic, back_to = case(registry, served)
    before = (registry.root / "champions.json").read_bytes()
    with pytest.raises(IncompatibleModel):
        registry.demote(topic, WHY, 3, back_to=back_to)
    assert (registry.root / "champions.json").read_bytes() == before


def test_a_damaged_file_is_not_demoted_in(registry: Registry, served: tuple[str, str]) -> None:
    (registry.root / "champions.json").write_bytes(b"{")
    with pytest.raises(IncompatibleModel, match=r"champions\.json: "):
        registry.demote(ETH_10M, WHY, 3, back_to=None)
    with pytest.raises(IncompatibleModel, match=r"champions\.json: "):
        registry.demotions()


def test_a_file_without_demotions_is_read(registry: Registry, served: tuple[str, str]) -> None:
    file = registry.root / "champions.json"
    content = json.loads(file.read_bytes())
    del content["demotions"]
    file.write_text(json.dumps(content))
    assert registry.champions().keys() == {ETH_10M.key, BTC_5M.key}
    assert registry.demotions() == {}


def test_only_one_demotes(registry: Registry, served: tuple[str, str]) -> None:
    with registry.writing(), pytest.raises(ConfigError, match="another updater is writing here"):
        Registry(registry.root).demote(ETH_10M, WHY, 3, back_to=None)


ENDLESS_DEMOTER = """
import itertools, sys
from pathlib import Path
from tests.model.registry.test_versions import BTC_5M, CREATED_MS, ETH_10M, artefact
from model.registry.versions import Registry

registry = Registry(Path(sys.argv[1]))
print("ready", flush=True)
for number in itertools.count(int(sys.argv[2])):
    for _ in range(2):
        before = registry.champions().get(ETH_10M.key)
        version = registry.publish(artefact(number, created_ms=CREATED_MS + number * 1000))
        registry.promote([ETH_10M, BTC_5M], version, now_ms=number)
        number += 50_000
    registry.demote(ETH_10M, "worse", number, back_to=registry.champions()[ETH_10M.key].previous)
    if number % 2:
        registry.demote(ETH_10M, "worse still", number, back_to=None)
    registry.purge(keep=1)
"""


def test_a_kill_at_any_moment_leaves_the_champion_or_the_demotion_whole(registry: Registry) -> None:
    moments, demoted = random.Random(0), 0
    for turn in range(1, 9):
        kill_writer(ENDLESS_DEMOTER, str(registry.root), str(turn * 100_000), moments=moments)
        champions, demotions = registry.champions(), registry.demotions().get(ETH_10M.key, ())
        demoted += len(demotions)
        for champion in champions.values():
            registry.open(champion.version, champion.manifest_sha256)
        if ETH_10M.key in champions:
            assert champions[ETH_10M.key].version not in {one.champion.version for one in demotions}
        elif BTC_5M.key in champions:
            assert demotions[-1].successor is None, "it has no champion because the last one was demoted to naive"
        following = registry.publish(artefact(turn))
        registry.promote([ETH_10M, BTC_5M], following, now_ms=turn)
        registry.demote(ETH_10M, "worse", turn, back_to=None)
        registry.purge(keep=1)
        assert not list(registry.root.rglob(".tmp-*"))
    assert demoted > 0, "some were killed after a demotion"
