"""Notifications through Apprise, and ``birnn alarm --test``: what arrives, what is said, and what is never shown."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from monitor.send import NOT_UNDERSTOOD, Address, Delivery, Kind, Message, addresses_of
from tests.fakes.net import free_port
from tests.monitor.receiver import Receiver, receiving
from tests.process import ROOT

TEST = Message(title="title", body="two\nlines", kind=Kind.ALARM)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def delivery(url: str, timeout_s: float = 30.0) -> Delivery:
    return Delivery(Address(position=1, url=SecretStr(url)), timeout_s)


def test_a_notification_arrives_as_it_was_given(receiver: Receiver) -> None:
    assert delivery(receiver.alarm_url).send(TEST) == ""
    (told,) = receiver.received
    assert (told["title"], told["message"], told["type"]) == ("title", "two\nlines", "failure")


def test_an_address_is_checked_without_sending(receiver: Receiver) -> None:
    assert delivery(receiver.alarm_url).send(None) == ""
    assert receiver.attempts == 0


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_refusal_is_told_by_its_status(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert delivery(receiver.alarm_url).send(TEST) == f"status {status}"


def test_a_server_that_is_not_there_is_told_without_its_address() -> None:
    assert delivery(f"json://SECRET@127.0.0.1:{free_port()}").send(TEST) == "no connection, or the service refused"


@pytest.mark.parametrize("url", ["nosuch://SECRET", "SECRET", "tgram://SECRET", "json://", "file:///etc/passwd"])
def test_what_apprise_does_not_understand_is_told_at_the_check(url: str) -> None:
    assert delivery(url).send(None) == NOT_UNDERSTOOD


def test_a_service_that_hangs_is_given_up(receiver: Receiver) -> None:
    receiver.holding = threading.Event()
    assert delivery(receiver.alarm_url, 3.0).send(TEST) == "no answer within 3 s"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param(" , ", [], id="commas"),
        pytest.param("json://a", ["entry 1 of ALARM_URLS (json)"], id="one"),
        pytest.param(
            "JSON://a,mailto://u:p@h?to=x,y,  tgram://t/c,",
            ["entry 1 of ALARM_URLS (json)", "entry 2 of ALARM_URLS (mailto)", "entry 3 of ALARM_URLS (tgram)"],
            id="commas inside",
        ),
        pytest.param("token", ["entry 1 of ALARM_URLS (without a scheme)"], id="no scheme"),
        pytest.param(f"{'s' * 40}://x", ["entry 1 of ALARM_URLS (without a scheme)"], id="a scheme that may be secret"),
    ],
)
def test_entries_have_names_without_secrets(text: str, names: list[str]) -> None:
    assert [address.name for address in addresses_of(SecretStr(text))] == names


def birnn_alarm(*arguments: str, urls: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "alarm", *arguments],
        env={**os.environ, "ALARM_URLS": urls, "LOG_LEVEL": "debug"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_birnn_alarm_sends_one_and_says_what_came_of_it(receiver: Receiver) -> None:
    done = birnn_alarm("--test", urls=receiver.alarm_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "entry 1 of ALARM_URLS (json): accepted; look whether it arrived\n"
    assert receiver.told("This is a test of ALARM_URLS. Nothing is wrong.") == 1


def test_birnn_alarm_fails_if_any_entry_does(receiver: Receiver) -> None:
    with receiving() as broken:
        broken.status = 403
        done = birnn_alarm("--test", urls=f"{receiver.alarm_url},{broken.alarm_url},nosuch://SECRET")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "entry 1 of ALARM_URLS (json): accepted; look whether it arrived",
        "entry 2 of ALARM_URLS (json): not sent: status 403",
        "entry 3 of ALARM_URLS (nosuch): not sent: not understood",
    ]
    assert "SECRET" not in done.stdout + done.stderr


def test_birnn_alarm_without_addresses_or_without_the_option_says_what_to_do() -> None:
    done = birnn_alarm("--test", urls="")
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert "ALARM_URLS is not set" in done.stdout
    done = birnn_alarm(urls="json://SECRET")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "birnn alarm --test" in done.stderr
    assert "SECRET" not in done.stdout + done.stderr


def test_birnn_doctor_names_the_setting_and_not_its_value() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "doctor", "--json"],
        env={**os.environ, "ALARM_URLS": "json://SECRET@127.0.0.1", "MARKET_VENUES": "nosuchvenue"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "SECRET" not in done.stdout + done.stderr
