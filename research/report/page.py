"""``report.html``: one file that needs no other, for a phone and for a wide screen, by day and by night."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from admission.words import CRITERIA
from core.topic import split_symbol
from core.words import number_text, p_text
from research.report.plots import direction_plot, forecast_and_truth, loss_over_time, reliability_plot
from research.report.scores import NEWEST, SERVED, SURE, Scored
from research.words import AT_THE_BASE, criteria_met, label, ratio_text

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1f26; --faint: #667085; --paper: #fff; --line: #d9dde5; --good: #0a7d43;
  --bad: #b42318; --card: #f6f7f9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --faint: #98a1b0; --paper: #14161b; --line: #333944;
  --good: #4ade80; --bad: #fb7a70; --card: #1c1f26; } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto; padding: 1rem;
  max-width: 76rem }
h1 { font-size: 1.6rem; margin: .2rem 0 } h2 { margin: 2.2rem 0 .4rem; font-size: 1.25rem }
h3 { margin: 2rem 0 .2rem; font-size: 1.05rem } p, ul { margin: .3rem 0; max-width: 62rem }
.faint, figcaption, .how { color: var(--faint); font-size: .88rem }
.scroll { overflow-x: auto; margin: .5rem 0 }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th { font-weight: 600; vertical-align: bottom } th.l, td.l { text-align: left }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper) }
@media (max-width: 40rem) { th, td { padding: .25rem .4rem } table { font-size: .82rem }
  td.l:first-child { white-space: normal } }
td.why { white-space: normal; min-width: 16rem; text-align: left }
.good { color: var(--good) } .bad { color: var(--bad) } .strong { font-weight: 650 }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: .8rem }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: .6rem .6rem .4rem }
figure svg { width: 100%; height: auto; display: block; overflow: hidden }
figure label { cursor: zoom-in; display: block; position: relative } figure input { position: absolute; opacity: 0 }
figure:focus-within { outline: 1px solid var(--line) }
figure:has(:checked) { position: fixed; inset: 1rem; z-index: 2; overflow: auto; border: 1px solid var(--faint) }
figure:has(:checked) label { cursor: zoom-out } figure:has(:checked) svg { height: calc(100vh - 8rem) }
.verdicts { list-style: none; padding: 0; font-size: 1.05rem; margin: .8rem 0 }
.verdicts li { margin: .25rem 0 } .plain { color: var(--faint) }
figure svg text { font-family: system-ui, sans-serif }
.simulated { background: var(--bad); color: var(--paper); padding: .5rem .8rem; border-radius: 8px; font-weight: 650 }
details { margin: .4rem 0 } summary { cursor: pointer; color: var(--faint); font-size: .92rem }
code { background: var(--card); padding: .1rem .3rem; border-radius: 4px; overflow-wrap: anywhere; font-size: .85rem }
.promoted { color: var(--good); font-weight: 650 } .demoted { color: var(--bad); font-weight: 650 }
"""

NOTHING_GAINED = 0.99995  # a ratio from here on reads 1.0000

_KINDS = {"better": "good", "worse": "bad"}  # a verdict's colour


def page(report: Mapping[str, Any], scored: Sequence[Scored]) -> str:
    """The whole page.

    Args:
        report: as in report.json.
        scored: the rows behind its topics, in the same order.
    """
    title = f"Backtest, {report['span']['words']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="simulated">{escape(report["prices"])}</p>' if report["simulated"] else "",
        _verdicts(report),
        _introduction(report),
        "<h2>All topics</h2>",
        _summary(report),
        "<h2>What the gate decided</h2>",
        _gate(report),
        "<h2>Topic by topic</h2>",
        *(_topic(of_topic, one, report) for of_topic, one in zip(report["topics"], scored, strict=True)),
        _directions(report),
        "<h2>How it was made</h2>",
        _made(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _verdicts(report: Mapping[str, Any]) -> str:
    lines = (f"<li><b>{escape(_name(one))}</b>: {_verdict(one)}; {_admitted(one)}</li>" for one in report["topics"])
    about = f"Admission here is of what was served, {AT_THE_BASE}." if report["topics"] else ""
    return f'<ul class="verdicts">{"".join(lines)}</ul>' + _how(about)


def _verdict(of_topic: Mapping[str, Any]) -> str:
    verdict = of_topic["verdict"]
    return f'<span class="{_KINDS.get(verdict["found"], "plain")}">{escape(verdict["words"])}</span>'


def _admitted(of_topic: Mapping[str, Any]) -> str:
    return f'<span class="plain">{escape(of_topic["admission"]["words"])}</span>'


def _introduction(report: Mapping[str, Any]) -> str:
    steps = len({step["from"] for step in report["steps"]})
    apart = report["fingerprint"]["retraining every, days"]
    trainings = f"{steps} trainings, {apart} days apart, each on" if steps > 1 else "One training, on"
    said = (
        f"{trainings} the klines that had closed by then; what the gate let through answered until the next or the "
        f"end. Source: {report['source']}."
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in report["notes"])
    return f"<p>{escape(said)}</p>" + (f"<ul>{notes}</ul>" if notes else "")


def _summary(report: Mapping[str, Any]) -> str:
    baselines = list(report["baselines"])
    rows = []
    for one in report["topics"]:
        ratios, against = one["ratio_to_naive"], one["against"][SERVED]
        others = [name for name in baselines if name in ratios]
        best = min((ratios[name] for name in others if ratios[name] is not None), default=1.0)
        rows.append(
            [
                _cell(_name(one), "l"),
                _cell(one["loss"], "l"),
                _cell(f"{one['rows']:,}"),
                _ratio(one, SERVED, strong=True),
                _p(None if SERVED in one["equal_to_naive"] else against["naive"]["dm_p"]),
                _ratio(one, NEWEST),
                *(
                    _cell(_ratio_words(one, name), "strong" if ratios.get(name) == best < NOTHING_GAINED else "")
                    for name in baselines
                ),
                *(
                    _p(against[name]["dm_p"]) if name in against else _cell("")
                    for name in ("har", "lightgbm")
                    if name in baselines
                ),
                _cell(f"{criteria_met(one, SERVED)} / {len(CRITERIA)}"),
            ]
        )
    heads = ["topic", "loss", "rows", "served", "p", "newest", *(label(name) for name in baselines)]
    heads += [f"p, {label(name)}" for name in ("har", "lightgbm") if name in baselines] + ["criteria"]
    about = "; ".join(f"{label(name)}: {words}" for name, words in report["baselines"].items())
    return _table(heads, rows, left=2) + _how(
        "served, newest and each baseline: mean loss over that of the naive forecast on the same rows, in the topic's "
        "own loss; below 1 is better; naive: the same forecast as naive, which adds nothing. Green: better than naive, "
        "red: worse, and luck alone would not do it (p below 0.05 or above 0.95).",
        "served: what the gate let through, naive where it let nothing through. newest: the newest network whatever "
        "the gate said.",
        "p: chance that luck alone gives served such a lead over naive or, where one is named, over that baseline "
        "(Diebold and Mariano, allowing for overlapping horizons); empty where both said the same.",
        f"Baselines, fitted at each date on the same rows; the best of each topic is bold. {about}." if about else "",
        "criteria: how many of the network's seven criteria of admission to mainnet what was served meets over the "
        "whole span (table in each topic).",
    )


def _directions(report: Mapping[str, Any]) -> str:
    groups = report["pooled_directions"]
    if not groups:
        return ""
    rows, figures = [], []
    for group in groups:
        top, name = group["most_confident_fifth"], " / ".join(group["horizons"])
        rows.append(
            [
                _cell(name, "l"),
                _cell(", ".join(_short(symbol) for symbol in group["symbols"]), "l"),
                _cell(f"{top['rows']:,}"),
                _cell(f"{top['effective']:,.0f}"),
                _cell(f"{100 * top['rate']:.2f} %"),
                _p(top["p"]),
            ]
        )
        figures.append(_figure(direction_plot(group["deciles"], name), f"{name}: direction by confidence"))
    return (
        "<h2>Direction before calibration, all symbols together</h2>"
        "<details><summary>What networks alone say of up and down; it is not what was served</summary>"
        + _table(["horizon", "symbols", "rows", "worth", "right", "p"], rows, left=2)
        + _how(
            "The fifth of the rows in which the network was most confident: how often it had the direction right. "
            "Confidence: its forecast before calibration, in standard deviations of the market of that minute.",
            "worth: independent rows that they amount to, since horizons overlap and symbols move together; p: chance "
            "of such a rate by tossing a coin. In the pictures the band is where 95 of 100 coins lie.",
        )
        + f'<div class="figures">{"".join(figures)}</div></details>'
    )


def _gate(report: Mapping[str, Any]) -> str:
    decided = report["decisions"]
    dates = sorted({one["time_ms"] for one in decided})
    by_place = {(one["topic"], one["time_ms"]): one for one in decided}
    starts = {step["from"][:10] for step in report["steps"]}
    names = sorted(starts)
    rows, reasons = [], []
    for of_topic in report["topics"]:
        if of_topic["unseen"]:
            continue
        cells = [_cell(_name(of_topic), "l")]
        for time_ms in dates:
            one = by_place.get((of_topic["topic"], time_ms))
            cells.append(
                f'<td class="{_decision(one)}" title="{escape(_why(one))}">{_mark(one)}</td>' if one else _cell("")
            )
        rows.append(cells)
        reasons += [
            [
                _cell(_name(of_topic), "l"),
                _cell(names[number], "l"),
                _cell(_mark(one), "l"),
                f'<td class="why">{escape(_why(one))}</td>',
                *_test(one["verdict"]),
            ]
            for number, time_ms in enumerate(dates)
            if (one := by_place.get((of_topic["topic"], time_ms)))
        ]
    return (
        _table(["topic", *(name[5:] for name in names)], rows, left=1)
        + _how(
            "At each date: promoted, the new network serves from here on; kept, the one before it goes on; demoted, it "
            "was worse than naive and an earlier one or naive serves again; naive, no network has the topic, or its "
            "network adds nothing."
        )
        + "<details><summary>Each decision with its reason</summary>"
        + _table(["topic", "date", "", "reason", "p", "worth", "blocks won"], reasons, left=4)
        + _how(
            "p: chance of such a lead over naive without skill, as the gate reckons it; worth: independent rows that "
            "the judged ones amount to; blocks won: of the stretches of time that it is asked about one by one. "
            "All: the test over all symbols of the horizon counted, not the topic's own. Empty: nothing to test."
        )
        + "</details>"
    )


def _mark(decision: Mapping[str, Any]) -> str:
    mark = _decision(decision)
    return f"demoted, {mark}" if decision["demoted"] and mark != "demoted" else mark


def _decision(decision: Mapping[str, Any]) -> str:
    """As the page calls it: what adds nothing to the naive forecast is not promoted in green."""
    return "naive" if decision["naive"] else str(decision["decision"])


def _why(decision: Mapping[str, Any]) -> str:
    return "; challenger: ".join(part for part in (decision["demoted"], decision["reason"]) if part)


def _test(verdict: Mapping[str, Any]) -> list[str]:
    """The figures of the gate's test against naive."""
    if verdict["p"] is None:
        return [_cell("")] * 3
    of_all = " (all)" if verdict["pooled"] else ""
    blocks = f"{verdict['won']} of {verdict['blocks']}{of_all}"
    return [_p(verdict["p"]), _cell(f"{verdict['effective']:,.0f}"), _cell(blocks)]


def _topic(of_topic: Mapping[str, Any], one: Scored, report: Mapping[str, Any]) -> str:
    is_naive = SERVED in of_topic["equal_to_naive"]
    figures = [
        _figure(
            loss_over_time(of_topic),
            "Loss against naive over time: falling gains on it, the end is the whole lead; where a line that leaves "
            "the picture ends stands in the legend",
        ),
        _figure(
            forecast_and_truth(one, is_naive),
            "The last two days"
            if not one.is_return
            else "What is served, which is no move, and what the network said against what came true, a sample"
            if is_naive
            else "What the network says against what came true, a sample",
        ),
        _figure(
            reliability_plot(of_topic, one.topic.unit),
            "Mean outcome by tenth of the forecast, and where it lies in 95 of 100 cases; on the dotted line a "
            "forecast means what it says"
            + (" (before calibration)" if one.is_return else "")
            + "; grey: the mean of all rows",
        ),
    ]
    if one.is_return:
        deciles = of_topic["direction"]["deciles"]
        figures.append(
            _figure(direction_plot(deciles, of_topic["topic"]), "Direction by confidence; band: 95 of 100 coins")
        )
    aside = ""
    if one.is_return and is_naive:  # drawn large, the noise that calibration took out would look like skill
        figures, unused = figures[:2], figures[2:]
        aside = (
            "<details><summary>The network before calibration, which answers nothing here</summary>"
            f'<div class="figures">{"".join(unused)}</div></details>'
        )
    ratios, against = of_topic["ratio_to_naive"], of_topic["against"]
    rows = [
        [
            _cell(label(name), "l"),
            _cell(f"{of_topic['losses'][name]:.4g}"),
            _cell(_ratio_words(of_topic, name)),
            *(
                part
                for ours in (SERVED, NEWEST)
                for part in (
                    [_cell(_difference(against[ours][name]["difference"])), _p(against[ours][name]["dm_p"])]
                    if name in against[ours]
                    else [_cell(""), _cell("")]
                )
            ),
        ]
        for name in ratios
    ]
    heads = ["", f"mean {of_topic['loss']}", "over naive", "served less it", "p", "newest less it", "p"]
    unseen = " <span class='faint'>(a symbol that was in no training)</span>" if of_topic["unseen"] else ""
    return (
        f"<h3>{escape(_name(of_topic))}{unseen}</h3><p>{_verdict(of_topic)}; {_admitted(of_topic)}</p>"
        f'<div class="figures">{"".join(figures)}</div>{aside}'
        f"<details><summary>Losses, tests and criteria of admission</summary>{_table(heads, rows, left=1)}"
        f"{_criteria(of_topic)}</details>"
    )


def _criteria(of_topic: Mapping[str, Any]) -> str:
    admission = of_topic["admission"]
    columns = [(baseline, ours) for baseline in admission["criteria"] for ours in (SERVED, NEWEST)]
    several = len(admission["criteria"]) > 1
    rows = []
    for name, (words, must_be) in CRITERIA.items():
        cells = [_cell(words, "l"), _cell(must_be, "l")]
        for baseline, ours in columns:
            one = admission["criteria"][baseline][ours][name]
            cells += [_cell(number_text(one["value"])), _cell(number_text(one["bound"]), "good" * one["passed"])]
        rows.append(cells)
    heads = ["criterion", "bound must be"]
    for baseline, ours in columns:
        heads += [f"{ours}, {baseline}" if several else ours, "bound"]
    apart = f"{admission['rows']:,} rows, {admission['epoch_min']:g} minutes apart"
    words = (
        " For volatility they are of the change ln(target / last window), less what a baseline expects of it: back to "
        "the last day's mean, or a trailing fit over seven days. Both must be beaten."
        if of_topic["target"] == "volatility"
        else " A forecast of no move has no direction and counts as wrong."
    )
    return _table(heads, rows, left=2) + _how(
        f"The network's seven criteria of admission to mainnet, on {apart}; green: the bound, which decides, is in "
        f"its range.{words}",
        "Of the forecast as it is here: made at the base with nothing known of the interval, and not stretched. What "
        "the running node would say of it, birnn ready shows.",
    )


def _made(report: Mapping[str, Any]) -> str:
    rows = [
        [
            _cell(step["from"][:10], "l"),
            _cell(step["panel"], "l"),
            _cell(step["version"], "l"),
            _cell(f"{step['rows']:,}"),
            _cell(f"{step['took_s']:.0f}"),
        ]
        for step in report["steps"]
    ]
    went_in = "".join(
        f"<li>{escape(name)}: {escape(_words(value))}</li>"
        for name, value in report["fingerprint"].items()
        if name != "topics"
    )
    return (
        f"<p><code>{escape(report['command'])}</code></p>"
        f'<p class="faint">made {escape(report["made"])}; the steps took {report["took_s"]:.0f} s</p>'
        f"<details><summary>Steps and everything that went in</summary>"
        + _table(["date", "panel", "version", "rows", "seconds"], rows, left=3)
        + f"<ul class='faint'>{went_in}</ul></details>"
    )


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def _name(of_topic: Mapping[str, Any]) -> str:
    number = "unseen" if of_topic["unseen"] else of_topic["topic"].rpartition("/")[2]
    return f"{number} · {_short(of_topic['symbol'])} {of_topic['target'].replace('_', '-')} {of_topic['horizon']}"


def _short(symbol: str) -> str:
    return split_symbol(symbol, "")[0]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    top = "".join(f"<th{' class=l' if place < left else ''}>{escape(head)}</th>" for place, head in enumerate(heads))
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def _ratio(of_topic: Mapping[str, Any], ours: str, *, strong: bool = False) -> str:
    p = None if ours in of_topic["equal_to_naive"] else of_topic["against"][ours]["naive"]["dm_p"]
    kind = "" if p is None else "good" if p < SURE else "bad" if p > 1 - SURE else ""
    return _cell(_ratio_words(of_topic, ours), f"{kind} strong".strip() if strong and p is not None else kind)


def _ratio_words(of_topic: Mapping[str, Any], name: str) -> str:
    return ratio_text(of_topic["ratio_to_naive"].get(name), is_naive=name in of_topic["equal_to_naive"])


def _p(p: float | None) -> str:
    return _cell(p_text(p))


def _difference(number: float) -> str:
    return f"{number:+.3g}" if number else "same"


def _figure(svg: str, caption: str) -> str:
    """A picture that a click enlarges, and another one makes small again."""
    return (
        f'<figure><label><input type="checkbox" aria-label="enlarge"/>{svg}</label>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _how(*sentences: str) -> str:
    return "".join(f'<p class="how">{escape(sentence)}</p>' for sentence in sentences if sentence)
