"""How page and verbs write what the chain made of our answers."""

from collections.abc import Iterable, Iterator
from decimal import Decimal

from core.clock import MINUTE_MS, iso
from core.show.words import counted, percent_text
from monitor.chain.api import ChainShape
from monitor.chain.results import SPAN_DAYS, ChainSeen
from monitor.watched import Checked

UALLO = Decimal(10) ** 18  # in an ALLO
OLD_MS = 5 * MINUTE_MS  # a chain that was last seen earlier is out of sight
SAME = 1e-9  # a smaller change of the network's loss is none
NOT_READ = (
    "The chain is not read, so nobody sees whether answers arrive and what they earn: set LCD_URLS to a host of the "
    "chain's REST interface and WORKER_ADDRESS to the address of the worker's wallet, and start the monitor again"
)
NO_ADDRESS = "WORKER_ADDRESS is not set, so the epochs of our worker cannot be told from those of others"
NO_EPOCHS = "No epoch has been seen on the chain yet"


def chain_note(is_read: bool, seen_ms: int | None, now_ms: int) -> str:
    """Say why what is known of a network's chain may be old; empty while the chain is seen.

    >>> chain_note(True, 1_796_004_000_000, 1_796_004_060_000)
    ''
    >>> chain_note(True, 1_796_004_000_000, 1_796_008_000_000)
    'Chain not seen since 2026-11-30 02:00 UTC: birnn doctor asks its hosts (LCD_URLS)'
    """
    if seen_ms is None:
        return "The chain has not been seen yet: birnn doctor asks its hosts (LCD_URLS)" if is_read else NOT_READ
    if is_read and now_ms - seen_ms < OLD_MS:
        return ""
    since = f"Chain not seen since {iso(seen_ms)[:16].replace('T', ' ')} UTC"
    return f"{since}: {'birnn doctor asks its hosts (LCD_URLS)' if is_read else 'LCD_URLS is no longer set'}"


def chain_shape(chain: ChainSeen, key: str, now_ms: int) -> ChainShape | None:
    """What ``/api/topics`` says of the chain in a topic of this ``Topic.key``; None: not read, and never seen."""
    one, seen_ms = chain.topics.get(key), chain.seen_ms.get(key.rpartition("/")[0])
    if not chain.is_read and one is None and seen_ms is None:
        return None
    return ChainShape.of(one, seen_ms, chain_note(chain.is_read, seen_ms, now_ms))


def headline_words(topics: Iterable[ChainShape | None]) -> tuple[str, str]:
    """The headline figure over several topics, and its words; both empty before an epoch is over."""
    seen = [one for one in topics if one is not None]
    won, opened, unknown = (sum(getattr(one, name) for one in seen) for name in ("won", "opened", "unknown"))
    if not opened:
        return "", ""
    more = f"; the end of {counted(unknown, 'epoch')} was not seen" if unknown else ""
    return f"{won:,} of {opened:,}", f"epochs won of epochs open, {SPAN_DAYS} days{more}"


def allo(uallo: str | None) -> str:
    """An amount of uallo in ALLO, to four digits.

    >>> allo("362517303271199268.8872"), allo("0"), allo(None)
    ('0.3625 ALLO', '0 ALLO', '-')
    """
    return "-" if uallo is None else f"{Decimal(f'{Decimal(uallo) / UALLO:.4g}'):,f} ALLO"


def loss_unit(logarithms: bool | None) -> str:
    """Say what the chain's losses are.

    >>> loss_unit(True), loss_unit(False), loss_unit(None)
    ('log10 of the loss', 'the loss itself', 'the loss itself or its log10, which is not known yet')
    """
    if logarithms is None:
        return "the loss itself or its log10, which is not known yet"
    return "log10 of the loss" if logarithms else "the loss itself"


def decimal_words(text: str | float | None) -> str:
    """
    >>> decimal_words("-0.7393172899364057"), decimal_words("0.00017"), decimal_words(None), decimal_words("12345678")
    ('-0.7393', '0.00017', '-', '12,350,000')
    """
    return "-" if text is None else f"{Decimal(f'{Decimal(text):.4g}'):,f}"


def contribution_words(change: str | float | None, logarithms: bool | None) -> str:
    """Say what the network's loss would be without our value.

    Args:
        change: the network's loss without our value less its loss with our value.

    >>> contribution_words(0.30103, True)
    "the network's loss would be 2 times as high without our value"
    >>> contribution_words(-0.0969, True)
    "the network's loss would be 0.8 times as high without our value: it would do better"
    """
    if change is None:
        return "not known"
    number = float(change)
    if abs(number) < SAME:
        return "none: the network's loss is the same without our value, so our value earns nothing"
    better = ": it would do better" if number < 0 else ""
    if logarithms:
        return f"the network's loss would be {_times(number)} times as high without our value{better}"
    side = "higher" if number > 0 else "lower"
    return f"the network's loss would be {decimal_words(abs(number))} {side} without our value{better}"


def _times(logarithm: float) -> str:
    return f"{Decimal(f'{10**logarithm:.3g}'):,f}" if logarithm < 300 else f"10^{logarithm:.0f}"


def where_we_stand(one: ChainShape) -> Iterator[tuple[str, str]]:
    """Yield what is said of the newest settled epochs of a topic, each with a heading."""
    if not one.epochs:
        return
    if one.loss is not None:
        yield (
            "loss",
            f"{decimal_words(one.loss)} on average (median inferer {decimal_words(one.median_loss)}, network "
            f"{decimal_words(one.combined_loss)}, naive {decimal_words(one.naive_loss)}); "
            f"{loss_unit(one.logarithms)}, smaller is better",
        )
    if one.rank is not None:
        yield "rank", f"{one.rank:.1f} of {one.ranked:.1f} inferers on average, by reward"
    if one.share is not None:
        yield "share of reward", f"{percent_text(one.share)} on average; {allo(one.reward)} in all"
    if one.above_reward is not None:
        yield "one place up", f"would have taken {allo(one.above_reward)} where ours took {allo(one.ranked_reward)}"
    yield "contribution", contribution_words(one.contribution, one.logarithms)


def checked_words(checked: Checked) -> Iterator[tuple[str, str]]:
    """Say how a topic stands against the chain, each with a heading: contract, unit, truth."""
    if checked.contract is not None:
        faults = [f"{fault.what} ({fault.remedy})" for fault in checked.contract]
        yield "Contract", "; ".join(faults) or "horizon, loss and form of the answer are those of the chain"
    if checked.unit:
        yield "Unit", checked.unit.line
    if checked.truth:
        epochs = counted(checked.truth.epochs, "epoch")
        yield "Truth", f"the reputers' is {checked.truth.bp:.3g} basis points from ours (median of {epochs})"
