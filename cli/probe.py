"""Which read paths a host of the chain's REST interface answers, in which form and how fast."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType

from chain.addresses import MISREAD, Address, ChainFault, Unspoken, Untold
from chain.emissions import Emissions
from chain.lcd import Lcd
from chain.shapes import HostSeen
from chain.versions import (
    PATHS,
    forecasters_of,
    inferences_of,
    last_nonce_of,
    latest_inference_of,
    losses_of,
    network_inference_of,
    nonces_of,
    path_of,
    reputer_losses_of,
    score_of,
    scores_of,
    topic_of,
)
from cli.screen import Column, asking, plain, print_json, screen, show_parts, table_of
from core.clock import Clock, SystemClock
from core.errors import ConfigError
from core.net.http import one_line
from core.settings import Settings

TIMEOUT_S = 10.0  # a person waits, and a slow host is to be seen as slow
ANSWERS, NOT_THERE, NOT_SPOKEN, REFUSED, FAILED, MISREAD_AS = (
    "answers",
    "not there",
    "not in this version",
    "refuses",
    "fails",
    "another form",
)
# Reads whose form is checked, where the host answers.
FORMS: Mapping[str, Callable[[Any], object]] = {
    "topic": topic_of,
    "open_nonces": nonces_of,
    "open_windows": nonces_of,
    "latest_inference": latest_inference_of,
    "inferences": inferences_of,
    "forecasts": forecasters_of,
    "losses": losses_of,
    "scores": scores_of,
    "reputers": reputer_losses_of,
    "network_inference": network_inference_of,
    "score_ema": score_of,
    "lowest_score": score_of,
    "last_worker_commit": last_nonce_of,
    "last_reputer_commit": last_nonce_of,
}
WORKER, SETTLED = ("inferences", "forecasts"), ("losses", "scores", "reputers")  # of a closed, of a settled epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One path, asked once."""

    read: str
    path: str
    answer: str
    ms: float
    note: str = ""


def probe_hosts(settings: Settings, topic: int | None, address: str | None, *, as_json: bool) -> bool:
    """Ask each host of LCD_URLS for each path and show what came; False if a host cannot be used.

    Args:
        topic: id of the topic to read; None takes the newest active one.
        address: of the worker to read; None takes the first of WORKER_ADDRESS, else one of the topic's.
    Raises:
        ConfigError: no host is set.
    """
    if not settings.lcds:
        raise ConfigError("no host to ask: set LCD_URLS, or give --url")
    worker = address or settings.worker_address.partition(",")[0].strip()
    found = []
    with asking("asking the chain") as tell:
        for url in settings.lcds:
            host = Address(url).host
            tell(host)
            found.append({"host": host, **_probed(url, topic, worker, SystemClock())})
    if as_json:
        print_json({"hosts": found})
    else:
        show_parts(part for one in found for part in _shown(one))
    return not any("fault" in one for one in found)


def _probed(url: str, topic: int | None, worker: str, clock: Clock) -> dict[str, Any]:
    lcd = Lcd([url], clock, timeout_s=TIMEOUT_S)
    try:
        host = lcd.host()
        emissions = Emissions(host.chain_id, lcd)
        topic = _newest_active(emissions) if topic is None else topic
        nonces = {**dict.fromkeys(WORKER, emissions.last_worker_nonce(topic))}
        nonces |= dict.fromkeys(SETTLED, emissions.last_reputer_nonce(topic))
        worker = worker or _some_worker(emissions, topic, nonces["inferences"])
    except ChainFault as fault:
        return {"fault": plain(str(fault)).removeprefix(f"{Address(url).host}: ")}
    reads = [_read(lcd, host, name, clock, topic, nonces.get(name) or 0, worker) for name in PATHS]
    return {
        **asdict(host),
        "behind_s": round((clock.now_ms() - host.time_ms) / 1000, 1),
        "topic": topic,
        "worker": worker,
        "median_ms": sorted(read.ms for read in reads)[len(reads) // 2],
        "reads": [asdict(read) for read in reads],
    }


def _newest_active(emissions: Emissions) -> int:
    newest = emissions.next_topic_id() - 1
    for topic_id in range(newest, 0, -1):
        if emissions.is_active(topic_id):
            return topic_id
    return max(newest, 1)


def _some_worker(emissions: Emissions, topic: int, nonce: int | None) -> str:
    values = emissions.inferences(topic, nonce) if nonce else ()
    return values[0].inferer if values else "allo1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqas6usy"  # of no one


def _read(lcd: Lcd, host: HostSeen, name: str, clock: Clock, topic: int, nonce: int, worker: str) -> Read:
    arguments: dict[str, object] = {"topic": topic, "nonce": nonce, "address": worker, "height": host.height - 1}
    before_s = clock.elapsed_s()
    note = ""
    try:
        body = lcd.ask(name, lambda body: body, **arguments)
        answer = NOT_THERE if body is None else ANSWERS
        if body is not None and name in FORMS:
            FORMS[name](body)
    except Unspoken:
        answer = NOT_SPOKEN
    except Untold as fault:
        answer, note = REFUSED, plain(str(fault))
    except ChainFault as fault:
        answer, note = FAILED, plain(str(fault))
    except MISREAD as error:
        answer, note = MISREAD_AS, plain(one_line(repr(error)))
    took_ms = round((clock.elapsed_s() - before_s) * 1000, 1)
    return Read(read=name, path=path_of(name, host.api, arguments), answer=answer, ms=took_ms, note=note)


def _shown(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    if "fault" in found:
        yield f"{found['host']} cannot be used: {found['fault']}"
        return
    release = found["release"] or "not told"
    yield (
        f"{found['host']}: {found['chain_id']}, emissions API {found['api']}, release {release}, "
        f"height {found['height']}, {found['behind_s']:.0f} s old{', catching up' if found['catching_up'] else ''}; "
        f"half of the answers within {found['median_ms']:.0f} ms"
    )
    columns = (
        Column(heading="read"),
        Column(heading="answer"),
        Column(heading="ms", right=True),
        Column(heading="path", wraps=True),
        Column(heading="note", wraps=True, least_width=120),
    )
    rows = [(read["read"], read["answer"], f"{read['ms']:.0f}", read["path"], read["note"]) for read in found["reads"]]
    yield table_of(columns, rows, screen().width)
    for read in found["reads"]:
        if read["answer"] == MISREAD_AS:
            yield f"{read['path']} has another form than this worker reads: please report it with this output"
