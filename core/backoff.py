"""How long to wait after failures in a row."""


def backoff(failures: int, first: float, longest: float) -> float:
    """Return ``first`` after the first failure, doubled by each further failure up to ``longest``.

    >>> [backoff(failures, 0.5, 8.0) for failures in (1, 2, 5, 6, 10_000)]
    [0.5, 1.0, 8.0, 8.0, 8.0]
    """
    doublings = min(failures - 1, 60)  # more could overflow a float
    return min(first * 2.0**doublings, longest)
