"""The parts of ``benchmarks.chain`` about recovered truths: of a recorded chain, and of simulated topics."""

import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

import numpy as np

from benchmarks.tools.goals import Goal
from core.settings import BaseRule
from core.topic import Target, Topic
from truth.candidates import Candidate, Moment
from truth.ranking import VENUE, Ranking, rank
from truth.recovered import Recovered, recover

Texts = Mapping[str, str]
VENUES = ("binance", "coinbase", "kraken", "tiingo")
EPOCHS, NOISE_BP, MOST_RELATIVE, LEAST_NAMED = 20, 2.0, Decimal("1e-9"), 0.95


def recorded(folder: Path) -> dict[tuple[int, int], tuple[Texts, Texts]]:
    """Return values and losses by (topic, nonce) of a recorded chain, of the epochs that have both."""
    values: dict[tuple[int, int], Texts] = {}
    losses: dict[tuple[int, int], Texts] = {}
    with gzip.open(folder / "economy.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            match = re.search(r"/(inferences|network_loss)/(\d+)/(\d+)$", line.get("path", ""))
            if not match or line["status"] != 200:
                continue
            body, key = json.loads(line["body"]), (int(match[2]), int(match[3]))
            if match[1] == "inferences" and (seen := body["inferences"]["inferences"]):
                values[key] = {one["inferer"]: one["value"] for one in seen}
            elif match[1] == "network_loss" and (seen := body["loss_bundle"]["inferer_values"]):
                losses[key] = {one["worker"]: one["value"] for one in seen}
    return {key: (values[key], losses[key]) for key in sorted(values.keys() & losses.keys())}


def planted(folder: Path) -> dict[tuple[int, int], list[Decimal]]:
    """Return the truth that each reputer was given, by (topic, nonce)."""
    found: dict[tuple[int, int], list[Decimal]] = defaultdict(list)
    for line in (folder / "truths.jsonl").read_text("utf-8").splitlines():
        one = json.loads(line)
        found[one["topic_id"], one["nonce"]].append(Decimal(one["truth"]))
    return dict(found)


def recorded_goals(folder: Path) -> Iterator[Goal]:
    """Yield the rows about a recorded chain."""
    truths, alone, among = planted(folder), Counter[bool](), Counter[bool]()
    worst = Decimal(0)
    for key, (values, losses) in recorded(folder).items():
        if key not in truths or len(set(values.values())) < 2:
            continue
        told = recover(values, losses, "mse")
        if len(truths[key]) == 1:
            off = abs(told.truth / truths[key][0] - 1) if isinstance(told, Recovered) else Decimal(1)
            alone[off < MOST_RELATIVE] += 1
            worst = max(worst, off)
        else:
            low, high = min(truths[key]), max(truths[key])
            among[isinstance(told, Recovered) and low <= told.truth <= high] += 1
    yield Goal(
        what="recorded, one reputer: epochs whose truth was recovered",
        measured=f"{alone[True]} of {alone.total()}, relative error {worst:.0e} at most",
        must="all, < 1e-9",
        reached=not alone[False],
    )
    yield Goal(
        what="recorded, two reputers: epochs whose truth is within their spread",
        measured=f"{among[True]} of {among.total()}",
        must="all",
        reached=not among[False],
    )


def simulated_goal(topics: int, seed: int) -> Goal:
    """Return the row about simulated topics: a reputer lies, a value is off by 1,000, candidates are 2 bp apart."""
    rng = np.random.default_rng(seed)
    named = Counter(_named(*simulated(rng)) for _ in range(topics))
    return Goal(
        what=f"simulated, one of three reputers lies: right venue, wrong venue, not told of {topics}",
        measured=f"{named['right']}, {named['wrong']}, {named['not told']}",
        must=f">= {LEAST_NAMED:.0%}, none",
        reached=named["right"] >= LEAST_NAMED * topics and not named["wrong"],
    )


def simulated(rng: np.random.Generator) -> tuple[Ranking, str]:
    """Return the ranking of a topic of 20 epochs, and the venue that its honest reputers use.

    Five inferers 0.5 % off, one of them also by the factor or the sum of 1,000. Three reputers of stakes that vary by a
    half; one is some per cent off in each epoch. The chain averages logarithms by stake.
    """
    topic = Topic(topic_id=1, token="ETH", symbol="ETHUSDT", target=Target.PRICE, horizon_min=5)  # noqa: S106
    right = str(rng.choice(VENUES))
    stakes, by_factor = rng.uniform(1.0, 1.5, 3), bool(rng.integers(2))
    told: list[Recovered | str] = []
    values: dict[Candidate, list[float | None]] = {
        Candidate(venue, Moment.CLOSE, BaseRule.MINUTE): [] for venue in VENUES
    }
    for _ in range(EPOCHS):
        price = 2000 * float(np.exp(rng.normal(0, 0.01)))
        for candidate, its in values.items():
            its.append(price * (1 if candidate.venue == right else 1 + float(rng.normal(0, NOISE_BP * 1e-4))))
        sent = price * (1 + rng.normal(0, 0.005, 5))
        sent[rng.integers(5)] *= 1000 if by_factor else 1 + 1000 / price
        truths = np.array([price, price, price * (1 + rng.normal(0, 0.03))])
        losses = stakes @ np.log10((sent - truths[:, None]) ** 2 + 1e-100) / stakes.sum()
        texts = [{str(number): repr(float(one)) for number, one in enumerate(row)} for row in (sent, losses)]
        told.append(recover(texts[0], texts[1], "mse"))
    return rank(topic, told, values), right


def _named(ranking: Ranking, right: str) -> str:
    found = ranking.finding(VENUE)
    if found is None or not found.is_told:
        return "not told"
    return "right" if found.value == right else "wrong"
