"""The file of training settings: what it may say, and that writing one panel's leaves the other's."""

from pathlib import Path

import pytest

from core.errors import ConfigError
from core.topic import Target, Topic
from updater.service import checked_plans
from updater.training_settings import FILE, read_settings, settings_file, write_settings


def test_without_a_file_nothing_differs(tmp_path: Path) -> None:
    assert settings_file(tmp_path) is None
    assert read_settings(settings_file(tmp_path)) == {"minute": {}, "hour": {}}


def test_the_file_given_comes_before_the_usual_one(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{}")
    assert settings_file(tmp_path) == tmp_path / FILE
    assert settings_file(tmp_path, tmp_path / "other.json") == tmp_path / "other.json", "though it is not there"


def test_a_panel_s_own_setting_comes_before_the_one_for_both(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"epochs": 2, "dropout": 0.2, "hour": {"epochs": 3}}')
    assert read_settings(tmp_path / FILE) == {
        "minute": {"epochs": 2, "dropout": 0.2},
        "hour": {"epochs": 3, "dropout": 0.2},
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "is not JSON", id="empty"),
        pytest.param(b'{"minute": {', "is not JSON", id="cut off"),
        pytest.param(b"\xff\xfe", "is not JSON", id="no text"),
        pytest.param(b"[]", "must be an object, is list", id="a list"),
        pytest.param(b'{"minute": 3}', "panel minute must be an object, was 3", id="panel is a number"),
        pytest.param(b'{"minuet": {"epochs": 3}}', "there is no panel minuet", id="no such panel"),
    ],
)
def test_what_is_no_settings_file_is_said_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / FILE
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as refusal:
        read_settings(file)
    assert str(refusal.value).startswith(f"{file}: ")
    assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigError):
        write_settings(file, "minute", {"epochs": 1})
    assert file.read_bytes() == content, "what somebody wrote is not lost"


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_settings(tmp_path / "nowhere.json")


def test_writing_one_panel_keeps_the_other(tmp_path: Path) -> None:
    file = tmp_path / FILE
    write_settings(file, "hour", {"epochs": 3})
    write_settings(file, "minute", {"lookback": 16, "learning_rate": 1e-3})
    write_settings(file, "hour", {"epochs": 5})
    assert read_settings(file) == {"minute": {"lookback": 16, "learning_rate": 1e-3}, "hour": {"epochs": 5}}
    write_settings(file, "hour", {})
    assert read_settings(file)["hour"] == {}


@pytest.mark.parametrize("panels", [(), ("minute",)])
def test_what_is_wrong_for_a_panel_that_is_not_trained_now_is_refused_as_well(
    tmp_path: Path, panels: tuple[str, ...]
) -> None:
    file = tmp_path / FILE
    file.write_text('{"minute": {"epochs": 1}, "hour": {"epochs": "some"}}')
    topic = Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=10)
    with pytest.raises(ConfigError, match="panel hour: epochs='some'"):
        checked_plans([topic], panels, file)
