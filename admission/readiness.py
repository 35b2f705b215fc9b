"""DATA_DIR/admission.json: whether each topic's answers would be admitted, when, and for how long.

The updater makes it (``admission.assessment``); inference and the command line read it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from admission.criteria import NAMES, Criterion
from core.errors import IncompatibleModel
from core.files import replace_json
from model.stretch import Stretch

FILE = "admission.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """Days from a start until all criteria hold for the first time, over all starts. None: never."""

    median: float | None
    p90: float | None
    never: float  # share of the starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A topic's standing if ``known_s`` seconds of the interval are known."""

    eligible: bool  # all criteria hold on the whole replay
    known_s: int
    days: Days
    holds: float | None  # share of the later days on which all criteria still hold; None: they never held
    criteria: Mapping[str, Criterion]  # of the whole replay; empty if there is nothing to judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Mean squared error of the unstretched answers over that of two naive forecasts on the same epochs.

    In the criteria's terms, on the days that a network answered, or on all days if it answered none. None: no epoch.
    """

    over_knowing: float | None  # over the naive forecast that knows the same beginning of the interval
    over_plain: float | None  # over the naive forecast that knows nothing of the interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """One topic's line of admission.json."""

    network: str | None
    topic_id: int
    standing: Standing  # of the time that ANSWER_WAIT guarantees, rounded down to whole minutes
    shown: Mapping[int, Standing]  # by seconds known
    stretch: Stretch  # of the answers from now on
    objective: str  # admission or loss
    short: str  # advice, or why nothing can be judged
    block_ms: float | None = None  # measured between two blocks; None: BLOCK_MS was assumed
    replayed_days: float = 0.0  # 0: written by an earlier release
    network_days: float = 0.0  # the newest of these days, which a network answered
    errors: Mapping[int, Errors] = field(default_factory=dict)  # by seconds known

    def to_json(self) -> dict[str, Any]:
        """For admission.json and ``birnn ready --json``."""
        return {
            "network": self.network,
            "topic_id": self.topic_id,
            **asdict(self.standing),
            "shown": {str(seconds): asdict(standing) for seconds, standing in self.shown.items()},
            "stretch": self.stretch.to_json(),
            "objective": self.objective,
            "short": self.short,
            "block_ms": self.block_ms,
            "replayed_days": self.replayed_days,
            "network_days": self.network_days,
            "errors": {str(seconds): asdict(errors) for seconds, errors in self.errors.items()},
        }

    @classmethod
    def from_json(cls, value: Any) -> "Readiness":
        """The inverse of ``to_json``.

        Raises:
            IncompatibleModel: the value has another form.
        """
        try:
            return cls(
                network=value["network"],
                topic_id=int(value["topic_id"]),
                standing=_standing(value),
                shown={
                    seconds: _standing(value["shown"][str(seconds)]) for seconds in sorted(map(int, value["shown"]))
                },
                stretch=Stretch.from_json(value["stretch"]),
                objective=str(value["objective"]),
                short=str(value["short"]),
                block_ms=value.get("block_ms"),
                replayed_days=value.get("replayed_days", 0.0),
                network_days=value.get("network_days", 0.0),
                errors={int(seconds): Errors(**errors) for seconds, errors in value.get("errors", {}).items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise IncompatibleModel(f"an entry of {FILE} cannot be read: {error!r}; train again") from error


def _standing(value: Any) -> Standing:
    return Standing(
        eligible=bool(value["eligible"]),
        known_s=int(value["known_s"]),
        days=Days(**value["days"]),
        holds=value["holds"],
        criteria={name: Criterion(**value["criteria"][name]) for name in NAMES if name in value["criteria"]},
    )


def write_admission(data_dir: Path, made_ms: int, topics: Mapping[str, Readiness]) -> None:
    """Replace admission.json.

    Args:
        topics: by ``Topic.key``.
    """
    entries = {key: readiness.to_json() for key, readiness in topics.items()}
    replace_json(data_dir / FILE, {"made_ms": made_ms, "topics": entries})


def read_admission(data_dir: Path) -> tuple[int, dict[str, Readiness]]:
    """Return the time and the entries (by ``Topic.key``) of admission.json; 0 and no entries without a file.

    Raises:
        IncompatibleModel: the file is damaged or of another release.
    """
    try:
        content = json.loads((data_dir / FILE).read_bytes())
        return int(content["made_ms"]), {
            str(key): Readiness.from_json(entry) for key, entry in content["topics"].items()
        }
    except FileNotFoundError:
        return 0, {}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IncompatibleModel(f"{data_dir / FILE} cannot be read: {error!r}; train again") from error
