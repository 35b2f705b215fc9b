"""How tables and pictures write things."""

from pathlib import Path

SIMULATED_FOLDER, REPLAY = "simulated", "replay-"  # where the simulated exchange's klines lie, and how a replay's begin
LABELS = {"newest": "newest network", "har": "HAR", "lightgbm": "LightGBM"}


def simulated_words(folder: Path) -> str:
    """Where the klines of a folder below the simulated exchange's come from; empty for a real market's.

    >>> simulated_words(Path("data/simulated/seed-0/klines"))
    'SIMULATED: these prices are invented'
    >>> simulated_words(Path("data/simulated/replay-spot/klines"))
    'SIMULATED: replayed, real klines moved to another time'
    >>> simulated_words(Path("data/klines"))
    ''
    """
    parts = folder.resolve().parts
    if SIMULATED_FOLDER not in parts:
        return ""
    below = parts[parts.index(SIMULATED_FOLDER) + 1 :]
    replayed = bool(below) and below[0].startswith(REPLAY)
    return f"SIMULATED: {'replayed, real klines moved to another time' if replayed else 'these prices are invented'}"


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
