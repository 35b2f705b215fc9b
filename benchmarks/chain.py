"""Measure what is made of the chain, beside the required figures: recovered truths, and the epochs that are followed.

    python -m benchmarks.chain --recorded FOLDER               # all of it; some twenty minutes
    python -m benchmarks.chain --part follower                 # the committed cut of three epochs, six minutes

FOLDER has economy.jsonl.gz, reads.jsonl and truths.jsonl: a recorded chain, and the truths that its reputers were
given. What is measured how stands in benchmarks/chain_truth.py and benchmarks/chain_follower.py. Exit status 1 if a
required figure is not reached.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chain_follower import epochs, memory, requests_an_hour
from benchmarks.chain_truth import recorded_goals, simulated_goal
from benchmarks.tools.goals import Goal, show_goals

TRUTH, FOLLOWER = PARTS = ("truth", "follower")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=Path, help="folder of a recorded chain; without it the committed cut")
    parser.add_argument("--part", choices=PARTS, help="one part alone")
    parser.add_argument("--topics", type=int, default=100, help="simulated, of 20 epochs each")
    parser.add_argument("--seed", type=int, default=0, help="of simulated topics, and of the moments of the kills")
    parser.add_argument("--minutes", type=float, default=3.0, help="of the counting of requests, each twenty minutes")
    parser.add_argument("--memory-minutes", type=float, default=3.0)
    options = parser.parse_args()

    def goals() -> Iterator[Goal]:
        if options.part != FOLLOWER:
            yield from recorded_goals(options.recorded) if options.recorded else ()
            yield simulated_goal(options.topics, options.seed)
        if options.part != TRUTH:
            yield from epochs(options.recorded, options.seed)
            yield requests_an_hour(options.minutes)
            yield memory(options.memory_minutes)

    missed = []

    def noted() -> Iterator[Goal]:
        for goal in goals():
            missed.extend([goal] if goal.reached is False else [])
            yield goal

    show_goals(noted())
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
