"""The monitor's metrics: what it knows at the moment of the scrape, and nothing that it does not know."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.clock import DAY_MS, HOUR_MS
from core.settings import Settings
from core.topic import Target
from model.judging.skill import Skill
from monitor.metrics import ALARMS, Failures, MonitorMetrics
from monitor.watched import ChainRead, InferenceSeen, Participation, Watched
from tests.fakes.clock import START_MS
from tests.inference.stand import ETH_10M, topic
from tests.monitor.figures import COUNTS, EVERYTHING, GOOD, NOTHING, metrics

AT = '{network="allora-testnet-1",topic="1"}'


def samples(text: bytes) -> dict[str, float]:
    """Value by name and labels, as the text has them."""
    return {
        sample.name
        + "{"
        + ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
        + "}": sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_everything_that_is_known_is_told() -> None:
    found = samples(metrics(EVERYTHING).text())
    skill = {name: value for name, value in found.items() if name.startswith("birnn_topic_skill")}
    assert skill == {
        'birnn_topic_skill_rows{network="allora-testnet-1",topic="1",window="1d"}': 0,
        'birnn_topic_skill_rows{network="allora-testnet-1",topic="1",window="7d"}': 2016,
        'birnn_topic_skill_rows{network="allora-testnet-1",topic="1",window="30d"}': 2016,
        'birnn_topic_skill{network="allora-testnet-1",topic="1",window="7d"}': 0.04,
        'birnn_topic_skill{network="allora-testnet-1",topic="1",window="30d"}': 0.04,
        'birnn_topic_skill_low{network="allora-testnet-1",topic="1",window="7d"}': 0.01,
        'birnn_topic_skill_low{network="allora-testnet-1",topic="1",window="30d"}': 0.01,
        'birnn_topic_skill_high{network="allora-testnet-1",topic="1",window="7d"}': 0.07,
        'birnn_topic_skill_high{network="allora-testnet-1",topic="1",window="30d"}': 0.07,
    }
    told: Mapping[str, float] = {
        'birnn_topic_info{horizon="10m",network="allora-testnet-1",target="price",token="ETH",topic="1"}': 1,
        'birnn_topic_answers{network="allora-testnet-1",state="scored",topic="1"}': 2016,
        'birnn_topic_answers{network="allora-testnet-1",state="unscorable",topic="1"}': 3,
        'birnn_topic_answers{network="allora-testnet-1",state="waiting",topic="1"}': 2,
        f"birnn_topic_participation{AT}": 0.93,
        f"birnn_topic_missed_epochs_left{AT}": 60,
        f"birnn_topic_champion_age_seconds{AT}": 3 * 3600,
        f"birnn_topic_demotions_last_day{AT}": 1,
        f"birnn_chain_epochs_won{AT}": 10,
        f"birnn_chain_epochs_lost{AT}": 1,
        f"birnn_chain_epochs_unknown{AT}": 2,
        'birnn_chain_requests_total{network="allora-testnet-1"}': 1234,
        'birnn_chain_seen_age_seconds{network="allora-testnet-1"}': 9,
        'birnn_monitor_training_failures{panel="minute"}': 2,
        'birnn_monitor_training_running{panel="minute"}': 1,
        'birnn_monitor_training_age_seconds{panel="minute"}': 7200,
        "birnn_monitor_updater_heartbeat_age_seconds{}": 12,
        'birnn_monitor_alarms{name="training"}': 2,
        'birnn_monitor_alarms{name="inference"}': 0,
        "birnn_monitor_notification_failures_total{}": 4,
        "birnn_monitor_database_failures_total{}": 5,
        "birnn_monitor_look_age_seconds{}": 2.5,
        "birnn_monitor_free_bytes{}": 7e9,
        'birnn_monitor_fault{part="ledger"}': 1,
        'birnn_monitor_fault{part="score"}': 0,
    }
    assert {name: found.get(name) for name in told} == told


def test_the_checks_against_the_chain_are_told() -> None:
    found = samples(metrics(replace(EVERYTHING, market="BINANCE")).text())
    told: Mapping[str, float] = {
        f"birnn_chain_unarrived_epochs{AT}": 2,
        f"birnn_chain_contract_faults{AT}": 1,
        f"birnn_chain_unit_fault{AT}": 0,
        f"birnn_chain_unit_deviations{AT}": 1.5,
        f"birnn_chain_truth_gap_bp{AT}": 0.25,
        'birnn_chain_upgrade_seconds{network="allora-testnet-1"}': 86_400,
        'birnn_chain_api_spoken{network="allora-testnet-1"}': 0,
    }
    assert {name: found.get(name) for name in told} == told
    assert samples(metrics(EVERYTHING).text())[f"birnn_chain_contract_faults{AT}"] == 0, "simulated prices"
    unseen = samples(metrics(replace(EVERYTHING, chain={})).text())
    assert not [name for name in unseen if name in told]


def test_before_the_first_look_only_what_needs_none_is_told() -> None:
    found = samples(metrics(None, counts={}, participation={}, skill=NOTHING, chains={}, won={}).text())
    told = {name.partition("{")[0] for name in found if name.startswith("birnn_")}
    assert told == {
        "birnn_topic_info",
        "birnn_topic_skill_rows",
        "birnn_monitor_alarms",
        "birnn_monitor_notification_failures_total",
        "birnn_monitor_database_failures_total",
    }


def test_a_chain_that_was_not_read_yet_has_no_age() -> None:
    found = samples(metrics(EVERYTHING, chains={"net-1": ChainRead(None, "down", 3, None)}).text())
    assert found['birnn_chain_requests_total{network="net-1"}'] == 3
    assert not [name for name in found if name.startswith("birnn_chain_seen_age")]


def test_a_part_that_was_never_seen_is_left_out_and_not_zero() -> None:
    bare = Watched(now_ms=START_MS - 2500, market="BINANCE", inference=InferenceSeen(url="http://x"))
    found = samples(metrics(bare).text())
    assert found["birnn_monitor_look_age_seconds{}"] == 2.5
    assert "birnn_monitor_free_bytes{}" not in found
    assert "birnn_monitor_updater_heartbeat_age_seconds{}" not in found
    assert not [name for name in found if name.startswith("birnn_topic_champion_age_seconds")]


def test_a_clock_that_was_set_back_gives_no_age_below_zero() -> None:
    ahead = replace(EVERYTHING, now_ms=START_MS + HOUR_MS)
    assert samples(metrics(ahead).text())["birnn_monitor_look_age_seconds{}"] == 0


@pytest.mark.parametrize("days", [0.5, 1.5])
def test_demotions_count_for_a_day(days: float) -> None:
    key = ETH_10M.key
    demotion = EVERYTHING.demotions[key][-1].model_copy(update={"demoted_ms": START_MS - round(days * DAY_MS)})
    found = samples(metrics(replace(EVERYTHING, demotions={key: (demotion,)})).text())
    assert found[f"birnn_topic_demotions_last_day{AT}"] == (days < 1)


def test_no_text_from_outside_makes_a_series() -> None:
    """Other topics, other parts and other alarms than those that are known have no series."""
    odd = replace(
        EVERYTHING,
        faults={"odd": "a part of another release"},
        champions={"odd/9": EVERYTHING.champions[ETH_10M.key]},
        demotions={"odd/9": EVERYTHING.demotions[ETH_10M.key]},
    )
    share = Participation(share=1.0, missed_left=1)
    text = metrics(odd, counts={"odd/9": COUNTS}, participation={"odd/9": share}, alarms=("odd",)).text()
    assert b"odd" not in text


def test_a_hostile_token_is_escaped() -> None:
    hostile = topic(3, 'E"}\n# TYPE x', 10)
    text = MonitorMetrics(
        [hostile],
        lambda: START_MS,
        watched=lambda: None,
        skill=lambda _key, _days: Skill(n=0, skill=None, low=None, high=None),
        answers=dict,
        participation=dict,
        alarms=tuple,
        failures=Failures,
    ).text()
    assert rb'token="E\"}\n# TYPE x"' in text
    assert b"\n# TYPE x" not in text


def test_every_alarm_of_the_settings_has_a_series() -> None:
    assert {f"alarm_{name}" for name in ALARMS} | {"alarm_urls"} == {
        name for name in Settings.model_fields if name.startswith("alarm_")
    }
    assert len(ALARMS) == 17


def test_fifty_topics_have_a_bounded_number_of_series() -> None:
    many = [topic(number, "ETH", 10, Target.VOLATILITY) for number in range(1, 56)]
    keys = [each.key for each in many]
    text = MonitorMetrics(
        many,
        lambda: START_MS,
        watched=lambda: replace(EVERYTHING, champions=dict.fromkeys(keys, EVERYTHING.champions[ETH_10M.key])),
        skill=lambda _key, _days: GOOD,
        answers=lambda: dict.fromkeys(keys, COUNTS),
        participation=lambda: dict.fromkeys(keys, Participation(share=1.0, missed_left=9)),
        alarms=tuple,
        failures=Failures,
    ).text()
    assert len(samples(text)) < 55 * 21 + 50
