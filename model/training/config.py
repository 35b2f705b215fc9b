"""Settings of a training and their defaults; without torch, so that a file is checked before torch loads."""

from dataclasses import dataclass
from typing import Literal, get_args

from core.errors import ConfigError
from model.panels import HOUR, LONGEST_LOOKBACK, MINUTE, SHORTEST_LOOKBACK

Cell = Literal["rnn", "gru", "lstm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The guide's settings, and ours. Defaults are the minute panel's; figures in docs/decisions/0002.

    Raises:
        ConfigError: names the setting, its value and its range.
    """

    lookback: int = MINUTE.lookback  # candles in a window
    cell: Cell = "gru"  # "rnn" is the guide's; the gain of gated cells: docs/decisions/0003
    hidden_layer_size: int = 32
    num_layers: int = 2
    dropout: float = 0.1
    learning_rate: float = 3e-3  # the highest: warmed up to and annealed from, over all epochs
    optimizer: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    epochs: int = 6
    patience: int = 3  # epochs without a better validation loss before training stops
    batch_size: int = 512
    stride: int = 7  # trains on every seventh candle, on another seventh each epoch
    return_weight: float = 0.1  # of a return head beside a volatility head: nearly all of its loss is noise
    seeds: int = 2  # networks that are trained; their mean is published
    threads: int = 1  # a second thread gains nothing on small matrices, and spins while another process computes

    def __post_init__(self) -> None:
        if not SHORTEST_LOOKBACK <= self.lookback <= LONGEST_LOOKBACK:
            raise ConfigError(
                f"training: lookback must be {SHORTEST_LOOKBACK} to {LONGEST_LOOKBACK}, was {self.lookback}"
            )
        for name in (
            "hidden_layer_size",
            "num_layers",
            "epochs",
            "patience",
            "batch_size",
            "stride",
            "seeds",
            "threads",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"training: {name} must be 1 or more, was {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm", "return_weight"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"training: {name} must be above 0, was {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"training: dropout must be in [0, 1), was {self.dropout}")
        if not self.weight_decay >= 0:
            raise ConfigError(f"training: weight_decay must be 0 or more, was {self.weight_decay}")
        if self.cell not in get_args(Cell):
            raise ConfigError(f"training: cell must be {', '.join(get_args(Cell))}, was {self.cell!r}")
        if self.optimizer not in {"adamw", "adam"}:
            raise ConfigError(f"training: optimizer must be adamw or adam, was {self.optimizer!r}")


CONFIGS: dict[str, TrainingConfig] = {
    MINUTE.name: TrainingConfig(),
    # all heads are returns: there is little to learn
    HOUR.name: TrainingConfig(lookback=HOUR.lookback, cell="rnn", stride=2, epochs=4, patience=2, seeds=1),
}
