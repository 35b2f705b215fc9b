"""``DATA_DIR/admission.json``: whether each topic's answers would have been admitted to mainnet, and when."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import IncompatibleModel
from model.admission import Criterion

FILE = "admission.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """Days until all criteria hold for the first time, over start days."""

    median: float | None
    p90: float | None
    never: float | None  # share of the starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the replay of one topic came to with so many seconds known."""

    eligible: bool
    known_s: int | None
    days: Days
    holds: float | None  # share of the days after the first on which they hold
    criteria: Mapping[str, Criterion]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """One topic of the file."""

    network: str | None
    topic_id: int
    verdict: Verdict
    shown: Mapping[int, Verdict]  # by known seconds
    objective: str
    short: str
    stretch: Mapping[str, float]


def read_readiness(folder: Path) -> tuple[int, dict[str, Readiness]] | None:
    """When the file was made and what it says by ``Topic.key``; None without the file.

    Raises:
        IncompatibleModel: it is not what the updater writes.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_bytes())
        return int(content["made_ms"]), {key: _readiness(one) for key, one in content["topics"].items()}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IncompatibleModel(f"{path}: {error}") from error


def _readiness(one: Mapping[str, Any]) -> Readiness:
    return Readiness(
        network=one["network"],
        topic_id=int(one["topic_id"]),
        verdict=_verdict(one),
        shown={int(known_s): _verdict(part) for known_s, part in one["shown"].items()},
        objective=one["objective"],
        short=one["short"],
        stretch=one["stretch"],
    )


def _verdict(part: Mapping[str, Any]) -> Verdict:
    return Verdict(
        eligible=part["eligible"],
        known_s=part["known_s"],
        days=Days(**part["days"]),
        holds=part["holds"],
        criteria={name: Criterion(**of_name) for name, of_name in part["criteria"].items()},
    )
