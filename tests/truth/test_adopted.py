"""What ``auto`` stands for: the default, what the ledger says, and never one thing after the other and back."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from core.clock import SystemClock
from core.errors import ConfigError
from core.settings import BaseRule, Settings, load_settings
from ledger.database import Database
from ledger.epochs import Adoption, EpochBook
from truth.adopted import BASE_RULE, TRUTH_VENUE, Adopted, resolve, said

ASKED = Adoption(BASE_RULE, "asked", "fits 38 of 40 epochs", 1_700_000_000_000)
KRAKEN = Adoption(TRUTH_VENUE, "kraken", "fits 39 of 40 epochs", 1_700_000_000_000)
ATLAS = KRAKEN._replace(value="atlas")  # which needs a key


def settings_on(folder: Path, **more: object) -> Settings:
    return load_settings(
        **({"data_dir": folder, "database_url": "", "truth_venue": "auto", "base_rule": "auto"} | more)
    )


def both(settings: Settings) -> tuple[str, BaseRule]:
    return settings.truth_venue, settings.base_rule


def write(settings: Settings, *adoptions: Adoption) -> None:
    """Make the ledger, as inference does, and adopt."""
    database = Database(settings.ledger_url, SystemClock())
    database.make_ready()
    database.disconnect()
    book = EpochBook(settings.ledger_url)
    assert all(book.adopt(adoption) for adoption in adoptions)
    book.close()


@pytest.mark.parametrize(
    ("given", "found", "expected"),
    [
        pytest.param({}, [], ("", "minute"), id="nothing adopted"),
        pytest.param({}, [ASKED], ("", "asked"), id="one"),
        pytest.param({}, [ASKED, KRAKEN], ("kraken", "asked"), id="both"),
        pytest.param({"base_rule": "minute"}, [ASKED, KRAKEN], ("kraken", "minute"), id="overruled"),
        pytest.param({"truth_venue": ""}, [KRAKEN], ("", "minute"), id="overruled by nothing"),
        pytest.param({}, [ATLAS], ("", "minute"), id="no key"),
        pytest.param({"venue_keys": "atlas=x"}, [ATLAS], ("atlas", "minute"), id="key"),
        pytest.param({}, [KRAKEN._replace(value="oracle")], ("", "minute"), id="no venue of ours"),
        pytest.param({}, [ASKED._replace(value="hour")], ("", "minute"), id="no rule of ours"),
        pytest.param({}, [ASKED._replace(value="auto")], ("", "minute"), id="auto itself"),
    ],
)
def test_auto_stands_for_what_is_adopted_and_usable(
    tmp_path: Path, given: dict[str, object], found: list[Adoption], expected: tuple[str, str]
) -> None:
    assert both(resolve(settings_on(tmp_path, **given), {one.setting: one for one in found})) == expected


def test_what_is_adopted_later_is_taken_once_and_kept(tmp_path: Path) -> None:
    given = settings_on(tmp_path)
    with capture_logs() as lines:
        adopted = Adopted(given)  # there is no ledger yet, which is no fault
    assert [line["event"] for line in lines] == ["nothing_adopted_yet"] * 2
    assert both(adopted.settings) == ("", "minute")
    assert not adopted.look()
    write(given, ASKED)
    with capture_logs() as lines:
        assert adopted.look()
    assert both(adopted.settings) == ("", "asked")
    assert adopted.waiting == {TRUTH_VENUE}
    (line,) = lines
    assert (line["event"], line["setting"], line["value"], line["evidence"], line["overrule"], line["adopted"]) == (
        *("adopted", BASE_RULE, "asked", "fits 38 of 40 epochs", "set BASE_RULE", "2023-11-14T22:13:20.000Z"),
    )
    with sa.create_engine(given.ledger_url).begin() as connection:
        connection.exec_driver_sql("DELETE FROM adoptions")
    assert not adopted.look()
    write(given, KRAKEN, ASKED._replace(value="minute"))
    assert adopted.look()
    assert both(adopted.settings) == ("kraken", "asked"), "a running process never goes back"
    assert not adopted.look()
    assert both(Adopted(given).settings) == ("kraken", "minute")


def test_a_second_adoption_changes_nothing(tmp_path: Path) -> None:
    given = settings_on(tmp_path)
    write(given, ASKED)
    book = EpochBook(given.ledger_url)
    assert not book.adopt(ASKED._replace(value="minute"))
    assert both(Adopted(given).settings) == ("", "asked")
    book.close()


def test_an_adoption_of_the_default_is_no_change(tmp_path: Path) -> None:
    given = settings_on(tmp_path)
    adopted = Adopted(given)
    write(given, ASKED._replace(value="minute"))
    assert not adopted.look()
    assert adopted.waiting == {TRUTH_VENUE}


def test_without_auto_the_ledger_is_not_read(tmp_path: Path) -> None:
    given = settings_on(tmp_path, truth_venue="", base_rule="minute", database_url="sqlite:////nowhere/at/all")
    with capture_logs() as lines:
        adopted = Adopted(given)
        assert not adopted.look()
    assert lines == []
    assert adopted.settings == given


def test_a_venue_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    given = settings_on(tmp_path)
    write(given, ATLAS)
    with capture_logs() as lines:
        adopted = Adopted(given)
    assert both(adopted.settings) == ("", "minute")
    (line,) = (line for line in lines if line["event"] == "adoption_not_usable")
    assert "VENUE_KEYS" in line["reason"]


def test_a_damaged_ledger_leaves_the_defaults_and_is_told_once(tmp_path: Path) -> None:
    given = settings_on(tmp_path)
    write(given, ASKED)
    path = tmp_path / "ledger.sqlite3"
    whole = path.read_bytes()
    path.write_bytes(b"no database at all" * 1000)
    with capture_logs() as lines:
        adopted = Adopted(given)
        assert not adopted.look()
    assert [line["event"] for line in lines].count("adoptions_not_read") == 1
    assert lines[0]["meanwhile"] == {BASE_RULE: "minute", TRUTH_VENUE: ""}
    assert "not a database" in lines[0]["reason"]
    path.write_bytes(whole)
    assert adopted.look()
    assert both(adopted.settings) == ("", "asked")


def test_a_database_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    given = settings_on(tmp_path)
    write(given, ASKED)
    with sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None) as busy:
        busy.execute("PRAGMA journal_mode=DELETE")
        busy.execute("BEGIN EXCLUSIVE")
        with capture_logs() as lines:
            adopted = Adopted(given, read_s=0.05)
            assert not adopted.look()
        busy.execute("ROLLBACK")
    assert "does not answer within 0.05 s" in lines[0]["reason"]
    patient = Adopted(given)
    assert both(patient.settings) == ("", "asked")
    busy.close()


def test_a_wrong_database_url_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        Adopted(settings_on(tmp_path, database_url="mysql://me:secret@127.0.0.1/a"))


@pytest.mark.parametrize(
    ("given", "found", "expected"),
    [
        ({}, [], ["TRUTH_VENUE=auto: nothing is adopted yet, so it stands for no venue"]),
        (
            {"truth_venue": "", "base_rule": "auto"},
            [ASKED],
            ["BASE_RULE=auto stands for asked, adopted 2023-11-14 22:13Z"],
        ),
        (
            {"truth_venue": "binance"},
            [KRAKEN],
            ["TRUTH_VENUE=binance overrules kraken, adopted 2023-11-14 22:13Z: fits"],
        ),
        (
            {},
            [ATLAS],
            ["TRUTH_VENUE=auto stands for no venue: atlas cannot be used: TRUTH_VENUE=atlas needs VENUE_KEYS"],
        ),
        ({"truth_venue": "kraken"}, [], []),
    ],
    ids=["nothing", "adopted", "overruled", "unusable", "no auto"],
)
def test_it_is_said(tmp_path: Path, given: dict[str, object], found: list[Adoption], expected: list[str]) -> None:
    sentences = list(
        said(settings_on(tmp_path, **({"base_rule": "minute"} | given)), {one.setting: one for one in found})
    )
    assert len(sentences) == len(expected)
    assert all(sentence.startswith(start) for sentence, start in zip(sentences, expected, strict=True)), sentences
