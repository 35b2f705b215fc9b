"""Bodies that are near an answer, and what any parser has to make of any body."""

from hypothesis import strategies as st

from klines.checks import CheckedRows


def assert_keeps_rules(found: CheckedRows, interval_ms: int, now_ms: int) -> None:
    """What any parser has made of any body: rows of ended intervals (the other rules are the type's own)."""
    assert found.klines.interval_ms == interval_ms
    assert found.klines.end_ms <= now_ms


# A cell may be anything that JSON has.
CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}), st.just("1e3")
)
