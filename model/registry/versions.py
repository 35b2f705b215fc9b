"""Published versions and champions: version folders are whole or absent, and ``champions.json`` is swapped as a whole.

``root/versions/ID/{model.onnx, weights.safetensors, manifest.json}`` and ``root/champions.json``. Any process may
read, a single process at a time writes. A writer killed at any moment leaves only ``.tmp-*``, which the next writer
removes.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from pydantic import ValidationError

from core.errors import ConfigError, IncompatibleModel
from core.files import replace_json, sync_folder
from core.process.commands import lock_holder, try_lock
from core.topic import Topic
from model.registry.artefact import (
    Artefact,
    first_fault,
    is_version_id,
    read_artefact,
    require_version_id,
    sealed,
)
from model.registry.champions import (
    Champion,
    ChampionsFile,
    Demotion,
    champion_of,
    check,
    require_not_demoted,
    require_trained_for,
)

TEMPORARY = ".tmp-"


class Registry:
    """The versions below ``root`` and the champions among them.

    Reading makes no files and takes no lock. ``publish``, ``promote``, ``demote`` and ``purge`` take the writer's
    lock while they run; ``writing()`` holds it over several of them. Write from a single thread at a time.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._versions = root / "versions"
        self._champions = root / "champions.json"
        self._holds_lock = False

    def path(self, version: str) -> Path:
        """Folder of a version, whether it exists or not.

        Raises:
            IncompatibleModel: ``version`` is not a version's id.
        """
        return self._versions / require_version_id(version)

    def versions(self) -> tuple[str, ...]:
        """Ids of the published versions, by panel and then by age, oldest first; other entries are left out."""
        if not self._versions.is_dir():
            return ()
        return tuple(sorted(entry.name for entry in self._versions.iterdir() if is_version_id(entry.name)))

    def open(self, version: str, manifest_sha256: str | None = None) -> Artefact:
        """A version, checked to the last byte.

        Raises:
            IncompatibleModel: missing, torn, altered or foreign; names the file.
        """
        return read_artefact(self.path(version), manifest_sha256)

    def champions(self) -> dict[str, Champion]:
        """Champion by ``Topic.key``; empty before the first promotion.

        Raises:
            IncompatibleModel: ``champions.json`` cannot be read or has another form.
        """
        return dict(self._read().champions)

    def demotions(self) -> dict[str, tuple[Demotion, ...]]:
        """Demotions by ``Topic.key``, the newest last.

        Raises:
            IncompatibleModel: as ``champions``.
        """
        return dict(self._read().demotions)

    def _read(self) -> ChampionsFile:
        try:
            raw = self._champions.read_bytes()
            content = ChampionsFile.model_validate_json(raw)
            gone = (demotion for several in content.demotions.values() for demotion in several)
            for champion in (*content.champions.values(), *(demotion.champion for demotion in gone)):
                require_version_id(champion.version)
                require_version_id(champion.previous or champion.version)
        except FileNotFoundError:
            return ChampionsFile(schema_version=2, champions={})
        except OSError as error:
            raise IncompatibleModel(f"{self._champions}: cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise IncompatibleModel(f"{self._champions}: {first_fault(error)}; the next promotion renews it") from error
        return content

    def stamp(self) -> tuple[int, int, int] | None:
        """A value that changes with every swap of ``champions.json``, by ``stat`` alone; None without the file."""
        try:
            status = self._champions.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer, and sweep the leftovers of killed writers; nested calls do nothing.

        Raises:
            ConfigError: another process writes to this folder.
        """
        if self._holds_lock:
            yield
            return
        self._versions.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.root / ".registry.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not try_lock(lock):
                raise ConfigError(
                    f"{self.root}: another updater is writing here: {lock_holder(lock)[1]}; stop it, or set "
                    "another DATA_DIR"
                )
            self._holds_lock = True
            self._sweep()
            yield
        finally:
            self._holds_lock = False
            os.close(lock)

    def publish(self, artefact: Artefact) -> str:
        """Write ``artefact`` as a new version, synced to disk before it gets its name.

        Returns:
            the version's id; publishing an equal artefact again returns the same id.
        Raises:
            ConfigError: another process writes. OSError: the disk is full or read-only; nothing is left behind.
        """
        version, files = sealed(artefact)
        folder, unfinished = self.path(version), self._versions / f"{TEMPORARY}{version}"
        with self.writing():
            if folder.exists():
                try:
                    return self.open(version).version
                except IncompatibleModel:
                    self._discard(version)
            try:
                unfinished.mkdir()
                for name, content in files.items():
                    with (unfinished / name).open("xb") as handle:
                        handle.write(content)
                        handle.flush()
                        os.fsync(handle.fileno())
                sync_folder(unfinished)
                unfinished.rename(folder)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            sync_folder(self._versions)
        return version

    def promote(self, topics: Iterable[Topic], version: str, now_ms: int) -> None:
        """Make ``version`` the champion of ``topics`` in one swap; other topics keep their champions.

        A ``champions.json`` that cannot be read is set aside as ``champions.json.damaged``.

        Raises:
            IncompatibleModel: the version cannot be used, or was not trained for a topic, or was demoted there;
                nothing changes.
            ConfigError: another process writes.
        """
        with self.writing():
            artefact = self.open(version)
            try:
                content = self._read()
            except IncompatibleModel:
                self._champions.replace(self._champions.with_name("champions.json.damaged"))
                content = ChampionsFile(schema_version=2, champions={})
            champions = dict(content.champions)
            for topic in topics:
                require_trained_for(topic, artefact)
                require_not_demoted(topic, version, content)
                before = champions.get(topic.key)
                if before and not before.serves(topic):
                    before = None
                if before and before.version == version:
                    continue
                champions[topic.key] = champion_of(topic, artefact, now_ms, previous=before.version if before else None)
            self._write(champions, content.demotions)

    def demote(self, topic: Topic, reason: str, now_ms: int, *, back_to: str | None) -> None:
        """Take a topic from its champion for good, and record the reason, in one swap.

        Args:
            reason: one line for people.
            back_to: the version that serves from now on, such as the champion's predecessor; None for the naive
                forecast.
        Raises:
            IncompatibleModel: the topic has no champion for this question, ``back_to`` cannot be used, was not
                trained for the topic or demoted there itself, or ``champions.json`` cannot be read; nothing changes.
            ConfigError: another process writes.
        """
        with self.writing():
            content = self._read()
            champions, known = dict(content.champions), content.demotions.get(topic.key, ())
            gone = champions.pop(topic.key, None)
            if gone is None:
                raise IncompatibleModel(f"topic {topic.key} has no champion to demote")
            check(topic, gone)
            newest = Demotion(champion=gone, demoted_ms=now_ms, reason=reason, successor=back_to)
            there = set(self.versions())
            kept = tuple(demotion for demotion in known if demotion.champion.version in there)
            content = content.model_copy(
                update={"demotions": dict(content.demotions) | {topic.key: (*kept, newest)}},
            )
            if back_to is not None:
                artefact = self.open(back_to)
                require_trained_for(topic, artefact)
                require_not_demoted(topic, back_to, content)
                champions[topic.key] = champion_of(topic, artefact, now_ms, previous=None)
            self._write(champions, content.demotions)

    def _write(self, champions: dict[str, Champion], demotions: dict[str, tuple[Demotion, ...]]) -> None:
        renewed = ChampionsFile(schema_version=2, champions=champions, demotions=demotions)
        replace_json(self._champions, renewed.model_dump(mode="json"))

    def purge(self, keep: int) -> tuple[str, ...]:
        """Delete all but the newest ``keep`` versions of each panel, every champion and every champion's previous.

        Returns:
            ids of the deleted versions. A reader that has a version in memory is not affected.
        Raises:
            IncompatibleModel: ``champions.json`` cannot be read, so nothing is deleted.
            ConfigError: another process writes.
        """
        with self.writing():
            champions = self.champions().values()
            kept = {c.version for c in champions} | {c.previous for c in champions}
            for _, versions in groupby(self.versions(), key=lambda version: version.partition("-")[0]):
                panel = list(versions)
                kept |= set(panel[max(0, len(panel) - keep) :])
            gone = tuple(version for version in self.versions() if version not in kept)
            for version in gone:
                self._discard(version)
        return gone

    def _discard(self, version: str) -> None:
        """Rename first: a kill in the middle leaves no half version under its name."""
        leftover = self._versions / f"{TEMPORARY}gone-{version}"
        (self._versions / version).rename(leftover)
        sync_folder(self._versions)
        shutil.rmtree(leftover)

    def _sweep(self) -> None:
        for leftover in self._versions.glob(f"{TEMPORARY}*"):
            shutil.rmtree(leftover)
        for leftover in self.root.glob(f"{TEMPORARY}{self._champions.name}-*"):
            leftover.unlink(missing_ok=True)
