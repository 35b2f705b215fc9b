"""What every shape under ``/api/`` is made of: values that do not change, and numbers that JSON can write."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


def finite(number: Any) -> Any:
    """Return a number as it is, and None for one that JSON cannot write.

    >>> finite(1.5), finite(float("inf")), finite(None)
    (1.5, None, None)
    """
    return None if isinstance(number, float) and not math.isfinite(number) else number


Number = Annotated[float | None, BeforeValidator(finite)]


class Shape(BaseModel):
    """A value that does not change once it is made."""

    model_config = ConfigDict(frozen=True)
