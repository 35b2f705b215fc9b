"""The pages in a real browser: light and dark, wide and on a phone."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from core.topic import CLASSIFICATION, catalogue
from tests.monitor.chromium import Browser, chromium
from tests.monitor.samples import HOSTILE, NET, Alarmed, Sample, sample, served, topic_entry, usual

NOW_MS = 1_796_057_664_000
PHONE, WIDE = 390, 1280
LIGHTEST = 500_000  # bytes of a first load


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def everything() -> Sample:
    """Every topic of the catalogue that can be answered, and hostile text wherever text comes from outside."""
    entries = [
        topic_entry(known.topic_id, NOW_MS, network)
        for (network, _), known in catalogue().items()
        if known.target != CLASSIFICATION
    ]
    hostile = topic_entry(82, NOW_MS, token=HOSTILE, symbol=HOSTILE, ready=False, reason=HOSTILE, venue=HOSTILE)
    hostile["last_answer"] = hostile["last_answer"] | {"version": HOSTILE}
    entries = [hostile if (one["network"], one["topic_id"]) == (NET, 82) else one for one in entries]
    alarm = Alarmed("topic", HOSTILE, HOSTILE, NOW_MS, HOSTILE)
    return sample(NOW_MS, entries, market="SIMULATED", alarms=[alarm], faults={"ledger": HOSTILE})


SAMPLES = {"real market": lambda: usual(NOW_MS), "everything": everything}


@pytest.fixture(scope="module", params=SAMPLES)
def site(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    with served(SAMPLES[request.param]()) as url:
        yield request.param, url


@pytest.mark.parametrize("path", ["/", f"/topics/{NET}/82", f"/topics/{NET}/1"])
def test_a_page_loads_without_a_complaint_from_this_host_alone(
    browser: Browser, site: tuple[str, str], path: str, tmp_path: Path
) -> None:
    _, url = site
    picture = tmp_path / "page.png"
    page = browser.load(url + path, width=WIDE, dark=False)
    assert page.bytes < LIGHTEST
    for width, dark in product((WIDE, PHONE), (False, True)):
        page = browser.change(width=width, dark=dark, picture=picture)
        assert page.complaints == []
        assert {urlsplit(one).netloc for one in page.requests} == {urlsplit(url).netloc}
        assert page.scripts == 0
        assert page.wider_by <= 0
        assert picture.stat().st_size > 20_000  # not an empty one
        picture.unlink()


def test_the_first_screen_says_what_is_wrong_and_which_topic_is_worst(browser: Browser) -> None:
    with served(usual(NOW_MS)) as url:
        text = browser.load(url, width=PHONE, dark=False).text
    wrong, worst, topics = (text.index(words) for words in ("2 things are wrong", "Worst topic", "Topics worst first"))
    assert wrong < worst < topics
    said = text[worst:topics]
    assert "SOL price 8h (38): not answered: the newest price of SOLUSDT is 312 s old." in said
    assert "check the connection to the venue: birnn doctor" in said
    names = [line for line in text[topics:].split("\n") if line.startswith(("SOL ", "BTC ", "ETH "))]
    assert names[0].startswith("SOL price 8h")  # broken
    assert names[1].startswith("BTC volatility 15m")  # worse than naive


def test_simulated_prices_cannot_be_overlooked(browser: Browser) -> None:
    with served(usual(NOW_MS, "SIMULATED")) as url:
        for path in ("/", f"/topics/{NET}/79"):
            page = browser.load(url + path, width=PHONE, dark=True)
            assert page.title.startswith("SIMULATED")
            assert page.text.startswith("SIMULATED The prices on this page are not the market's")


def test_hostile_text_stays_text(browser: Browser) -> None:
    with served(everything()) as url:
        for path in ("/", f"/topics/{NET}/82"):
            page = browser.load(url + path, width=WIDE, dark=False)
            assert HOSTILE in page.text
            assert page.scripts == 0
            assert not any("evil.example" in one for one in page.requests)
