"""The tables and the JSON of ``birnn truth``."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType

from cli.screen import ROOMY, Column, table_of
from core.topic import Topic
from truth.ranking import WITHIN_BP, difference_bp
from truth.recovered import Recovered
from truth.study import Study

SHOWN = 12  # candidates


def truth_json(found: Study) -> dict[str, Any]:
    """Return the document of ``--json``; an epoch without a truth says why."""
    epochs = []
    for number, (nonce, one) in enumerate(zip(found.nonces, found.truths, strict=True)):
        epoch: dict[str, Any] = {"nonce": nonce, "truth": None, "error": None, "inferers": []}
        if isinstance(one, Recovered):
            epoch |= {"truth": float(one.truth), "error": float(one.error), "inferers": list(one.inferers)}
        else:
            epoch["why"] = one
        epoch["candidates"] = {candidate.name: values[number] for candidate, values in found.values.items()}
        epochs.append(epoch)
    ranking = [
        {"candidate": one.candidate.name, "within": one.within, "of": one.of, "median_bp": one.median_bp}
        for one in found.ranking.ranks
    ]
    return {"epochs": epochs, "ranking": ranking, "verdict": found.ranking.verdict}


def truth_parts(topic: Topic, found: Study, width: int) -> Iterator[RenderableType]:
    """Yield the epochs, the ranking and the verdict."""
    best = found.ranking.ranks[0].candidate if found.ranking.ranks else None
    columns = [
        Column(heading="nonce", right=True),
        Column(heading="truth", right=True),
        Column(heading="error", right=True, least_width=ROOMY),
        Column(heading="inferers", right=True, least_width=ROOMY),
        Column(heading=best.name if best else "no candles", wraps=True, right=True),
    ]
    rows, whys = [], dict[str, int]()
    for number, (nonce, one) in enumerate(zip(found.nonces, found.truths, strict=True)):
        value = found.values[best][number] if best else None
        cells = ["" if value is None else f"{value:.9g}"]
        if isinstance(one, Recovered):
            if value is not None:
                cells = [f"{value:.9g} ({difference_bp(topic, value, float(one.truth)):.2f} bp)"]
            rows.append([str(nonce), f"{one.truth:.12g}", f"{one.error:.1g}", str(len(one.inferers)), *cells])
        else:
            whys[one] = whys.get(one, 0) + 1
            rows.append([str(nonce), "not told", "", "", *cells])
    yield table_of(columns, rows, width, title=f"topic {topic.key}: {topic.symbol} {topic.asked} {topic.horizon}")
    for why, count in whys.items():
        yield f"not told in {count} of {len(found.nonces)} epochs: {why}"
    ranked = [
        [one.candidate.name, f"{one.within} of {one.of}", "" if one.median_bp is None else f"{one.median_bp:.2f}"]
        for one in found.ranking.ranks[:SHOWN]
    ]
    if ranked:
        headings = [
            Column(heading="candidate", wraps=True),
            Column(heading=f"within {WITHIN_BP} bp", right=True),
            Column(heading="median bp", right=True),
        ]
        yield table_of(headings, ranked, width)
    yield found.ranking.verdict
