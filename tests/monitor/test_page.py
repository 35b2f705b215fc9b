"""The monitor's routes over loopback: pages, JSON, headers, and what a wrong request gets."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
import requests
import sqlalchemy as sa
import sqlalchemy.exc

from core.net.http_get import Answer, http_get
from core.topic import CLASSIFICATION, catalogue
from model.judging.skill import Skill
from model.stretch import STRETCH_COSTS
from monitor.alarm_rows import Kept
from monitor.api import Row
from monitor.pages.words import headline
from monitor.view import View
from monitor.watched import InferenceSeen, Watched
from tests.fakes.clock import START_MS, FakeClock
from tests.inference.stand import ETH_10M
from tests.monitor.samples import (
    HOSTILE,
    NET,
    VERSION,
    Alarmed,
    Sample,
    SampleSkills,
    Scored,
    sample,
    served,
    topic_entry,
    usual,
)

NOW_MS = 1_796_057_664_000
HEIGHT = 359_211_480


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(usual(NOW_MS), FakeClock(NOW_MS)) as url:
        yield url


def get(url: str) -> Answer:
    return http_get(url, 10.0)


def got(url: str) -> Any:
    answer = get(url)
    assert answer.status == 200, answer.body
    return json.loads(answer.body, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def line(answer: Answer) -> str:
    text: str = answer.body.decode()
    assert "\n" not in text
    return text


def test_the_topics_have_the_promised_fields_and_the_worst_comes_first(url: str) -> None:
    topics = got(f"{url}/api/topics")
    assert [topic["topic_id"] for topic in topics[:2]] == [38, 79]  # broken; worse than naive
    assert set(topics[0]) == {
        "network",
        "topic_id",
        "token",
        "target",
        "horizon",
        "state",
        "remedy",
        "last_answer",
        "skill",
        "admission",
        "chain",
    }
    assert topics[0]["state"] == "broken"
    assert topics[0]["remedy"] == "check the connection to the venue: birnn doctor"  # of its alarm
    worse = topics[1]
    assert (worse["network"], worse["token"], worse["target"], worse["horizon"]) == (NET, "BTC", "volatility", "15m")
    assert worse["last_answer"] == {
        "height": HEIGHT,
        "value": "0.00329612483487898",
        "answered": "2026-11-30T16:52:52.000Z",
        "version": VERSION,
        "forecast": "network",
    }
    assert set(worse["skill"]) == {"1d", "7d", "30d"}
    assert worse["skill"]["7d"] == {
        "n": 1960,
        "skill": -0.14,
        "low": pytest.approx(-0.208, abs=1e-3),
        "high": pytest.approx(-0.072, abs=1e-3),
    }
    unscored = next(topic for topic in topics if topic["topic_id"] == 1)
    assert unscored["skill"]["7d"] == {"n": 0, "skill": None, "low": None, "high": None}


def test_admission_shows_the_real_record_beside_the_replay(url: str) -> None:
    by_id = {topic["topic_id"]: topic["admission"] for topic in got(f"{url}/api/topics")}
    assert by_id[79]["eligible"] is True
    assert by_id[79]["live"]["criteria"]["n_eff"] == {"value": 0.62, "bound": 0.4, "passed": False}
    assert by_id[79]["live"]["missed_left"] == 31
    assert by_id[79]["live"]["expected_day"] == "2026-12-09"
    page = get(f"{url}/topics/{NET}/79").body.decode()
    assert "since 2026-11-18, 3,512 of 3,540 epochs answered: short of rows and right directions; 31 epochs may" in page
    assert "still be missed before participation is 90 %; all may hold on 2026-12-09." in page


def test_a_skill_that_a_stretch_costs_is_told_to_be_no_fault() -> None:
    entries = [topic_entry(topic_id, NOW_MS) for topic_id in (79, 80)]
    with served(sample(NOW_MS, entries, stretched={f"{NET}/79"}), FakeClock(NOW_MS)) as url:
        pages = [get(f"{url}{path}").body.decode() for path in ("/", f"/topics/{NET}/79", f"/topics/{NET}/80")]
        assert [page.count(STRETCH_COSTS) for page in pages] == [1, 1, 0]
        notes = {topic["topic_id"]: topic["admission"]["note"] for topic in got(f"{url}/api/topics")}
        assert notes == {79: STRETCH_COSTS, 80: ""}


@pytest.mark.parametrize(("stretched", "worst"), [((), 79), ((79,), 80)])
def test_a_topic_that_loses_on_purpose_is_not_the_worst(stretched: Sequence[int], worst: int) -> None:
    entries = [topic_entry(topic_id, NOW_MS) for topic_id in (79, 80)]
    loses = {f"{NET}/79": -0.2, f"{NET}/80": -0.1}
    on_purpose = {f"{NET}/{topic_id}" for topic_id in stretched}
    with served(sample(NOW_MS, entries, stretched=on_purpose, levels=loses), FakeClock(NOW_MS)) as url:
        assert got(f"{url}/api/topics")[0]["topic_id"] == worst
        page = get(f"{url}/").body.decode()
        assert page.index("Worst topic") < page.index(f"/topics/{NET}/{worst}")
        of_79 = get(f"{url}/topics/{NET}/79").body.decode()
        assert ('class="big bad"' in of_79) is not bool(stretched)


def test_where_every_topic_is_stretched_the_one_that_loses_most_is_the_worst() -> None:
    """As on a testnet with the default OBJECTIVE."""
    entries = [topic_entry(topic_id, NOW_MS) for topic_id in (79, 80)]
    loses = {f"{NET}/79": -0.01, f"{NET}/80": -0.4}
    with served(sample(NOW_MS, entries, stretched=set(loses), levels=loses), FakeClock(NOW_MS)) as url:
        assert [topic["topic_id"] for topic in got(f"{url}/api/topics")] == [80, 79]
        page = get(f"{url}/").body.decode()
        assert page.index("Worst topic") < page.index(f"/topics/{NET}/80")
        assert "part of it is the stretch for admission" in page
        assert "none does worse" not in page


def test_answers_carry_their_scores(url: str) -> None:
    rows = got(f"{url}/api/topics/{NET}/79/answers?limit=9")
    assert [row["height"] for row in rows] == [HEIGHT - 60 * place for place in range(9)]
    assert [row["scored"] for row in rows] == [False, False, True, True, True, True, False, True, True]
    due, unscored = rows[0], rows[6]
    assert (due["truth"], due["loss"], due["reason"], due["ended"]) == (None, None, "", None)
    assert unscored["reason"] == "3 of 10 candles of BTCUSDT are missing at binance"
    scored = rows[2]
    assert scored["loss"] == (scored["truth"] - float(scored["value"])) ** 2
    assert scored["naive_loss"] == (scored["truth"] - scored["naive"]) ** 2
    assert len(got(f"{url}/api/topics/{NET}/79/answers")) == 50


def test_numbers_that_json_cannot_write_are_null() -> None:
    one = usual(NOW_MS)
    answer, _ = one.rows[f"{NET}/79"][0]
    odd = Scored(NOW_MS, truth=float("nan"), loss=float("inf"), naive_loss=-float("inf"), error_bp=float("nan"))
    broken = Sample(snapshot=one.snapshot, rows={f"{NET}/79": [(answer, odd)]})
    with served(broken, FakeClock(NOW_MS)) as url:
        (row,) = got(f"{url}/api/topics/{NET}/79/answers")
        assert (row["truth"], row["loss"], row["naive_loss"], row["error_bp"]) == (None, None, None, None)
        assert get(f"{url}/topics/{NET}/79").status == 200


def test_the_alarms_are_listed_oldest_first(url: str) -> None:
    alarms = got(f"{url}/api/alarms")
    assert [alarm["name"] for alarm in alarms] == ["skill", "topic"]
    assert alarms[1] == {
        "name": "topic",
        "subject": f"{NET}/38",
        "what": "SOL price 8h (topic 38) cannot be answered: the newest price of SOLUSDT is 312 s old",
        "since": "2026-11-30T16:49:24.000Z",
        "remedy": "check the connection to the venue: birnn doctor",
    }


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"/topics/{NET}/99", 404, f"no topic 99 on network '{NET}': the first column of / lists the topics"),
        ("/topics/-/79", 404, "no topic 79 on network '-': the first column of / lists the topics"),
        ("/api/topics/other/79/answers", 404, "no topic 79 on network 'other': the first column of / lists the topics"),
        ("/topics/a%0Ab/79", 404, "no topic 79 on network 'a\\nb': the first column of / lists the topics"),
        (f"/topics/{NET}/x", 422, "topic_id='x': Input should be a valid integer"),
        (f"/topics/{NET}/0", 422, "topic_id='0': Input should be greater than or equal to 1"),
        (f"/topics/{NET}/{2**80}", 422, f"topic_id='{2**80}': Input should be less than or equal to {2**63 - 1}"),
        (f"/api/topics/{NET}/79/answers?limit=0", 422, "limit='0': Input should be greater than or equal to 1"),
        (f"/api/topics/{NET}/79/answers?limit=1001", 422, "limit='1001': Input should be less than or equal to 1000"),
        (f"/api/topics/{NET}/79/answers?limit=all", 422, "limit='all': Input should be a valid integer"),
        ("/nothing", 404, "Not Found; there are /, /topics/NETWORK/ID, /api/topics"),
        ("/api/topics/", 404, "Not Found; there are"),
        ("/docs", 404, "Not Found; there are"),
        ("/redoc", 404, "Not Found; there are"),
    ],
)
def test_a_wrong_request_gets_one_line_that_names_it(url: str, path: str, status: int, words: str) -> None:
    answer = get(url + path)
    assert answer.status == status
    assert line(answer).startswith(words)


def test_no_topic_is_called_as_good_as_naive_before_one_was_scored() -> None:
    one = sample(NOW_MS, [topic_entry(1, NOW_MS)])
    with served(one, FakeClock(NOW_MS)) as url:
        page = get(url).body.decode()
    assert "</span> not known: no answer has been scored yet." in page
    assert "none does worse" not in page


def test_a_topic_without_a_network_is_found_under_a_dash() -> None:
    one = sample(NOW_MS, [topic_entry(79, NOW_MS, None)])
    with served(one, FakeClock(NOW_MS)) as url:
        assert got(f"{url}/api/topics")[0]["network"] is None
        assert len(got(f"{url}/api/topics/-/79/answers")) == 50
        assert 'href="/topics/-/79"' in get(url).body.decode()
        assert get(f"{url}/topics/-/79").status == 200


def test_a_network_of_odd_characters_has_a_page() -> None:
    network = 'a b"<&?#%'
    entry = topic_entry(79, NOW_MS) | {"network": network}
    with served(sample(NOW_MS, [entry]), FakeClock(NOW_MS)) as url:
        link = f"/topics/{quote(network, safe='')}/79"
        assert f'href="{link}"' in get(url).body.decode()
        assert get(url + link).status == 200


def test_the_ledger_that_cannot_be_read_is_named_and_the_pages_stay() -> None:
    def locked(_: str, __: int) -> Sequence[Row]:
        raise sa.exc.OperationalError("SELECT", None, Exception("database is locked"))

    with served(usual(NOW_MS), FakeClock(NOW_MS), locked) as url:
        answer = get(f"{url}/api/topics/{NET}/79/answers")
        assert answer.status == 503
        assert line(answer) == "the ledger cannot be read: database is locked; ask again later"
        page = get(f"{url}/topics/{NET}/79")
        assert page.status == 200
        assert "The answers cannot be read: database is locked" in page.body.decode()
        assert get(url).status == 200
        assert get(f"{url}/api/topics").status == 200


def test_an_error_of_our_own_is_one_line_and_the_next_request_is_answered() -> None:
    def wrong(_: str, __: int) -> Sequence[Row]:
        raise KeyError("secret")

    with served(usual(NOW_MS), FakeClock(NOW_MS), wrong) as url:
        answer = get(f"{url}/topics/{NET}/79")
        assert answer.status == 500
        assert line(answer) == "internal error: KeyError; see the monitor's log"
        assert get(url).status == 200


def test_the_pages_may_load_nothing_but_their_own_style(url: str) -> None:
    answer = get(url)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self';")
    assert answer.headers["cache-control"] == "no-store"
    page = answer.body.decode()
    assert "<script" not in page
    assert " style=" not in page
    assert re.findall(r'(?:src|href)="(?:https?:)?//', page) == []
    style = re.search(r'href="(/style-\w+\.css)"', page)
    assert style
    assert get(url + style[1]).headers["content-type"].startswith("text/css")


def test_hostile_text_is_escaped() -> None:
    entry = topic_entry(79, NOW_MS, token=HOSTILE, symbol=HOSTILE, reason=HOSTILE, ready=False, venue=HOSTILE)
    alarm = Alarmed("topic", HOSTILE, HOSTILE, NOW_MS, HOSTILE)
    one = sample(NOW_MS, [entry], alarms=[alarm], faults={HOSTILE: HOSTILE})
    with served(one, FakeClock(NOW_MS)) as url:
        for path in ("/", f"/topics/{NET}/79"):
            page = get(url + path).body.decode()
            assert "<script" not in page
            assert "<img" not in page
            assert "&lt;script&gt;" in page


def test_the_document_describes_every_field_and_nothing_that_changes_state(url: str) -> None:
    document = got(f"{url}/openapi.json")
    assert {method for path in document["paths"].values() for method in path} == {"get"}
    assert {"/", "/topics/{network}/{topic_id}", "/api/topics", "/api/alarms"} <= set(document["paths"])
    topic = document["components"]["schemas"]["TopicShape"]["properties"]
    assert "worst first" not in topic
    assert '"-" in a path' in topic["network"]["description"]
    answers = document["paths"]["/api/topics/{network}/{topic_id}/answers"]["get"]
    assert [parameter["name"] for parameter in answers["parameters"]] == ["network", "topic_id", "limit"]
    assert all(parameter["description"] for parameter in answers["parameters"])


def test_a_monitor_that_has_stopped_looking_says_so() -> None:
    clock = FakeClock(NOW_MS)
    with served(usual(NOW_MS), clock) as url:
        assert get(f"{url}/healthz").body == b"ok"
        assert b"stopped looking" not in get(url).body
        clock.sleep(600)
        page = get(url).body.decode()
        assert "<b>This page is 10 min old.</b> The monitor has stopped looking" in page
        answer = get(f"{url}/healthz")
        assert (answer.status, line(answer)) == (503, "no new snapshot for 600 s: start the monitor again")


def test_nothing_is_called_well_before_it_was_seen() -> None:
    """Before the first look the page names no topic, and does not say that all is well."""
    skills = SampleSkills(levels={}, today=0)
    watched = Watched(now_ms=START_MS, market="BINANCE", inference=InferenceSeen(url="http://127.0.0.1:8000"))
    snapshot = View(skills).build(watched)
    assert headline(snapshot) == "Inference does not answer"
    with served(Sample(snapshot=snapshot), FakeClock(START_MS)) as url:
        page = get(url).body.decode()
        assert "No topic is known yet: inference at http://127.0.0.1:8000 has not answered (not asked yet)." in page
        assert got(f"{url}/api/topics") == []


def test_topics_of_the_config_are_there_before_inference_was_ever_seen() -> None:
    """A monitor that is started while inference is dead still has the record, and says what is wrong."""
    inference = InferenceSeen(url="http://127.0.0.1:8000", fault="ConnectionRefusedError: refused")
    watched = Watched(now_ms=START_MS, market="BINANCE", inference=inference, topics=(ETH_10M,))
    snapshot = View(SampleSkills(levels={}, today=0)).build(watched)
    (view,) = snapshot.topics
    assert view.state == "unknown"
    assert view.why == "inference does not answer: ConnectionRefusedError: refused"
    with served(Sample(snapshot=snapshot), FakeClock(START_MS)) as url:
        assert get(f"{url}/topics/{view.path}").status == 200
        assert got(f"{url}/api/topics/{view.path}/answers") == []
        (topic,) = got(f"{url}/api/topics")
        assert (topic["token"], topic["target"], topic["horizon"], topic["last_answer"]) == (
            "ETH",
            "price",
            "10m",
            None,
        )


def test_topics_keep_their_last_values_when_inference_dies() -> None:
    dead = replace(usual(NOW_MS).snapshot.watched.inference, answers=False, fault="no answer in 3 s")
    one = sample(NOW_MS, [dict(topic) for topic in dead.topics], inference=dead)
    (first, *_) = one.snapshot.topics
    assert first.state == "unknown"
    assert first.shape.last_answer is not None
    assert first.shape.remedy.startswith("start it: docker compose up --detach inference")
    assert headline(one.snapshot) == "Inference does not answer"


@pytest.mark.parametrize(
    ("answers", "ready", "remedy"),
    [(False, True, "start it: "), (True, False, "see the row of its symbol"), (True, True, "mend skill")],
)
def test_the_remedy_is_that_of_what_keeps_a_topic_from_being_answered(answers: bool, ready: bool, remedy: str) -> None:
    entry = topic_entry(79, NOW_MS, ready=ready)
    skill = Kept(name="skill", subject=f"{NET}/79", since_ms=NOW_MS, what="it is worse", remedy="mend skill")
    seen = replace(usual(NOW_MS).snapshot.watched.inference, answers=answers, topics=(entry,))
    (topic,) = sample(NOW_MS, [entry], inference=seen, alarms=[skill]).snapshot.topics
    assert topic.shape.remedy.startswith(remedy)


def test_a_topic_that_cannot_be_read_does_not_hide_the_others() -> None:
    one = sample(NOW_MS, [topic_entry(79, NOW_MS)])
    odd = replace(one.snapshot.watched.inference, topics=[{"topic_id": "?"}, topic_entry(80, NOW_MS)])
    snapshot = View(SampleSkills(levels={}, today=0)).build(replace(one.snapshot.watched, inference=odd))
    assert [view.seen.topic_id for view in snapshot.topics] == [80]
    assert snapshot.faults["inference"].startswith("/topics has what this release cannot read: ('network',)")


def test_the_champion_s_history_gives_each_change_with_its_reason(url: str) -> None:
    page = get(f"{url}/topics/{NET}/79").body.decode()
    became = page.index("minute network 2630ab became champion in place of minute network 77c0de")
    assert became < page.index("better than the naive forecast and than the champion")
    demoted = page.index("minute network b0bb1e demoted; the naive forecast serves")
    assert became < demoted < page.index("worse than the naive forecast on 1,204 of its own answers (p 0.002)")


def test_the_page_of_every_topic_of_the_catalogue_is_light() -> None:
    entries = [
        topic_entry(known.topic_id, NOW_MS, network)
        for (network, _), known in catalogue().items()
        if known.target != CLASSIFICATION
    ]
    with served(sample(NOW_MS, entries), FakeClock(NOW_MS)) as url:
        assert len(entries) == 55
        assert len(get(url).body) < 300_000


def test_the_trends_of_one_topic_at_a_time_are_made_anew() -> None:
    """All of them with each look would take the processor from inference."""

    class Counted(SampleSkills):
        def by_version(self, key: str) -> Mapping[str, Skill]:
            made.append(key)
            return super().by_version(key)

    made: list[str] = []
    watched = sample(NOW_MS, [topic_entry(topic_id, NOW_MS) for topic_id in (79, 80, 82)]).snapshot.watched
    view = View(Counted(levels={}, today=0))
    for _ in range(5):
        view.build(watched)
    ids = [key.rpartition("/")[2] for key in made]
    assert sorted(ids[:3]) == ["79", "80", "82"]
    assert ids[3:] == [*ids[:3], ids[0]]


@pytest.mark.parametrize("path", ["/", f"/topics/{NET}/1", "/api/topics", "/healthz", "/nowhere"])
def test_a_head_is_that_of_the_page(url: str, path: str) -> None:
    head, page = requests.head(url + path, timeout=10), requests.get(url + path, timeout=10)
    assert (head.status_code, head.content) == (page.status_code, b"")
    same = {"content-type", "content-length", "content-security-policy", "cache-control"}
    assert {name: head.headers.get(name) for name in same} == {name: page.headers.get(name) for name in same}
    assert requests.post(url + path, timeout=10).status_code in {404, 405}
