"""Makes ``tests/data/chain_three_epochs.jsonl.gz``: three epochs of the three topics of a recorded chain.

``python -m tests.data.make_chain_cut FOLDER``, where FOLDER has ``economy.jsonl.gz`` and ``reads.jsonl``: a local chain
of emissions v5 with five workers and a reputer, recorded on 2026-11-30, with throw-away wallets. The cut has the blocks
of ``FIRST`` to ``LAST`` with their events, the bodies that were read in that time, the newest body of each path before
it, and every body of reads.jsonl. Our worker has no value at nonce 343 of topic 3.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from tests.fakes.chain_replay import CUT, OURS, at_query, recorded

FIRST, LAST = (
    325,
    480,
)  # topic 1: nonces 327, never settled, 357, 387, 417; topic 2: 335, 365, 395; topic 3: 343, 373, 403


def main(folder: Path) -> None:
    """Write the cut."""
    before: dict[str, dict[str, Any]] = {}
    kept: list[dict[str, Any]] = []
    networks: dict[str, str] = {}  # the last body by path, without the height of the query
    for line in recorded(folder / "economy.jsonl.gz"):
        if line.get("block", FIRST) > LAST or line.get("height", FIRST) > LAST:
            break
        if "block" in line:
            kept += [line] if line["block"] >= FIRST else []
        elif line["height"] < FIRST:
            before[line["path"]] = line
        elif line["path"] in networks and networks[line["path"]] == at_query(line["body"], 0):
            continue  # the replay writes the height of its own query
        else:
            networks |= {line["path"]: at_query(line["body"], 0)} if "latest_network" in line["path"] else {}
            kept.append(line)
    reads = [{name: line[name] for name in ("path", "status", "body")} for line in recorded(folder / "reads.jsonl")]
    kept = [line for line in kept if _is_of_ours(line)]
    lines = [*reads, *(line for line in before.values() if _is_new(line) and _is_of_ours(line)), *kept]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    CUT.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _is_new(line: dict[str, Any]) -> bool:
    """True unless a body is of an epoch that was settled before the cut."""
    last = line["path"].rpartition("/")[2]
    return not (last.isdigit() and 9 < int(last) < FIRST - 60)


def _is_of_ours(line: dict[str, Any]) -> bool:
    """True unless a body is of another worker alone: those of ours suffice."""
    return "allo1" not in line.get("path", "") or OURS in line["path"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
