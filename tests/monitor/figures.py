"""What a monitor that has seen everything knows of one topic."""

from collections.abc import Mapping, Sequence

from chain.shapes import Upgrade
from core.clock import DAY_MS, HOUR_MS
from model.judging.skill import Skill
from model.registry.champions import Champion, Demotion
from monitor.chain.results import OnChain, on_chain
from monitor.metrics import AnswerCounts, Failures, MonitorMetrics
from monitor.watched import ChainRead, Checked, InferenceSeen, Participation, TruthGap, Watched
from tests.fakes.clock import START_MS
from tests.inference.stand import ETH_10M
from tests.monitor.economy import epoch_rows
from truth.contract import Fault
from truth.unit import Unit
from updater.state import Outcome, PanelState, UpdaterState

CHAMPION = Champion(
    version="minute-20231114T210000Z-1a2b3c",  # three hours before START_MS
    manifest_sha256="0" * 64,
    since_ms=START_MS - HOUR_MS,
    previous=None,
    network=ETH_10M.network,
    token=ETH_10M.token,
    symbol=ETH_10M.symbol,
    target=ETH_10M.target,
    horizon_min=ETH_10M.horizon_min,
)
DEMOTED = [
    Demotion(champion=CHAMPION, demoted_ms=START_MS - ago_ms, reason="worse", successor=None)
    for ago_ms in (3 * DAY_MS, HOUR_MS)
]
EVERYTHING = Watched(
    now_ms=START_MS - 2500,
    market="SIMULATED",
    inference=InferenceSeen(url="http://127.0.0.1:8000"),
    updater=UpdaterState(
        heartbeat_ms=START_MS - 12_000,
        panels={
            "minute": PanelState(
                running_since_ms=START_MS - 1000,
                failures=2,
                outcome=Outcome(panel="minute", ok=False, finished_ms=START_MS - 2 * HOUR_MS, took_s=1.0),
            )
        },
    ),
    champions={ETH_10M.key: CHAMPION},
    demotions={ETH_10M.key: DEMOTED},
    free_bytes=7_000_000_000,
    faults={"ledger": "database is locked"},
    chain={
        ETH_10M.key: Checked(
            unarrived=2,
            contract=[Fault(name="loss", what="", remedy=""), Fault(name="sign", what="", remedy="", is_sure=False)],
            unit=Unit(line="", deviations=1.5),
            truth=TruthGap(0.25, 20),
            api="v10",
            spoken="v8",
            upgrade=Upgrade(name="v0.18.0", height=1),
            upgrade_ms=START_MS + DAY_MS,
        )
    },
)
NOTHING = Skill(n=0, skill=None, low=None, high=None)
GOOD = Skill(n=2016, skill=0.04, low=0.01, high=0.07)
KNOWN_FAILURES = Failures(notifications=4, database=5)
CHAINS = {"allora-testnet-1": ChainRead(START_MS - 9_000, "", 1234, 1_000)}
STANDING = on_chain(epoch_rows(1), epoch_rows(1)[0][0].block_ms or 0)  # 12 won, 1 lost
COUNTS = AnswerCounts(scored=2016, unscorable=3, waiting=2)


def metrics(
    watched: Watched | None,
    *,
    counts: Mapping[str, AnswerCounts] | None = None,
    participation: Mapping[str, Participation] | None = None,
    skill: Skill = GOOD,
    alarms: Sequence[str] = ("training", "training", "champion"),
    failures: Failures = KNOWN_FAILURES,
    chains: Mapping[str, ChainRead] | None = None,
    won: Mapping[str, OnChain | None] | None = None,
) -> MonitorMetrics:
    """The metrics of a monitor of one topic, which has no scored answer of today."""
    key = ETH_10M.key
    kept = {key: COUNTS} if counts is None else counts
    shares = {key: Participation(share=0.93, missed_left=60)} if participation is None else participation
    return MonitorMetrics(
        [ETH_10M],
        lambda: START_MS,
        watched=lambda: watched,
        skill=lambda _key, days: skill if days > 1 else NOTHING,
        answers=lambda: kept,
        participation=lambda: shares,
        alarms=lambda: alarms,
        failures=lambda: failures,
        chains=lambda: CHAINS if chains is None else chains,
        won=lambda: {key: STANDING} if won is None else won,
    )
