"""The one error tree, sorted by the caller's next step.

WorkerError
+- ConfigError           the file or the environment is wrong: do not start
|  +- UnknownSymbol      a venue does not trade the pair: another venue may
|  +- KeyRefused         a venue does not serve this key: set another key; the other venues serve meanwhile
+- MarketUnavailable     ask again later (``retry_after_s``); the only error that is retried
+- MalformedKlines       the venue answered, but not with klines: keep the last good data
+- StaleKlines           the market in memory is older than allowed: answer 503, not an old number
+- IncompatibleModel     artefact and code or topic disagree, or the artefact is torn: keep the network in use
+- UnusableForecast      not finite, or outside the sanity band
+- TrainingFailed        training gave no usable network: keep the champion, try again with back-off
"""


class WorkerError(Exception):
    """Any failure this project names. The message is one line with the fault and the remedy."""


class ConfigError(WorkerError):
    """A file or a setting is wrong; the process must not start."""


SYMBOL_SETTING = "parameters.Symbol of this worker in config.json"  # for messages about a symbol


class UnknownSymbol(ConfigError):
    """A venue does not trade the pair that the configuration names."""


class KeyRefused(ConfigError):
    """A venue has no key, does not accept the key, or does not serve the data to it."""


class MarketUnavailable(WorkerError):
    """A venue could not be asked, or it refused; asking again later may help.

    Args:
        message: what happened, with the host.
        retry_after_s: seconds that the venue wants to be left alone; None if the venue named no time.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MalformedKlines(WorkerError):
    """The venue (or a file) answered with something that is not a run of klines."""


class StaleKlines(WorkerError):
    """The newest kline or anchor price is older than the settings allow, or not there yet."""


class IncompatibleModel(WorkerError):
    """A published version cannot be used: torn, altered, foreign, or made for other features or topics."""


class UnusableForecast(WorkerError):
    """A number that must not reach the chain: not finite, out of the decimal's range or of the sanity band."""


class TrainingFailed(WorkerError):
    """Training gave no usable network: non-finite loss, too few rows, or its time limit."""
