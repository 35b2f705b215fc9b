"""The table of a benchmark: measured, required and desired figures side by side."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One row."""

    what: str
    measured: str
    must: str = ""
    aim: str = ""
    reached: bool | None = None  # None if nothing must be reached


def show_goals(goals: Iterable[Goal]) -> None:
    """Print each row as it comes, below one heading."""
    print(f"{'':72}{'must':>28}{'aim':>16}  measured", flush=True)
    for goal in goals:
        fault = "  NOT REACHED" if goal.reached is False else ""
        print(f"{goal.what:72}{goal.must:>28}{goal.aim:>16}  {goal.measured}{fault}", flush=True)
