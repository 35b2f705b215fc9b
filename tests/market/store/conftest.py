"""A store in a folder of the test, with and without journals."""

from pathlib import Path

import pytest

from market.store.kline_store import KlineStore


@pytest.fixture
def store(tmp_path: Path) -> KlineStore:
    return KlineStore(tmp_path / "klines")


@pytest.fixture
def journalled(tmp_path: Path) -> KlineStore:
    """With journals of up to 40 rows for a month of any size."""
    return KlineStore(tmp_path / "klines", journal_rows=40, small_bytes=0)
