"""From the newest klines to the forecasts of every head: a published network, and the naive forecast.

A forecaster has no state that a forecast changes: threads may share it, and a replaced forecaster still answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from core.clock import iso
from core.errors import ConfigError, IncompatibleModel, StaleKlines
from core.sources import PERSISTENCE
from klines.klines import Klines
from klines.returns import candle_returns
from model.calibration import Calibration
from model.features import (
    FEATURE_VERSION,
    FEATURES,
    FLAT,
    LIMITS,
    WARMUP,
    Described,
    Floats32,
    compute,
    describe,
    present_scale,
    rows_needed,
    stands_still,
    unbroken_needed,
)
from model.heads import Head
from model.network import MOST_MOVED, Network, jumps, network_in, session_of
from model.panels import LEADER, PANELS, Panel, panel_of
from model.registry.artefact import Artefact, Manifest, read_artefact
from model.targets import decode, naive

LEAST_RETURNS = 2  # that a naive volatility is made of


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadForecast:
    """One head's forecast for one symbol; exactly one of ``log_return`` and ``volatility`` is set."""

    symbol: str
    head: Head
    version: str  # PERSISTENCE, or the registry's id
    asof_ms: int  # close of the window's last kline; the caller decides if that is too old
    may_be_zero: bool = False  # True if a volatility of 0 is sane: a market that stands still, or a naive forecast
    log_return: float | None = None  # ln(price at the horizon / price now)
    volatility: float | None = None  # per minute
    scale: float  # present volatility of one candle of the head's panel

    @property
    def is_naive(self) -> bool:
        """True if the number is the naive forecast's.

        That is: no network made it, calibration or gate took the edge out, or the market stands still and both are 0.
        """
        return self.version == PERSISTENCE or 0.0 in (self.log_return, self.volatility)


Forecasts = dict[tuple[str, Head], HeadForecast]
Reasons = dict[str, str]  # symbol -> why it has no forecast, one line


class BiRNNForecaster:
    """A published network, ready to run.

    Raises:
        IncompatibleModel: the artefact was made for other features, panels or heads, or network and manifest differ.
    """

    def __init__(self, artefact: Artefact) -> None:
        self.manifest: Manifest = artefact.manifest
        self.version = artefact.version
        self.panel = _panel_of(artefact)
        self.heads = _heads_of(artefact)
        self.calibration = Calibration.from_json(self.manifest.calibration)
        self.network = _network_of(artefact)  # outputs, neither decoded nor calibrated
        for windows in (1, 2):
            try:
                y_NO = self.network(np.zeros((windows, self.panel.lookback, len(FEATURES)), np.float32))
            except Exception as error:  # onnxruntime's errors have no common base
                reason = str(error).partition("\n")[0]
                raise IncompatibleModel(f"version {self.version}: the network cannot be run: {reason}") from error
            if y_NO.shape != (windows, len(self.heads)) or not np.isfinite(y_NO).all():
                raise IncompatibleModel(
                    f"version {self.version}: the network answers {windows} windows of zeros with shape {y_NO.shape}, "
                    f"{int(np.isfinite(y_NO).sum())} numbers finite; must be ({windows}, {len(self.heads)}), all finite"
                )

    def jumps(self, x_NLF: Floats32 | None = None) -> Floats32:
        """``(F, O)``: how far each feature alone can move each head's answers, in the unit of MOST_MOVED.

        Args:
            x_NLF: ``(N, L, F)`` windows to try beside a window of zeros.
        """
        nothing_1LF = np.zeros((1, self.panel.lookback, len(FEATURES)), np.float32)
        moved_FO = jumps(self.network, nothing_1LF if x_NLF is None else np.concatenate([nothing_1LF, x_NLF]))
        return moved_FO * np.array([self.calibration.most(head) for head in self.heads], np.float32)

    def check_jumps(self, x_NLF: Floats32 | None = None) -> None:
        """Refuse the network if a single feature can throw an answer; ``x_NLF`` as for ``jumps``.

        Raises:
            IncompatibleModel: an answer moves by more than MOST_MOVED; names head, feature and how far.
        """
        moved_FO = self.jumps(x_NLF)
        if (moved_FO > MOST_MOVED).any():
            feature, head = np.unravel_index(int(np.argmax(moved_FO)), moved_FO.shape)
            raise IncompatibleModel(
                f"{f'version {self.version}' if self.version else 'the new network'}: {self.heads[head].key} moves "
                f"by {moved_FO[feature, head]:.3g} when {FEATURES[feature]} alone goes to {LIMITS[feature]:.3g}, at "
                f"most {MOST_MOVED:g} is allowed: train with more TRAINING_DAYS, or lower learning_rate"
            )

    @classmethod
    def load(cls, folder: Path, manifest_sha256: str | None = None) -> Self:
        """The version in ``folder``, run from the very bytes whose digests were checked.

        Raises:
            IncompatibleModel: torn, altered, foreign, made for other code, or thrown by a single feature; names the
                file or the difference.
        """
        forecaster = cls(read_artefact(folder, manifest_sha256))
        forecaster.check_jumps()
        return forecaster

    def forecast(self, klines: Mapping[str, Klines]) -> tuple[Forecasts, Reasons]:
        """Every head of every symbol, in one pass.

        Args:
            klines: closed klines of the panel's interval by symbol, the leader's among them; at least
                ``rows_needed(self.panel)`` of each; older candles are not read.
        Returns:
            forecasts by (symbol, head), and the reason for each symbol without a forecast.
        """
        windows: dict[str, tuple[Floats32, float, int]] = {}
        reasons: Reasons = {}
        leaders: dict[tuple[int, int], tuple[Klines, Described]] = {}
        leader = klines.get(LEADER, Klines.empty(self.panel.interval_ms))
        for symbol, run in klines.items():
            tail = run.tail(rows_needed(self.panel))
            fault = self._fault(symbol, tail)
            if fault:
                reasons[symbol] = fault
                continue
            start_ms = int(tail.open_time_ms[0])
            if (start_ms, tail.end_ms) not in leaders:  # the same for all symbols that have no hole
                led = leader.between(start_ms, tail.end_ms)
                leaders[start_ms, tail.end_ms] = led, describe(led, self.panel.memory)
            led, described = leaders[start_ms, tail.end_ms]
            table = compute(tail, led, self.panel, led=described, newest=self.panel.lookback)
            if not table.usable[-1]:
                reasons[symbol] = f"klines of {LEADER} are missing between {iso(start_ms)} and {iso(tail.end_ms)}"
                continue
            windows[symbol] = (table.x, float(table.scale[-1]), tail.end_ms)
        if not windows:
            return {}, reasons
        y_NO = self.network(np.stack([x for x, _, _ in windows.values()])).astype(np.float64)
        scale_N = np.array([scale for _, scale, _ in windows.values()])
        results: Forecasts = {}
        for column, head in enumerate(self.heads):
            number_N = decode(y_NO[:, column], scale_N, self.panel, head)
            for row, (symbol, (_, scale, asof_ms)) in enumerate(windows.items()):
                number = self.calibration.apply(number_N[row : row + 1], symbol, head).item()
                still = head.kind.is_volatility and stands_still(klines[symbol], self.panel.steps(head))
                results[symbol, head] = _forecast(symbol, head, self.version, asof_ms, number, scale, still)
        return results, reasons

    def _fault(self, symbol: str, tail: Klines) -> str | None:
        """Return the reason why no window can be cut from ``tail`` alone; None without a fault."""
        needed = rows_needed(self.panel)
        if tail.interval_ms != self.panel.interval_ms:
            return f"klines of {symbol} are {tail.interval_ms} ms long, must be {self.panel.interval_ms} ms"
        if len(tail) < needed:
            return f"{symbol} has {len(tail)} klines, a forecast needs {needed}"
        if tail.run_length()[-1] < unbroken_needed(self.panel):
            began_ms = int(tail.open_time_ms[-tail.run_length()[-1]])
            holes = [hole for hole in tail.gaps() if hole[1] == began_ms]
            if not holes:
                return (
                    f"{symbol} leapt more than twofold at {iso(began_ms)}: older klines say nothing about the present"
                )
            return f"klines of {symbol} are missing between {iso(holes[0][0])} and {iso(holes[0][1])}"
        return None


class Naive:
    """The forecast of every topic without a network: no move, or the volatility of the last window."""

    @staticmethod
    def forecast(klines: Klines, symbol: str, head: Head) -> HeadForecast:
        """The naive forecast at the last of ``klines``.

        Args:
            klines: closed klines of the head's panel: a single kline for a return; the horizon and one more for a
                volatility, of whose returns half may be missing, so that an odd candle costs no answer.
        Raises:
            StaleKlines: there are fewer; says how many.
        """
        panel = panel_of(head.horizon_min)
        needed = panel.steps(head) + 1 if head.kind.is_volatility else 1
        tail = klines.tail(max(WARMUP, needed))
        if not len(tail):
            raise StaleKlines(f"{symbol} has no klines, the naive {head.key} needs {needed}")
        have = int(tail.run_length()[-1])
        returns = candle_returns(tail)
        if have >= WARMUP:
            scale = present_scale(tail)
        else:  # soon after a hole: the sanity band is drawn around the known returns
            known = returns[np.isfinite(returns)]
            scale = float(np.sqrt(np.mean(known**2) + FLAT**2)) if len(known) else FLAT
        if have >= needed:
            number = float(naive(tail, panel, head)[-1])
        else:
            window = returns[tail.open_time_ms >= tail.end_ms - (needed - 1) * tail.interval_ms]
            window = window[np.isfinite(window)]
            if len(window) < max(LEAST_RETURNS, (needed - 1) / 2):
                have_of = f"{symbol} has {len(window)} of the last {needed - 1} returns"
                raise StaleKlines(f"{have_of}, the naive {head.key} needs half of them")
            number = head.kind.measure.of_returns(window, panel.interval_ms)
        return _forecast(symbol, head, PERSISTENCE, tail.end_ms, number, scale, may_be_zero=True)


def _forecast(
    symbol: str, head: Head, version: str, asof_ms: int, number: float, scale: float, may_be_zero: bool
) -> HeadForecast:
    number += 0.0  # turns -0.0, the product of no skill and a fall, into 0.0
    return HeadForecast(
        symbol=symbol,
        head=head,
        version=version,
        asof_ms=asof_ms,
        may_be_zero=may_be_zero,
        log_return=None if head.kind.is_volatility else number,
        volatility=number if head.kind.is_volatility else None,
        scale=scale,
    )


def _panel_of(artefact: Artefact) -> Panel:
    """The panel with the manifest's lookback, if code and manifest agree on the meaning of the inputs."""
    manifest, panel = artefact.manifest, PANELS.get(artefact.manifest.panel)
    if panel is None:
        raise IncompatibleModel(
            f"version {artefact.version}: panel {manifest.panel!r} is not one of {', '.join(PANELS)}"
        )
    pairs = {
        "interval_ms": (manifest.interval_ms, panel.interval_ms),
        "feature_version": (manifest.feature_version, FEATURE_VERSION),
        "features": (manifest.features, FEATURES),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise IncompatibleModel(f"version {artefact.version}: {name} is {theirs}, this code has {ours}: train anew")
    try:
        return panel.reading(manifest.lookback)
    except ConfigError as error:
        raise IncompatibleModel(f"version {artefact.version}: {error}") from error


def _heads_of(artefact: Artefact) -> tuple[Head, ...]:
    try:
        return tuple(Head.parse(key) for key in artefact.manifest.heads)
    except ConfigError as error:
        raise IncompatibleModel(f"version {artefact.version}: {error}") from error


def _network_of(artefact: Artefact) -> Network:
    try:
        session = session_of(artefact.onnx)
    except Exception as error:  # onnxruntime's errors have no common base
        reason = str(error).partition("\n")[0]
        raise IncompatibleModel(f"version {artefact.version}: onnxruntime refuses the network: {reason}") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    ways = [(node.type, tuple(node.shape)) for node in (*inputs, *outputs)]
    wanted = (artefact.manifest.lookback, len(artefact.manifest.features), len(artefact.manifest.heads))
    got = (*(inputs[0].shape[1:] if inputs else ()), *(outputs[0].shape[1:] if outputs else ()))
    if len(ways) != 2 or got != wanted or {kind for kind, _ in ways} != {"tensor(float)"}:
        raise IncompatibleModel(
            f"version {artefact.version}: the network's input and output are {ways}; must be two of tensor(float), "
            f"(N, {wanted[0]}, {wanted[1]}) and (N, {wanted[2]})"
        )
    return network_in(session)
