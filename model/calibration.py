"""The trust in a network's outputs: shrinkage of returns and bias of volatility, as a manifest holds them.

``lambda`` per (symbol, return head) in [0, 1]: the share of the forecast that is answered; 0 is persistence.
``bias`` per (symbol, volatility head): the factor on the forecast. ``model.training.calibrating`` fits both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import ConfigError, IncompatibleModel
from klines.klines import Floats
from model.heads import Head

POOLED = "*"  # stands for any symbol that was not trained on
BIAS_LIMITS = (0.5, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Factors by symbol and head key; ``POOLED`` is every other symbol."""

    factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def factor(self, symbol: str, head: Head) -> float:
        """``lambda`` of a return head, ``bias`` of a volatility head; for an unknown symbol 0 and the pooled bias."""
        known = self.factors.get(symbol, {}).get(head.key)
        if known is not None:
            return known
        return self.factors.get(POOLED, {}).get(head.key, 1.0) if head.kind.is_volatility else 0.0

    def most(self, head: Head) -> float:
        """The largest factor of a head's outputs: the largest ``lambda``, or 1 for volatility."""
        if head.kind.is_volatility:
            return 1.0
        return max((heads.get(head.key, 0.0) for heads in self.factors.values()), default=0.0)

    def apply(self, number: Floats, symbol: str, head: Head) -> Floats:
        """A decoded output of the network as the forecast to serve, in the head's unit."""
        return number * self.factor(symbol, head)

    def to_json(self) -> dict[str, dict[str, dict[str, float]]]:
        """For the manifest: ``{"ETHUSDT": {"return-10m": {"lambda": 0.0}, "volatility-15m": {"bias": 0.97}}}``."""
        return {
            symbol: {key: {_name(Head.parse(key)): value} for key, value in heads.items()}
            for symbol, heads in self.factors.items()
        }

    @classmethod
    def from_json(cls, value: Any) -> "Calibration":
        """The inverse of ``to_json``.

        Raises:
            IncompatibleModel: the value has another form, or a factor lies outside its range.
        """
        try:
            factors = {
                symbol: {key: float(entry[_name(Head.parse(key))]) for key, entry in heads.items()}
                for symbol, heads in value.items()
            }
        except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
            raise IncompatibleModel(f"calibration is malformed: {error!r}; train again") from error
        for symbol, heads in factors.items():
            for key, factor in heads.items():
                low, high = BIAS_LIMITS if Head.parse(key).kind.is_volatility else (0.0, 1.0)
                if not low <= factor <= high:
                    raise IncompatibleModel(
                        f"calibration of {symbol} {key} must lie in [{low}, {high}], was {factor}; train again"
                    )
        return cls(factors=factors)


def _name(head: Head) -> str:
    return "bias" if head.kind.is_volatility else "lambda"
