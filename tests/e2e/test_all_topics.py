"""Every scalar topic of both networks' catalogues, from two config files: planned, trained and served together."""

from pathlib import Path

from core.clock import DAY_MS
from exchange.server import SimulatedExchange
from model.heads import MINUTE, panels_for
from model.registry.versions import Registry
from node.config_file import topics_from_config
from node.endpoint import inference_url, parse_decimal
from tests.catalogue import scalar_topics, write_configs
from tests.fakes.clock import RunningClock
from tests.inference.stand import node
from tests.updater.folder import TINY
from updater.round import run_round
from updater.training_settings import training_config

MINUTE_DAYS, HOUR_DAYS = 4, 50  # a window reads one day and 22; the longest horizon, twice in a split, 4 h and 7 days


def test_all_topics_of_two_networks_from_one_deployment(tmp_path: Path) -> None:
    topics = topics_from_config(*write_configs(tmp_path, scalar_topics()))
    assert (len(topics), len({topic.network for topic in topics})) == (55, 2)
    assert len({topic.topic_id for topic in topics}) < len(topics), "ids repeat between networks"

    clock, registry = RunningClock(), Registry(tmp_path)
    with SimulatedExchange(clock=clock) as exchange:
        now_ms = clock.now_ms()
        for plan in panels_for(topics).values():
            days = MINUTE_DAYS if plan.panel.name == MINUTE.name else HOUR_DAYS
            klines = {
                symbol: exchange.tape.klines(symbol, plan.panel.interval_ms, now_ms - days * DAY_MS, now_ms)
                for symbol in plan.symbols
            }
            config = training_config(plan.panel.name, TINY | {"stride": 7})
            outcome = run_round(plan, klines, config, 0, registry, clock)
            assert outcome.version
            assert {verdict.topic for verdict in outcome.verdicts} == {topic.key for topic in plan.topics}
            # Whether it won is the gate's business; here each topic is to be answered by a network.
            registry.promote(plan.topics, outcome.version, clock.now_ms())

        assert registry.champions().keys() == {topic.key for topic in topics}
        with node(tmp_path, exchange, clock, topics=topics) as running:
            for topic in topics:
                answer = running.get(inference_url(topic, 7, running.url).removeprefix(running.url))
                assert answer.status_code == 200, (topic.key, answer.text)
                parse_decimal(answer.content)
                assert answer.headers["X-Network"] == topic.network
                assert answer.headers["X-Model-Version"] == registry.champions()[topic.key].version
