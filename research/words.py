"""How tables and pictures write things."""

LABELS = {"newest": "newest network", "har": "HAR", "lightgbm": "LightGBM"}


def label(name: str) -> str:
    """A contender's name for people."""
    return LABELS.get(name, name)


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "topic"), counted(2, "topic")
    ('1 topic', '2 topics')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def ratio_text(ratio: float | None) -> str:
    """A ratio to the naive loss, as tables write it.

    >>> ratio_text(0.67128), ratio_text(0.99996), ratio_text(18.2), ratio_text(None)
    ('0.6713', '1.0000', '18.2', '')
    """
    if ratio is None:
        return ""
    return f"{ratio:.4f}" if ratio < 10 else f"{ratio:.1f}"


def p_text(p: float | None) -> str:
    """A chance, as tables write it.

    >>> p_text(0.00004), p_text(0.031), p_text(None)
    ('<0.001', '0.031', '')
    """
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
