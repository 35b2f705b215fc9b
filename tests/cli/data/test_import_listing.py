"""``birnn data import`` of a pair from its first minute on, whose first closes are more than twofold apart."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.clock import MINUTE_MS
from klines.klines import PRICE_COLUMNS, Klines
from market.store.files.table_files import write_klines
from market.store.kline_store import KlineStore
from tests.cli.data.stand import ETH, data
from tests.fakes.klines import random_walk_klines

ROWS = 1240
WALK = random_walk_klines(ROWS, first=4.4)


def at_levels(steps: Sequence[tuple[int, float]]) -> Klines:
    """The walk with its prices times so much up to each row."""
    level, first = np.ones(ROWS), 0
    for last, factor in steps:
        level[first:last], first = factor, last
    told = (*PRICE_COLUMNS, "quote_volume", "taker_buy_quote")
    return replace(WALK, **{name: getattr(WALK, name) * level for name in told})


def stored(folder: Path) -> Klines:
    return KlineStore(folder / "klines" / "binance").read("ETHUSDT", MINUTE_MS, 0, 2**62)


LISTED = [(1, 0.098 / 4.4), (2, 0.73 / 4.4), (3, 1.95 / 4.4)]


@pytest.mark.parametrize(
    ("steps", "odd"),
    [
        pytest.param(LISTED, 3, id="first minutes"),
        pytest.param([(600, 0.4)], 1, id="a leap later"),
        pytest.param([(300, 9.0), (ROWS - 1, 3.0)], 2, id="two falls, the second a minute ago"),
        pytest.param([(600, 1.0), (700, 3.0)], 2, id="a level that is left for another and comes back"),
    ],
)
def test_a_new_listing_is_taken_and_what_is_odd_is_named(
    tmp_path: Path, steps: Sequence[tuple[int, float]], odd: int
) -> None:
    path, klines = tmp_path / "some.csv", at_levels(steps)
    write_klines(path, "ETHUSDT", klines)
    for counts in (f"{ROWS:,} new, 0 replaced, 0 the same", f"0 new, 0 replaced, {ROWS:,} the same"):
        code, shown, _ = data(tmp_path, "import", str(path), *ETH)
        assert code == 0
        assert counts in shown
        assert f"; {odd} odd, the first of 2023-11-1" in shown
        assert "more than twofold from the row before: used, and no return is made of it" in shown
        np.testing.assert_allclose(stored(tmp_path).close, klines.close, rtol=1e-12)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([(600, 0.01)], id="a hundredfold"),
        pytest.param([(ROWS - 1, 21.0)], id="in the newest row"),
    ],
)
def test_what_may_be_another_unit_is_refused_and_force_takes_it(
    tmp_path: Path, steps: Sequence[tuple[int, float]]
) -> None:
    path, klines = tmp_path / "some.csv", at_levels(steps)
    write_klines(path, "ETHUSDT", klines)
    code, _, said = data(tmp_path, "import", str(path), *ETH)
    assert code == 1
    assert "times the one before: another unit or asset?; --force takes the file all the same" in said
    assert not len(stored(tmp_path))
    assert data(tmp_path, "import", str(path), *ETH, "--force")[0] == 0
    np.testing.assert_allclose(stored(tmp_path).close, klines.close, rtol=1e-12)
