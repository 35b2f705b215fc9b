"""The result of one check of ``birnn doctor``."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

State = Literal["well", "warning", "wrong", "not looked at"]


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    state: State
    line: str
    remedy: str = ""
    name: str = ""  # by CHECKS


well, warning, wrong = partial(Check, "well"), partial(Check, "warning"), partial(Check, "wrong")
not_looked_at = partial(Check, "not looked at")
