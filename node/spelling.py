"""Misspelt names: which known name was meant."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher


def _bare(name: str) -> str:
    return re.sub(r"[\s_.-]", "", name).casefold()


def same_but_for_case(name: str, known: Iterable[str]) -> str:
    """The known key that differs in case, blanks, dots, dashes or underscores alone, or an empty string."""
    return next((right for right in known if _bare(right) == _bare(name)), "")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known key at most two letters away (one letter for a short key), or an empty string.

    >>> nearest("sumbitTx", ("submitTx", "gas")), nearest("gsa", ("gas",)), nearest("note", ("wallet", "worker"))
    ('submitTx', 'gas', '')
    """
    bare = _bare(name)
    edits = {
        right: max(len(bare), len(_bare(right)))
        - sum(block.size for block in SequenceMatcher(None, bare, _bare(right), autojunk=False).get_matching_blocks())
        for right in known
    }
    fitting = [right for right, count in edits.items() if count <= (1 if len(right) <= 4 else 2)]
    return min(fitting, key=lambda right: edits[right], default="")
