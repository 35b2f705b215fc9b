"""Measure the forecasts in a walk forward over three months, beside required and desired figures.

    python -m benchmarks.skill --data FOLDER [--quick] [--out FOLDER]

FOLDER holds Parquet klines named SYMBOL-INTERVAL-*.parquet. It is `birnn backtest` with topics of its own: volatility
of 5, 15 and 60 minutes, prices and log-returns of 5 minutes to 7 days, for BTC, ETH and SOL, and the volatility of ARB,
of which no training sees a candle. Networks are trained anew every 14 days, as the updater does it. The report lies
beside the figures. Half an hour at most on two cores; --quick, five minutes: two months, a training every 30 days, one
network instead of several, every fifth minute.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from admission.words import ONE_NAIVE
from benchmarks.tools.goals import Goal, show_goals
from benchmarks.tools.topics import TOKENS, UNSEEN, topics
from core.clock import SystemClock
from core.files import replace_json
from core.logs import configure_logging
from core.show.progress import progress_of
from research.backtest.backtest import run
from research.backtest.command import Asked, folder_of, introduction, walk_of
from research.report.report import HTML_FILE, write_report

VOLATILITY_MIN = {5: (0.32, 0.40, 0.06, 0.12), 15: (0.27, 0.36, 0.04, 0.10), 60: (0.25, 0.36, 0.02, 0.08)}
"""Horizon: under the last window's volatility, must and aim; under HAR, must and aim."""
UNSEEN_MUST, UNSEEN_AIM = 0.25, 0.33
MOST_ABOVE, LEVEL = 0.001, 0.05  # of the naive loss; of a test of Diebold and Mariano


def goals(report: Mapping[str, Any]) -> list[Goal]:
    volatile = [one for one in report["topics"] if one["target"] == "volatility"]
    seen = {(one["symbol"], one["horizon"]): one for one in volatile if not one["unseen"]}
    found: list[Goal] = []
    for minutes, (must, aim, har_must, har_aim) in VOLATILITY_MIN.items():
        of = [seen[f"{token}USDT", horizon(minutes)] for token in TOKENS]
        under = [1 - one["ratio_to_naive"]["served"] for one in of]
        below = [1 - one["against"]["served"]["har"]["ratio"] for one in of]
        found += [
            Goal(
                what=f"volatility {horizon(minutes)} under {name}",
                measured=percent(shares),
                must=f"{least:.0%}",
                aim=f"{hoped:.0%}",
                reached=min(shares) >= least,
            )
            for name, shares, least, hoped in (("naive", under, must, aim), ("HAR", below, har_must, har_aim))
        ]
    trees = [one["against"]["served"]["lightgbm"]["ratio"] for one in seen.values()]
    not_worse = sum(ratio <= 1 for ratio in trees)
    found.append(
        Goal(
            what=f"over LightGBM: {' '.join(f'{r:.4f}' for r in trees)}",
            measured=f"{not_worse} of {len(trees)}",
            must="7",
            aim="9",
            reached=not_worse >= 7,
        )
    )
    unseen = [1 - one["ratio_to_naive"]["served"] for one in volatile if one["unseen"]]
    if unseen:
        found.append(
            Goal(
                what="volatility of an unseen symbol, under naive",
                measured=percent(unseen),
                must=f"{UNSEEN_MUST:.0%}",
                aim=f"{UNSEEN_AIM:.0%}",
                reached=min(unseen) >= UNSEEN_MUST,
            )
        )
    returns = [one for one in report["topics"] if one["target"] != "volatility" and not one["unseen"]]
    excess = {
        f"{one['symbol'].removesuffix('USDT')} {one['horizon']}": one["ratio_to_naive"]["served"] - 1 for one in returns
    }
    worst = max(excess, key=lambda name: excess[name])
    surely = [one for one in returns if (p := one["against"]["served"]["naive"]["dm_p"]) is not None and p < LEVEL]
    below_naive = sum(lead < -1e-9 for lead in excess.values())
    found += [
        Goal(
            what=f"returns: the worst, {worst}, above naive",
            measured=f"{excess[worst]:+.3%}",
            must=f"{MOST_ABOVE:.1%}",
            reached=excess[worst] <= MOST_ABOVE,
        ),
        Goal(what="returns: below naive", measured=f"{below_naive} of {len(returns)}", aim="two thirds"),
        Goal(
            what=f"returns: significantly (p < {LEVEL})", measured=f"{len(surely)} of {len(returns)}", aim="a quarter"
        ),
    ]
    for group in report["pooled_directions"]:
        if len(group["horizons"]) > 1:
            top = group["most_confident_fifth"]
            what = f"direction {'/'.join(group['horizons'])}, most confident fifth, worth {top['effective']:,.0f} rows"
            found.append(
                Goal(
                    what=what,
                    measured=f"{top['rate']:.2%}, p {top['p']:.4f}",
                    must="51%, p 0.05",
                    aim="53%",
                    reached=top["rate"] > 0.51 and top["p"] < LEVEL,
                )
            )
    return found


def horizon(minutes: int) -> str:
    return f"{minutes}m" if minutes < 60 else f"{minutes // 60}h"


def percent(shares: Sequence[float]) -> str:
    return " / ".join(f"{share:.1%}" for share in shares)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet klines")
    parser.add_argument("--out", type=Path, help="where walk and report are kept; a run that was cut off goes on there")
    parser.add_argument("--start", help="UTC day of the first training; three months before the end")
    parser.add_argument("--end", help="UTC day where the walk ends; where the klines do")
    parser.add_argument("--training-json", type=Path, help="training settings that differ from the defaults")
    parser.add_argument("--quick", action="store_true", help="five minutes instead of most of an hour")
    given = parser.parse_args(arguments)
    configure_logging("info", service="benchmark", simulated=False)
    out = given.out or Path(tempfile.mkdtemp(prefix="skill-"))
    out.mkdir(parents=True, exist_ok=True)
    training = given.training_json
    if given.quick and training is None:
        training = out / "quick.json"
        replace_json(training, {"seeds": 1})
    asked = Asked(
        topics=topics(VOLATILITY_MIN),
        data_dir=out / "data",
        data=given.data,
        venues=(),
        start=given.start,
        end=given.end,
        out=out / "walk",
        training_file=training,
        unseen=(UNSEEN,),
        baselines=("har", "lightgbm"),
        quick=given.quick,
        command="python -m benchmarks.skill",
    )
    walk, recording = walk_of(asked)
    folder = folder_of(asked, walk, recording)
    print("\n".join(introduction(walk, recording, folder)), flush=True)
    with progress_of("skill") as show:
        records = run(walk, recording, folder, show)
    report = write_report(walk, recording, folder, records, command=asked.command, made_ms=SystemClock().now_ms())
    show_goals(goals(report))
    print(ONE_NAIVE)
    print(f"{report['took_s']:.0f} s; {folder.root / HTML_FILE}")


if __name__ == "__main__":
    main()
