"""How tables, sentences and logs write counts, shares and times."""


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "topic"), counted(2, "topic")
    ('1 topic', '2 topics')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def days_words(days: float) -> str:
    """
    >>> days_words(1), days_words(4.0), days_words(2.5)
    ('1 day', '4 days', '2.5 days')
    """
    return counted(int(days), "day") if days == int(days) else f"{days:.1f} days"


def duration(seconds: float) -> str:
    """
    >>> duration(42.4), duration(200), duration(7300)
    ('42 s', '3 min', '2 h 2 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent_text(share: float) -> str:
    """A share that is not negative, in per cent, to two digits where it is small.

    >>> percent_text(0.3513), percent_text(0.0246), percent_text(0.00084), percent_text(12.5)
    ('35 %', '2.5 %', '0.084 %', '1,250 %')
    """
    return f"{100 * share:,.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


def share_words(share: float) -> str:
    """A share in a sentence, before "of the days".

    >>> share_words(1.0), share_words(0.9996), share_words(0.83), share_words(0.0)
    ('all', 'nearly all', '83 %', 'none')
    """
    if share in {0.0, 1.0}:
        return "all" if share else "none"
    text = percent_text(share)
    return "nearly all" if text == "100 %" else text


def ratio_text(ratio: float | None, *, is_naive: bool = False) -> str:
    """A ratio to the naive loss; "naive" for the naive forecast itself.

    >>> ratio_text(0.67128), ratio_text(0.99996), ratio_text(18.2), ratio_text(None), ratio_text(1.0, is_naive=True)
    ('0.6713', '1.0000', '18.2', '', 'naive')
    """
    if is_naive:
        return "naive"
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


def number_text(number: float | None) -> str:
    """A criterion's value or bound, as tables write it.

    >>> number_text(0.51086), number_text(-0.0279), number_text(2016.0), number_text(None)
    ('0.511', '-0.028', '2016', '')
    """
    if number is None:
        return ""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3f}"
