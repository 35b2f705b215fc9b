"""A real Prometheus with the shipped rules reads what the monitor makes of an unwell chain, and of a well one."""

from pathlib import Path

from chain.shapes import Upgrade
from ledger.epochs import Arrival
from monitor.parts import Ground, build
from monitor.watched import Watched
from tests.fakes.clock import RunningClock, eventually
from tests.monitor.desk import desk
from tests.monitor.samples import serving
from tests.monitor.test_chain_alarms import TOPIC, Chain
from tests.monitor.test_prometheus import OF_CHAIN, prometheus
from tests.promql import RULES, tool


def test_every_rule_of_the_chain_fires_and_ends(tmp_path: Path, clock: RunningClock) -> None:
    tool("prometheus")
    assert {rule["alert"] for rule in RULES if "birnn_chain_" in rule["expr"]} == OF_CHAIN
    looks: list[Watched] = []
    with desk(tmp_path, clock, topics=[TOPIC], node_version="v0.9.1") as watching:
        ground = Ground(
            settings=watching.settings,
            topics=[TOPIC],
            clock=clock,
            alarms=watching.book,
            newest=lambda: looks[-1] if looks else None,
        )
        parts, chain = build(ground), Chain(watching)
        arrivals = [Arrival.EQUAL] * 10 + [Arrival.ABSENT] * 3
        chain.epochs(arrivals, value="0.03", truth=0.0032)
        chain.saw_topic(loss_method="mae")
        chain.saw(upgrade=Upgrade(name="v0.18.0", height=5_001_000))
        try:
            with serving(parts.app) as url:
                here = url.removeprefix("http://")
                with prometheus(tmp_path, url, here, here) as watched:
                    looks.append(watching.look())
                    eventually(lambda: watched.firing() >= OF_CHAIN, 30, "the rules of the chain")
                    chain.epochs([Arrival.EQUAL] * 20, first=10_000)
                    chain.saw_topic()
                    looks.append(watching.look())
                    eventually(lambda: watched.firing() & OF_CHAIN == {"BirnnApiNotSpoken"}, 30, "their end")
        finally:
            parts.end()
