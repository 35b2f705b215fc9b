"""Baselines beside the network, on the same rows. The naive forecast needs no fit and is not here."""

from collections.abc import Callable, Mapping

import lightgbm
import numpy as np

from core.topic import Topic
from klines.klines import Floats
from klines.returns import realised_volatility, rolling_sum
from model.features import Floats32
from model.heads import Head, Kind, head_of
from model.judging.evaluation import forecasts
from model.training import calibrating
from model.training.calibrating import Evidence
from model.training.objectives import TARGET_LIMIT
from model.windows import Rows
from research.backtest.guide import guide
from research.backtest.stage import Baseline, Forecasts, Stage, Tell

Learner = Callable[[Floats32, Floats, Floats32, Floats, Stage], Callable[[Floats32], Floats]]
"""Features and targets to fit on, features and targets to stop or choose by -> features to outputs."""

HAR_SPANS_MIN = (60, 240, 1440)  # beside the horizon's own
HAR_SPANS_HOUR_MIN = (480, 1440, 10080)  # of the hour panel
RIDGE_PENALTIES = tuple(10.0**power for power in range(-6, 1))  # of the mean square of the features, which is 1
EXAMPLE_LEAST_BARS = 30
FIT_STRIDE = 3  # every third candle: neighbours are nearly equal
QUICK_FIT_STRIDE = 15
TREES: Mapping[str, str | int | float | bool] = {
    "objective": "regression",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 127,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
MOST_TREES, QUICK_TREES, PATIENCE_TREES = 600, 150, 30


# -- HAR --------------------------------------------------------------------------------------------------------------


def har(stage: Stage, tell: Tell) -> Forecasts:
    """Heterogeneous autoregression: least squares of the coming volatility on volatilities of past windows.

    In levels, with an intercept, an equation for each symbol and head, fitted on training and validation part; one
    for all symbols together answers for those it was not fitted on. A forecast is never below 0. Windows: the
    horizon's own, an hour, four hours and a day (hour panel: eight hours, a day and a week). Where a hole lies in a
    long window the horizon's own volatility stands in for it.

    Source: Corsi, Journal of Financial Econometrics 7(2), 2009.
    """
    found = {}
    for head in stage.heads(Kind.VOLATILITY):
        tell(f"HAR {head.key}")
        past = _past_volatilities(stage, head)
        column = stage.windows.plan.heads.index(head)
        fit = stage.known(stage.fitting("train", "validate"), column)
        pooled = _least_squares(past[fit], stage.windows.truth[fit, column])
        for topic in stage.topics(Kind.VOLATILITY):
            if head_of(topic) != head:
                continue
            own = stage.of_symbol(fit, topic.symbol)
            weights = _least_squares(past[own], stage.windows.truth[own, column]) if len(own) else pooled
            found[topic.key] = np.maximum(past[stage.rows_of(topic)] @ weights, 0.0)
    return found


def _past_volatilities(stage: Stage, head: Head) -> Floats:
    """``(R, 5)``: 1, and the volatility of each window that ends at the row."""
    panel = stage.windows.plan.panel
    spans = HAR_SPANS_MIN if panel.name == "minute" else HAR_SPANS_HOUR_MIN
    steps = sorted({panel.steps(head), *(panel.steps(Head(Kind.VOLATILITY, minutes)) for minutes in spans)})
    columns = [
        np.concatenate([realised_volatility(stage.klines[symbol], many) for symbol in stage.windows.plan.symbols])
        for many in steps
    ]
    own = columns[steps.index(panel.steps(head))]
    return np.stack([np.ones(len(own)), *(np.where(np.isfinite(column), column, own) for column in columns)], axis=1)


def _least_squares(x: Floats, y: Floats) -> Floats:
    whole = np.isfinite(x).all(axis=1)
    return np.asarray(np.linalg.lstsq(x[whole], y[whole], rcond=None)[0], np.float64)


# -- learners of the network's own targets ----------------------------------------------------------------------------


def _learnt(name: str, learner: Learner) -> Callable[[Stage, Tell], Forecasts]:
    """Learn the network's targets from the newest feature row, a fit for each head, all symbols
    together; its outputs are decoded and calibrated on the validation part exactly as the network's are."""

    def forecast(stage: Stage, tell: Tell) -> Forecasts:
        windows, heads = stage.windows, stage.windows.plan.heads
        stride = QUICK_FIT_STRIDE if stage.quick else FIT_STRIDE
        fit, stop = stage.fitting("train", stride=stride), stage.fitting("validate", stride=stride)
        calibrate = stage.fitting("validate")
        asked = {
            column: np.zeros((len(rows), len(heads)), np.float32) for column, rows in enumerate([calibrate, stage.rows])
        }
        for column, head in enumerate(heads):
            tell(f"{name} {head.key}")
            fit_head, stop_head = stage.known(fit, column), stage.known(stop, column)
            say = learner(
                windows.x[fit_head],
                np.clip(windows.target[fit_head, column].astype(np.float64), -TARGET_LIMIT, TARGET_LIMIT),
                windows.x[stop_head],
                np.clip(windows.target[stop_head, column].astype(np.float64), -TARGET_LIMIT, TARGET_LIMIT),
                stage,
            )
            for part, rows in enumerate([calibrate, stage.rows]):
                asked[part][:, column] = say(windows.x[rows])
        calibration = calibrating.fit(windows, Evidence(rows=calibrate, output=asked[0]))
        return {one.topic.key: one.forecast for one in forecasts(windows, stage.rows, asked[1], heads, calibration)}

    return forecast


def ridge(x: Floats32, y: Floats, x_stop: Floats32, y_stop: Floats, _stage: Stage) -> Callable[[Floats32], Floats]:
    """Least squares with a penalty on the squared weights, chosen by the squared error on the validation part."""
    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64) + 1e-9

    def scaled(some: Floats32) -> Floats:
        whole: Floats = (some - mean) / spread
        return whole

    power, vectors = np.linalg.eigh(scaled(x).T @ scaled(x) / len(x))
    slopes = vectors.T @ (scaled(x).T @ (y - y.mean()) / len(x))
    tried = [vectors @ (slopes / (np.maximum(power, 0.0) + penalty)) for penalty in RIDGE_PENALTIES]
    errors = [float(np.mean((y_stop - y.mean() - scaled(x_stop) @ weights) ** 2)) for weights in tried]
    best, level = tried[int(np.argmin(errors))], float(y.mean())
    return lambda some: scaled(some) @ best + level


def trees(x: Floats32, y: Floats, x_stop: Floats32, y_stop: Floats, stage: Stage) -> Callable[[Floats32], Floats]:
    """Gradient boosted trees, stopped by the squared error on the validation part.

    Source: Ke et al., LightGBM, NeurIPS 2017.
    """
    options = {**TREES, "seed": stage.seed % 2**31}
    data = lightgbm.Dataset(x, y, params=options, free_raw_data=True)
    stop = lightgbm.Dataset(x_stop, y_stop, reference=data, params=options)
    booster = lightgbm.train(
        options,
        data,
        QUICK_TREES if stage.quick else MOST_TREES,
        valid_sets=[stop],
        callbacks=[lightgbm.early_stopping(PATIENCE_TREES, verbose=False)],
    )

    def say(some: Floats32) -> Floats:
        return np.asarray(booster.predict(some, num_threads=1), np.float64)

    return say


# -- the official example ---------------------------------------------------------------------------------------------


def example(stage: Stage, tell: Tell) -> Forecasts:
    """The linear regression of the network's official example worker.

    Bars as long as the horizon, counted back from the newest candle, hold the means of their candles' open, high,
    low and close; least squares of the next bar's mean close on the four, for each symbol, in price units. What is
    served for a horizon is the answer for the newest bar. (The example itself answers with the oldest bar of the day
    it holds, hours old; that mistake is left out here.)

    Source: allora-network/basic-coin-prediction-node, model.py (LinearRegression).
    """
    found = {}
    for topic in stage.topics(Kind.RETURN):
        if topic.symbol not in stage.trained:
            continue
        tell(f"example {topic.symbol} {topic.horizon}")
        weights = _of_bars(stage, topic)
        rows = stage.rows_of(topic)
        if weights is not None and len(rows):
            bars = _bars(stage, topic, rows)
            price = np.where(np.isfinite(bars).all(axis=1), bars @ weights, stage.windows.close[rows])
            found[topic.key] = np.log(np.maximum(price / stage.windows.close[rows], 1e-3))
    return found


def _of_bars(stage: Stage, topic: Topic) -> Floats | None:
    steps = stage.windows.plan.panel.steps(head_of(topic))
    mine = stage.of_symbol(stage.fitting("train", "validate"), topic.symbol)
    last = mine[-1] if len(mine) else 0
    ends = mine[(last - mine) % steps == 0]
    follow = ends[np.isin(ends + steps, ends)]
    if len(follow) < EXAMPLE_LEAST_BARS:
        return None
    bars, after = _bars(stage, topic, follow), _bars(stage, topic, follow + steps)[:, -1]
    whole = np.isfinite(bars).all(axis=1) & np.isfinite(after)
    return _least_squares(bars[whole], after[whole])


def _bars(stage: Stage, topic: Topic, rows: Rows) -> Floats:
    """``(N, 5)``: 1, and the means of open, high, low and close over the horizon's candles up to each row."""
    klines, steps = stage.klines[topic.symbol], stage.windows.plan.panel.steps(head_of(topic))
    first = int(np.flatnonzero(stage.windows.symbol == stage.windows.plan.symbols.index(topic.symbol))[0])
    means = [rolling_sum(prices, steps) / steps for prices in (klines.open, klines.high, klines.low, klines.close)]
    return np.stack([np.ones(len(rows)), *(mean[rows - first] for mean in means)], axis=1)


BASELINES: Mapping[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline(
            name="har",
            about="linear in the volatilities of the last windows (horizon, hour, four hours, day)",
            kinds=(Kind.VOLATILITY,),
            forecast=har,
            unseen=True,
        ),
        Baseline(
            name="ridge",
            about="linear in the newest feature row",
            kinds=(Kind.RETURN, Kind.VOLATILITY),
            forecast=_learnt("ridge", ridge),
            unseen=True,
        ),
        Baseline(
            name="lightgbm",
            about="boosted trees on the newest feature row",
            kinds=(Kind.RETURN, Kind.VOLATILITY),
            forecast=_learnt("LightGBM", trees),
            unseen=True,
        ),
        Baseline(
            name="guide",
            about="the guide's own procedure: price levels, min-max scaling, a BiRNN of 115 units",
            kinds=(Kind.RETURN,),
            forecast=guide,
            unseen=False,
        ),
        Baseline(
            name="example",
            about="the official example worker's linear regression of the next bar's price",
            kinds=(Kind.RETURN,),
            forecast=example,
            unseen=False,
        ),
    )
}
