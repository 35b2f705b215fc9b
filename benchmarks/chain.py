"""Measure what is made of the chain, beside the required figures: the recovered truths.

    python -m benchmarks.chain --recorded FOLDER [--topics 100]

FOLDER has economy.jsonl.gz and truths.jsonl: a recorded chain, and the truths that its reputers were given. Each part
is a function of a file of its own. Exit status 1 if a required figure is not reached.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chain_truth import recorded_goals, simulated_goal
from benchmarks.tools.goals import Goal, show_goals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", type=Path, help="folder of a recorded chain; without it only simulated topics")
    parser.add_argument("--topics", type=int, default=100, help="simulated, of 20 epochs each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    missed: list[Goal] = []

    def goals() -> Iterator[Goal]:
        for goal in recorded_goals(options.recorded) if options.recorded else ():
            missed.extend([goal] if goal.reached is False else [])
            yield goal
        goal = simulated_goal(options.topics, options.seed)
        missed.extend([goal] if goal.reached is False else [])
        yield goal

    show_goals(goals())
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
