"""Versions are whole or refused by name; champions are swapped in one; kills leave nothing behind."""

import hashlib
import json
import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError, IncompatibleModel
from core.topic import Target, Topic, Volatility
from model.heads import Head, Kind
from model.registry.artefact import Artefact, Manifest, read_artefact, sealed
from model.registry.champions import check
from model.registry.versions import Registry
from model.windows import Split
from tests.fakes.node import NO_ORIGIN
from tests.process import kill_writer

CREATED_MS = 1_795_337_100_000  # 2026-11-22 08:45:00 UTC
SPLIT = {
    f"{part}_{edge}_ms": 1000 * number
    for number, (part, edge) in enumerate(product(("train", "validate", "judge"), ("start", "end")))
}


def price_topic(topic_id: int, token: str, horizon_min: int) -> Topic:
    """A price topic of the main network."""
    return Topic(
        topic_id=topic_id,
        token=token,
        symbol=f"{token}USDT",
        target=Target.PRICE,
        horizon_min=horizon_min,
        network="allora-mainnet-1",
    )


ETH_10M = price_topic(1, "ETH", 10)
BTC_5M = price_topic(14, "BTC", 5)


def artefact(number: int = 0, panel: str = "minute", created_ms: int = CREATED_MS) -> Artefact:
    """An artefact whose bytes tell which one it is; the registry does not look into a network."""
    return Artefact(
        onnx=f"network {number}".encode() * 1000,
        weights=f"weights {number}".encode() * 500,
        manifest=Manifest(
            panel=panel,
            interval_ms=60_000,
            lookback=64,
            feature_version=1,
            features=("return",),
            heads=("return-5m", "return-10m"),
            symbols=("BTCUSDT", "ETHUSDT"),
            calibration={},
            volatility="sample standard deviation",
            split=Split(**SPLIT),
            rows=1000,
            seed=number,
            training={"epochs": 6},
            libraries={"torch": "2"},
            origin=NO_ORIGIN,
            created_ms=created_ms,
            scores=({"topic_id": 1, "relative_to_naive": 0.7},),
        ),
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a published version."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    return registry.path(registry.publish(artefact()))


def test_what_was_published_and_promoted_is_read_back(registry: Registry) -> None:
    assert registry.champions() == {}
    assert registry.stamp() is None
    assert registry.versions() == ()
    version = registry.publish(artefact(7))
    assert version.startswith("minute-20261122T084500Z-")
    registry.promote([ETH_10M, BTC_5M], version, now_ms=5)
    champions = registry.champions()
    assert set(champions) == {"allora-mainnet-1/1", "allora-mainnet-1/14"}
    assert (champions[ETH_10M.key].version, champions[ETH_10M.key].since_ms, champions[ETH_10M.key].previous) == (
        version,
        5,
        None,
    )
    opened = registry.open(version, champions[ETH_10M.key].manifest_sha256)
    assert (opened.onnx, opened.weights, opened.version) == (artefact(7).onnx, artefact(7).weights, version)
    assert opened.manifest == artefact(7).manifest.model_copy(update={"files": opened.manifest.files})
    check(ETH_10M, champions[ETH_10M.key])


def test_an_equal_artefact_is_published_once_and_a_damaged_one_is_replaced(registry: Registry) -> None:
    version = registry.publish(artefact())
    assert registry.publish(artefact()) == version
    (registry.path(version) / "model.onnx").write_bytes(b"torn")
    assert registry.publish(artefact()) == version
    assert registry.open(version).onnx == artefact().onnx
    assert [entry.name for entry in registry.path(version).parent.iterdir()] == [version]


def test_promotion_keeps_other_topics_and_remembers_the_version_before(registry: Registry) -> None:
    first, second = registry.publish(artefact(1)), registry.publish(artefact(2))
    registry.promote([ETH_10M, BTC_5M], first, now_ms=1)
    registry.promote([ETH_10M], second, now_ms=2)
    registry.promote([ETH_10M], second, now_ms=3)
    champions = registry.champions()
    assert [(c.version, c.previous, c.since_ms) for c in champions.values()] == [(second, first, 2), (first, None, 1)]


def test_each_swap_moves_the_stamp(registry: Registry) -> None:
    versions = [registry.publish(artefact(number)) for number in range(2)]
    stamps = []
    for turn in range(6):
        registry.promote([ETH_10M], versions[turn % 2], now_ms=turn)
        stamps.append(registry.stamp())
    assert all(a != b for a, b in pairwise(stamps))


def write_manifest(folder: Path, raw: bytes) -> Path:
    """Give the version another manifest, and the name that fits it."""
    (folder / "manifest.json").write_bytes(raw)
    return folder.rename(folder.with_name(f"{folder.name[:-6]}{hashlib.sha256(raw).hexdigest()[:6]}"))


def manifest_says(**changes: object) -> Callable[[Path], Path]:
    """A version that is whole, but was written by code that meant something else."""

    def damage(folder: Path) -> Path:
        manifest = json.loads((folder / "manifest.json").read_text())
        return write_manifest(folder, json.dumps(manifest | changes).encode())

    return damage


def file_is(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def damage(folder: Path) -> Path:
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        return folder

    return damage


def without(name: str) -> Callable[[Path], Path]:
    def damage(folder: Path) -> Path:
        (folder / name).unlink()
        return folder

    return damage


def linked(folder: Path) -> Path:
    """The network is elsewhere: equal bytes today, anything tomorrow."""
    (folder / "model.onnx").rename(folder.parent / "elsewhere")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere")
    return folder


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(file_is("model.onnx", lambda c: c[:-1]), r"model.onnx: torn: has \d+ bytes", id="network cut off"),
        pytest.param(file_is("model.onnx", lambda _: b""), "model.onnx: torn: has 0 bytes", id="network empty"),
        pytest.param(file_is("model.onnx", flipped), "model.onnx: altered", id="network with a flipped bit"),
        pytest.param(file_is("weights.safetensors", flipped), "weights.safetensors: altered", id="weights altered"),
        pytest.param(
            file_is("weights.safetensors", lambda c: c + b"x"), "weights.safetensors: torn", id="weights longer"
        ),
        pytest.param(without("model.onnx"), "model.onnx: is missing", id="no network"),
        pytest.param(without("weights.safetensors"), "weights.safetensors: is missing", id="no weights"),
        pytest.param(without("manifest.json"), "manifest.json: is missing", id="no manifest"),
        pytest.param(file_is("manifest.json", flipped), "manifest.json: altered", id="manifest altered"),
        pytest.param(file_is("manifest.json", lambda c: c[:200]), "manifest.json: altered", id="manifest cut off"),
        pytest.param(file_is("manifest.json", lambda _: b" " * (5 << 20)), "at most", id="manifest of five megabytes"),
        pytest.param(
            lambda f: write_manifest(f, b"<html>busy</html>"), "manifest.json: content: Invalid JSON", id="no JSON"
        ),
        pytest.param(lambda f: write_manifest(f, b"[]"), "manifest.json: content", id="JSON, but no object"),
        pytest.param(manifest_says(schema_version=3), "schema_version: .*was '3'", id="foreign schema version"),
        pytest.param(manifest_says(schema_version=1), "schema_version.*'1'.*train anew", id="older schema version"),
        pytest.param(manifest_says(surprise=1), "surprise: Extra inputs", id="unknown field"),
        pytest.param(manifest_says(lookback="64"), "lookback: .*integer", id="number written as text"),
        pytest.param(manifest_says(heads=[]), "heads: ", id="no heads"),
        pytest.param(manifest_says(files={}), "files must be model.onnx and weights", id="files not listed"),
        pytest.param(manifest_says(split=SPLIT | {"judge_end_ms": None}), "split.judge_end_ms: ", id="no judged range"),
        pytest.param(manifest_says(split=SPLIT | {"x": 1}), "split.x: ", id="unknown part of the split"),
        pytest.param(lambda f: f.rename(f.parent / "latest"), "'latest' is not a version", id="name that is no id"),
        pytest.param(lambda f: f.rename(f.with_name(f"{f.name[:-6]}000000")), "manifest.json: altered", id="other id"),
        pytest.param(lambda f: f.parent / "minute-20200101T000000Z-000000", "cannot be read", id="folder missing"),
        pytest.param(linked, "model.onnx: cannot be read", id="network is a link"),
    ],
)
def test_damage_is_refused_and_named(
    version: Path, tmp_path: Path, damage: Callable[[Path], Path], reason: str
) -> None:
    folder = Path(shutil.copytree(version, tmp_path / version.name))
    with pytest.raises(IncompatibleModel, match=reason) as refusal:
        read_artefact(damage(folder))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["run.py", "model.pkl", ".hidden", "__pycache__"])
def test_what_does_not_belong_in_a_version_is_refused(version: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(version, tmp_path / version.name))
    (folder / name).mkdir()
    with pytest.raises(IncompatibleModel, match=f"{name}: does not belong"):
        read_artefact(folder)


def test_a_manifest_other_than_the_promoted_one_is_refused(registry: Registry) -> None:
    version = registry.publish(artefact())
    with pytest.raises(IncompatibleModel, match=r"manifest.json: altered: .* published was 000000000000"):
        registry.open(version, "0" * 64)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["model.onnx", "weights.safetensors", "manifest.json"]),
    where=st.floats(0, 1),
    bit=st.integers(0, 7),
)
def test_no_flipped_bit_goes_unnoticed(version: Path, name: str, where: float, bit: int) -> None:
    whole = (version / name).read_bytes()
    at = min(int(where * len(whole)), len(whole) - 1)
    try:
        (version / name).write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
        with pytest.raises(IncompatibleModel, match=name):
            read_artefact(version)
    finally:
        (version / name).write_bytes(whole)
    assert read_artefact(version).version == version.name


@pytest.mark.parametrize(
    "version",
    [
        "..",
        "../minute-20261122T084500Z-1a2b3c",
        "minute-20261122T084500Z-1a2b3c/..",
        "/etc",
        "",
        ".tmp-x",
        "minute-20261122T084500Z-1a2b3c\n",
    ],
)
def test_an_id_cannot_lead_out_of_the_folder(registry: Registry, version: str) -> None:
    with pytest.raises(IncompatibleModel, match="is not a version"):
        registry.open(version)
    with pytest.raises(IncompatibleModel, match="is not a version"):
        registry.promote([ETH_10M], version, now_ms=0)


def test_a_number_that_is_not_finite_is_not_published(registry: Registry) -> None:
    manifest = artefact().manifest.model_copy(update={"scores": ({"loss": float("nan")},)})
    with pytest.raises(IncompatibleModel, match="every number must be finite"):
        registry.publish(replace(artefact(), manifest=manifest))
    assert registry.versions() == ()


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        pytest.param(replace(ETH_10M, symbol="SOLUSDT"), "return-10m of SOLUSDT", id="symbol"),
        pytest.param(replace(ETH_10M, horizon_min=20), "return-20m of ETHUSDT", id="horizon"),
        pytest.param(replace(ETH_10M, target=Target.VOLATILITY), "volatility-10m of ETHUSDT", id="target"),
    ],
)
def test_a_version_is_not_promoted_for_what_it_was_not_trained_for(
    registry: Registry, topic: Topic, reason: str
) -> None:
    version = registry.publish(artefact())
    with pytest.raises(IncompatibleModel, match=reason):
        registry.promote([BTC_5M, topic], version, now_ms=0)
    assert registry.champions() == {}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(ETH_10M, network="allora-testnet-1"), id="network"),
        pytest.param(replace(ETH_10M, network=None), id="network not given"),
        pytest.param(price_topic(1, "BTC", 10), id="symbol"),
        pytest.param(replace(ETH_10M, target=Target.LOG_RETURN), id="target"),
        pytest.param(replace(ETH_10M, horizon_min=5), id="horizon"),
    ],
)
def test_a_champion_of_another_question_is_refused_and_then_forgotten(registry: Registry, other: Topic) -> None:
    first, second = registry.publish(artefact(1)), registry.publish(artefact(2))
    registry.promote([ETH_10M], first, now_ms=1)
    with pytest.raises(
        IncompatibleModel, match=r"topic \S*1: champion minute-\S+ was chosen for ETH price 10m of ETHUSDT"
    ):
        check(other, registry.champions()[ETH_10M.key])
    registry.promote([other], second, now_ms=2)
    check(other, registry.champions()[other.key])
    assert registry.champions()[other.key].previous is None


def test_another_measure_of_volatility_is_another_question(registry: Registry) -> None:
    asked = replace(ETH_10M, target=Target.VOLATILITY)
    heads = tuple(Head(kind, 10).key for kind in (Kind.VOLATILITY, Kind.RMS))
    made = artefact()
    version = registry.publish(replace(made, manifest=made.manifest.model_copy(update={"heads": heads})))
    registry.promote([asked], version, now_ms=1)
    check(asked, registry.champions()[asked.key])
    other = replace(asked, volatility=Volatility.RMS_HORIZON)
    words = r"chosen for ETH volatility \(std\) 10m .* asks for ETH volatility \(rms\) 10m"
    with pytest.raises(IncompatibleModel, match=words):
        check(other, registry.champions()[other.key])
    registry.promote([other], version, now_ms=2)
    check(other, registry.champions()[other.key])


@pytest.mark.parametrize("before", [Volatility.STD, Volatility.STD_ANNUAL])
def test_another_unit_of_volatility_keeps_its_champion(registry: Registry, before: Volatility) -> None:
    asked = replace(ETH_10M, target=Target.VOLATILITY, volatility=before)
    made = artefact()
    manifest = made.manifest.model_copy(update={"heads": (Head(Kind.VOLATILITY, 10).key,)})
    registry.promote([asked], registry.publish(replace(made, manifest=manifest)), now_ms=1)
    check(replace(asked, volatility=Volatility.STD_HORIZON), registry.champions()[asked.key])


def test_a_loss_that_changed_keeps_its_champion(registry: Registry) -> None:
    registry.promote([ETH_10M], registry.publish(artefact()), now_ms=1)
    check(replace(ETH_10M, loss="mae"), registry.champions()[ETH_10M.key])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"schema_version": 2, "champions": {"1": {"version": "minu', id="cut off"),
        pytest.param(bytes(512), id="zeros of a lost block"),
        pytest.param(b'{"schema_version": 1, "champions": {}}', id="schema version of topic ids alone"),
        pytest.param(b'{"schema_version": 2, "champions": {"1": {"version": "minute"}}}', id="fields missing"),
    ],
)
def test_a_damaged_champions_file_is_refused_and_renewed_by_the_next_promotion(
    registry: Registry, content: bytes
) -> None:
    version = registry.publish(artefact())
    champions = registry.root / "champions.json"
    champions.write_bytes(content)
    with pytest.raises(IncompatibleModel, match=r"champions\.json: "):
        registry.champions()
    with pytest.raises(IncompatibleModel, match=r"champions\.json: "):
        registry.purge(keep=0)
    assert registry.versions() == (version,)
    registry.promote([ETH_10M], version, now_ms=1)
    assert set(registry.champions()) == {ETH_10M.key}
    assert champions.with_name("champions.json.damaged").read_bytes() == content


def test_a_champion_cannot_name_a_file_outside(registry: Registry) -> None:
    version = registry.publish(artefact())
    registry.promote([ETH_10M], version, now_ms=1)
    champions = registry.root / "champions.json"
    champions.write_text(champions.read_text().replace(version, "../../elsewhere"))
    with pytest.raises(IncompatibleModel, match=r"'\.\./\.\./elsewhere' is not a version"):
        registry.champions()


def test_purge_keeps_the_newest_of_each_panel_and_every_champion_and_its_previous(registry: Registry) -> None:
    minute = [registry.publish(artefact(n, created_ms=CREATED_MS + n * 60_000)) for n in range(6)]
    hour = [registry.publish(artefact(n, "hour", CREATED_MS + n * 60_000)) for n in range(3)]
    registry.promote([ETH_10M], minute[0], now_ms=1)
    registry.promote([ETH_10M, BTC_5M], minute[2], now_ms=2)
    assert registry.purge(keep=1) == (*hour[:2], minute[1], minute[3], minute[4])
    assert registry.versions() == (hour[2], minute[0], minute[2], minute[5])
    assert registry.purge(keep=1) == ()
    assert registry.purge(keep=0) == (hour[2], minute[5])
    assert registry.open(registry.champions()[ETH_10M.key].version).manifest.seed == 2


def test_what_is_no_version_is_neither_listed_nor_purged(registry: Registry) -> None:
    version = registry.publish(artefact())
    stranger = registry.root / "versions" / "lost+found"
    stranger.mkdir()
    assert registry.versions() == (version,)
    assert registry.purge(keep=0) == (version,)
    assert stranger.is_dir()


def test_only_one_writes_and_reading_needs_no_lock(registry: Registry) -> None:
    other = Registry(registry.root)
    with registry.writing():
        version = registry.publish(artefact())
        for attempt in (
            lambda: other.publish(artefact()),
            lambda: other.promote([ETH_10M], version, now_ms=0),
            lambda: other.purge(keep=0),
        ):
            with pytest.raises(ConfigError, match="another updater is writing here"):
                attempt()
        assert other.open(version).version == version
    other.promote([ETH_10M], version, now_ms=0)


def test_a_failed_publication_leaves_nothing(registry: Registry) -> None:
    version, _ = sealed(artefact())
    with registry.writing():
        blocked = registry.root / "versions" / f".tmp-{version}"
        blocked.mkdir()
        with pytest.raises(FileExistsError):
            registry.publish(artefact())
        assert list((registry.root / "versions").iterdir()) == []
    assert registry.publish(artefact()) == version


def test_a_reader_never_meets_a_mixed_or_missing_champion(registry: Registry) -> None:
    versions = {registry.publish(artefact(number)): artefact(number).onnx for number in range(2)}
    names = list(versions)
    registry.promote([ETH_10M, BTC_5M], names[0], now_ms=0)
    finished, failures, seen = threading.Event(), [], set()

    def read() -> None:
        reader = Registry(registry.root)
        while not finished.is_set():
            try:
                champions = reader.champions()
                assert champions[ETH_10M.key].version == champions[BTC_5M.key].version
                opened = reader.open(champions[ETH_10M.key].version, champions[ETH_10M.key].manifest_sha256)
                assert opened.onnx == versions[opened.version]
                seen.add(opened.version)
            except (AssertionError, IncompatibleModel, KeyError) as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    turn = 0
    while not failures and (turn < 100 or len(seen) < 2):
        turn += 1
        registry.promote([ETH_10M, BTC_5M], names[turn % 2], now_ms=turn)
    finished.set()
    for thread in readers:
        thread.join()
    assert failures == []


ENDLESS_WRITER = """
import itertools, sys
from pathlib import Path
from tests.model.registry.test_versions import BTC_5M, CREATED_MS, ETH_10M, artefact
from model.registry.versions import Registry

registry = Registry(Path(sys.argv[1]))
first = int(sys.argv[2])
print("ready", flush=True)
for number in itertools.count(first):
    version = registry.publish(artefact(number, created_ms=CREATED_MS + number * 1000))
    registry.promote([ETH_10M, BTC_5M], version, now_ms=number)
    registry.purge(keep=1)
"""


def test_a_kill_at_any_moment_leaves_a_usable_registry(registry: Registry) -> None:
    moments = random.Random(0)
    version = registry.publish(artefact())
    registry.promote([ETH_10M, BTC_5M], version, now_ms=0)
    for turn in range(1, 9):
        kill_writer(ENDLESS_WRITER, str(registry.root), str(turn * 100_000), moments=moments)
        champions = registry.champions()
        assert champions[ETH_10M.key].version == champions[BTC_5M.key].version
        opened = registry.open(champions[ETH_10M.key].version, champions[ETH_10M.key].manifest_sha256)
        assert opened.onnx == artefact(opened.manifest.seed).onnx
        for left in registry.versions():
            registry.open(left)
        following = registry.publish(artefact(turn))
        registry.promote([ETH_10M, BTC_5M], following, now_ms=turn)
        registry.purge(keep=1)
        assert not list(registry.root.rglob(".tmp-*"))
