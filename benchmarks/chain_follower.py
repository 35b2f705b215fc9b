"""Follow a recorded chain twenty times as fast while the follower is killed; count requests of many topics.

``python -m benchmarks.chain --part follower`` runs it, and prints three figures. Epochs: the follower runs in a
process of its own that is killed (SIGKILL) at random moments of a replay, and begins again at once. Complete is an
epoch with all workers' values, losses, scores and rewards as the recording has them; our value and the network's
inference are there for a short time, so they are counted where the follower ran all that time. Requests: 55 topics of
two networks, an epoch of five minutes each, with inference's own followers of blocks; time runs twenty times as fast,
and so do all pauses. Memory: ``python -m monitor`` on the same topics, 32 workers in each, with blocks that are made
ten times as fast.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving import running, wait_for
from benchmarks.tools.goals import Goal
from chain.emissions import Emissions, networks
from chain.events import settled_of
from chain.follower import POLL_S as INFERENCE_POLL_S
from chain.follower import Follower
from core.clock import Clock, SystemClock
from core.topic import Target, Topic
from exchange.server import SimulatedExchange
from ledger.database import Database
from ledger.epochs import EpochBook, Stage
from monitor.chain.epoch_follower import EpochFollower
from monitor.chain.heights import POLL_S, Heights
from monitor.chain.looker import Looker
from tests.catalogue import scalar_topics, write_configs
from tests.fakes.busy_chain import BusyChain
from tests.fakes.chain_replay import CUT, OURS, ChainReplay, recorded
from tests.fakes.net import free_port
from tests.fakes.node import simulated_environment

SPEED, KILLS = 20.0, 10
TOPICS, MOST_REQUESTS, MOST_MB = 55, 9_000, 220
WORKERS = 32
LETTERS = "023456789acdefghjklmnpqrstuvwxyz"
WINDOW, EPOCH = 12, 30  # blocks, of the recorded topics
UP_BLOCKS = 4  # that the follower must have run before something goes, for it to have been visible


def main() -> None:
    """Follow a chain until the process is killed: the part of ``epochs`` that has a process of its own."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--follow", nargs=2, metavar=("URL", "LEDGER"), required=True)
    follow(*parser.parse_args().follow)


# --- epochs under kills ----------------------------------------------------------------------------------------------


def recorded_topics() -> list[Topic]:
    """The three topics of the recording, answered by the recorded worker that was this product."""
    return [_topic("localnet", topic_id, OURS) for topic_id in (1, 2, 3)]


def _topic(network: str, topic_id: int, worker: str) -> Topic:
    asset = "ETH"
    return Topic(
        topic_id=topic_id,
        token=asset,
        symbol=f"{asset}USDT",
        target=Target.PRICE,
        horizon_min=10,
        network=network,
        worker=worker,
    )


def follow(url: str, ledger: str) -> None:
    """Follow the replay until killed; says each height that was read, with the time."""
    clock, book = SystemClock(), EpochBook(ledger)
    heights = Heights([url], "localnet", clock, poll_s=(0.02, 0.05))
    follower = EpochFollower(
        "localnet",
        recorded_topics(),
        book,
        clock,
        emissions=partial(_reader, url, "localnet", clock),
        heights=heights,
    )
    while True:
        if follower.step() and follower.newest:
            print(follower.newest.height, flush=True)
        time.sleep(0.02)


def epochs(recording: Path | None, seed: int) -> Iterator[Goal]:
    """Replay the recording with kills, and compare."""
    lines = recorded(CUT)
    if recording:
        lines = [*recorded(recording / "economy.jsonl.gz"), *recorded(recording / "reads.jsonl")]
    with tempfile.TemporaryDirectory() as name, ChainReplay(lines, speed=SPEED).running() as chain:
        url = f"sqlite:///{Path(name) / 'ledger.sqlite3'}"
        Database(url, chain.clock).make_ready()
        seen = _with_kills(chain, url, random.Random(seed))
        book = EpochBook(url)
        rows = {
            (topic.topic_id, epoch.nonce): epoch
            for topic in recorded_topics()
            for epoch, _ in book.epochs_of(topic, 10_000)
        }
        twice = sum(len(book.epochs_of(topic, 10_000)) for topic in recorded_topics()) - len(rows)
        book.close()
    truth, last = _truth(lines), chain.height
    begun = seen[0][0]
    must = {key: one for key, one in truth.items() if key[1] > begun - EPOCH and one["height"] < last - UP_BLOCKS}
    wrong = [key for key, one in must.items() if key not in rows or not _is_whole(rows[key], one)]
    yield Goal(
        what=f"epochs of the recording, {SPEED:.0f} times as fast, {KILLS} kills: complete",
        must="all",
        measured=f"{len(must) - len(wrong)} of {len(must)}, {twice} twice" + (f", not {wrong}" if wrong else ""),
        reached=not wrong and not twice,
    )
    for what, field, first, until in (
        ("our value", "value", WINDOW * 2 // 3, WINDOW - 1),
        ("the network's inference", "combined", WINDOW, EPOCH - 1),
    ):
        visible = [key for key in must if _ran(seen, key[1] + first, key[1] + until)]
        lacking = [key for key in visible if field in rows[key].missing.split(",")]
        lacking = [key for key in lacking if field != "value" or rows[key].active]
        yield Goal(
            what=f"... {what}, where the follower ran while it could be read",
            must="all",
            measured=f"{len(visible) - len(lacking)} of {len(visible)}" + (f", not {lacking}" if lacking else ""),
            reached=not lacking,
        )


def _with_kills(chain: ChainReplay, url: str, chance: random.Random) -> list[tuple[int, int]]:
    """Let followers follow until the recording's end; returns the first and last height that each has read."""
    length_s = (chain.last - chain.first) * 2 / SPEED
    moments_s = sorted(chance.uniform(0.03, 0.95) * length_s for _ in range(KILLS))
    began_s, spans = time.monotonic(), []
    for moment_s in [*moments_s, None]:
        command = [sys.executable, "-m", "benchmarks.chain_follower", "--follow", chain.url, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            heights: list[int] = []
            reader = threading.Thread(target=_collect, args=(process, heights))
            reader.start()
            while not chain.is_over if moment_s is None else time.monotonic() - began_s < moment_s:
                time.sleep(0.02)
            time.sleep(2.0 if moment_s is None else 0.0)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            reader.join()
        if heights:
            spans.append((heights[0], heights[-1]))
    return spans


def _collect(process: subprocess.Popen[str], heights: list[int]) -> None:
    assert process.stdout is not None
    heights.extend(int(line) for line in process.stdout if line.strip().isdecimal())  # the others are of the log


def _ran(spans: Sequence[tuple[int, int]], first: int, last: int) -> bool:
    return any(begun <= first - UP_BLOCKS and last + UP_BLOCKS <= ended for begun, ended in spans)


def _truth(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[int, int], dict[str, Any]]:
    """Read from the recording's events and bodies what each epoch came to, without the product's schedule."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for line in lines:
        if "block" in line:
            for settled in settled_of({"height": str(line["block"]), "finalize_block_events": line["events"]}):
                found[settled.topic_id, settled.nonce] = {"height": line["block"], "settled": settled, "values": {}}
    for line in lines:
        parts = line.get("path", "").strip("/").split("/")
        if parts[2:3] == ["inferences"] and (key := (int(parts[3]), int(parts[4]))) in found:
            listed = json.loads(line["body"])["inferences"]["inferences"]
            found[key]["values"] |= {one["inferer"]: one["value"] for one in listed}
    return found


def _is_whole(epoch: Any, truth: Mapping[str, Any]) -> bool:
    settled = truth["settled"]
    inferers = {one.address: one for one in epoch.inside.inferers}
    return (
        epoch.stage == Stage.SETTLED
        and {address: one.value for address, one in inferers.items()} == truth["values"]
        and {address: one.loss for address, one in inferers.items()} == settled.losses.inferers
        and {address: one.score for address, one in inferers.items()} == settled.scores
        and {address: one.reward for address, one in inferers.items() if one.reward} == settled.rewards
        and epoch.active == (OURS in truth["values"])
        and (epoch.settled_height, epoch.score_ema) == (truth["height"], settled.score_emas.get(OURS))
        and (epoch.combined_loss, epoch.reward) == (settled.losses.combined, settled.rewards.get(OURS))
    )


# --- requests --------------------------------------------------------------------------------------------------------


class _Fast:
    """A clock that runs so many times as fast as the machine's, from now on."""

    def __init__(self, speed: float) -> None:
        self._speed, self._began_s = speed, time.monotonic()
        self._began_ms = SystemClock().now_ms()

    def now_ms(self) -> int:
        return self._began_ms + round(self.elapsed_s() * 1000)

    def elapsed_s(self) -> float:
        return (time.monotonic() - self._began_s) * self._speed

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / self._speed)


def workers(count: int) -> list[str]:
    """Invented addresses."""
    return [f"allo1{LETTERS[place]}{'q' * 37}" for place in range(count)]


@contextmanager
def two_chains(clock: Clock, block_ms: int = 5_000) -> Iterator[dict[str, tuple[BusyChain, list[Topic]]]]:
    """Run two networks with together ``TOPICS`` topics."""
    names = {"allora-mainnet-1": range(1, 16), "allora-testnet-1": range(16, TOPICS + 1)}
    who = workers(WORKERS)
    with contextlib.ExitStack() as stack:
        chains = {}
        for name, ids in names.items():
            chain = BusyChain(name, list(ids), who, clock, block_ms=block_ms)
            topics = [_topic(name, topic_id, who[0]) for topic_id in ids]
            chains[name] = stack.enter_context(chain.running()), topics
        yield chains


def requests_an_hour(minutes: float) -> Goal:
    """Count the requests of inference and monitor to both networks."""
    clock = _Fast(SPEED)
    with tempfile.TemporaryDirectory() as name, two_chains(clock) as chains:
        ledger = f"sqlite:///{Path(name) / 'ledger.sqlite3'}"
        Database(ledger, SystemClock()).make_ready()
        book, over = EpochBook(ledger), threading.Event()
        threads = []
        for network, (chain, topics) in chains.items():
            urls, ids = [chain.url], [topic.topic_id for topic in topics]
            inference_poll_s = (INFERENCE_POLL_S[0] / SPEED, INFERENCE_POLL_S[1] / SPEED)
            of_inference = Follower(
                urls, network, clock, ids, poll_s=inference_poll_s, seconds=clock.elapsed_s, timeout_s=60
            )
            of_inference.start()
            poll_s = (POLL_S[0] / SPEED, POLL_S[1] / SPEED)
            heights = Heights(urls, network, clock, poll_s=poll_s)
            follower = EpochFollower(
                network,
                topics,
                book,
                clock,
                emissions=partial(_reader, chain.url, network, clock),
                heights=heights,
            )
            looker = Looker(follower, book, clock, seconds=clock.elapsed_s)
            threads.append(threading.Thread(target=_steps, args=(follower, looker, over), daemon=True))
            threads[-1].start()
        time.sleep(20 * 60 / SPEED)  # the first epochs and looks come together
        before = [chain.counted.copy() for chain, _ in chains.values()]
        began_s = clock.elapsed_s()
        time.sleep(minutes * 60)
        hours = (clock.elapsed_s() - began_s) / 3600
        asked = [chain.counted - earlier for (chain, _), earlier in zip(chains.values(), before, strict=True)]
        over.set()
        for thread in threads:
            thread.join()
        total = sum(asked, start=asked[0].__class__())
        rows = [row for _, topics in chains.values() for topic in topics for row in book.epochs_of(topic, 1000)]
        print({kind: round(count / hours) for kind, count in total.most_common()}, file=sys.stderr)
        lacking = Counter(epoch.missing for epoch, _ in rows if epoch.stage == Stage.SETTLED)
        print(f"epochs: {len(rows):,}, of the settled lack: {dict(lacking)}", file=sys.stderr)
    an_hour = sum(total.values()) / hours
    return Goal(
        what=f"requests an hour, {TOPICS} five-minute topics of two networks, inference's too",
        must=f"< {MOST_REQUESTS:,}",
        measured=f"{an_hour:,.0f}",
        reached=an_hour < MOST_REQUESTS,
    )


def _reader(url: str, network: str, clock: Clock) -> Emissions | None:
    return networks([url], clock).get(network)


def _steps(follower: EpochFollower, looker: Looker, over: threading.Event) -> None:
    while not over.wait(0.5 / SPEED):
        follower.step()
        looker.step()


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(minutes: float) -> Goal:
    """Measure the monitor's own memory beside the busy chains."""
    with tempfile.TemporaryDirectory() as name, SimulatedExchange(seed=0) as exchange:
        folder = Path(name)
        configs = write_configs(folder, scalar_topics()[:TOPICS])
        by_network = {path.stem: [one["topicId"] for one in json.loads(path.read_text())["worker"]] for path in configs}
        with contextlib.ExitStack() as stack:
            chains = [
                stack.enter_context(BusyChain(network, ids, workers(WORKERS), SystemClock(), block_ms=500).running())
                for network, ids in by_network.items()
            ]
            for path, chain in zip(configs, chains, strict=True):
                content = json.loads(path.read_text())
                content["wallet"]["nodeRpcs"] = [chain.url.replace("127.0.0.1", "localhost")]
                path.write_text(json.dumps(content))
            environment = simulated_environment(exchange, folder, free_port()) | {
                "CONFIG_FILE": ",".join(map(str, configs)),
                "MONITOR_PORT": str(free_port()),
                "LCD_URLS": ",".join(chain.url for chain in chains),
                "WORKER_ADDRESS": ",".join([workers(1)[0]] * len(configs)),
                "LOG_LEVEL": "warning",
            }
            Database(f"sqlite:///{folder / 'ledger.sqlite3'}", SystemClock()).make_ready()
            with running(["-m", "monitor"], environment, folder / "log") as process:
                wait_for(f"http://127.0.0.1:{environment['MONITOR_PORT']}/healthz")
                most = 0
                end_s = time.monotonic() + minutes * 60
                while time.monotonic() < end_s:
                    most = max(most, psutil.Process(process.pid).memory_info().rss)
                    time.sleep(1)
            book = EpochBook(f"sqlite:///{folder / 'ledger.sqlite3'}")
            rows = sum(
                len(book.epochs_of(f"{network}/{topic_id}", 10_000, inside=False))
                for network, ids in by_network.items()
                for topic_id in ids
            )
            book.close()
            print((folder / "log").read_text()[-2000:], file=sys.stderr)
    topics = sum(map(len, by_network.values()))
    return Goal(
        what=f"the monitor's memory, {topics} topics, {rows:,} epochs of {WORKERS} workers",
        must=f"< {MOST_MB} MB",
        measured=f"{most / 1e6:.0f} MB",
        reached=most / 1e6 < MOST_MB and rows > topics,
    )


if __name__ == "__main__":
    main()
