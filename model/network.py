"""A published network as a function of arrays, and the largest effect of a single feature."""

from collections.abc import Callable

import numpy as np
import onnxruntime

from model.features import FEATURES, LIMITS, Floats32

Network = Callable[[Floats32], Floats32]  # (B, L, F) windows -> (B, O) outputs

# How far a single feature at its limit may move an answer: a return, in standard deviations of the horizon; the
# logarithm of a volatility, so e^3 is twentyfold. Measured on three months of minutes: 0.3 and 1.9 at most.
MOST_MOVED = 3.0


def session_of(onnx: bytes) -> onnxruntime.InferenceSession:
    """A network in onnxruntime, on one thread; raises what onnxruntime raises, whose errors have no common base."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a batch is a few windows: threads only wait
    options.log_severity_level = 4  # its complaints come back as exceptions
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def network_in(session: onnxruntime.InferenceSession) -> Network:
    """The network of a session."""
    name = session.get_inputs()[0].name

    def network(x_BLF: Floats32) -> Floats32:
        y_BO: Floats32 = session.run(None, {name: x_BLF})[0]
        return y_BO

    return network


def onnx_network(onnx: bytes) -> Network:
    """The network in some bytes without a manifest; with a manifest take ``BiRNNForecaster.network``."""
    return network_in(session_of(onnx))


def jumps(network: Network, x_NLF: Floats32) -> Floats32:
    """Return how far each feature alone moves each output, at the feature's limits in the newest candle or the window.

    Args:
        x_NLF: ``(N, L, F)`` windows in which each feature in turn is moved.
    Returns:
        ``(F, O)``; an output that is not finite is left out, because it is never answered.
    """
    plain_NO = network(x_NLF)
    moved_FO = np.zeros((len(FEATURES), plain_NO.shape[1]), np.float32)
    for feature, most in enumerate(LIMITS):
        jumped_4NLF = np.repeat(x_NLF[None], 4, axis=0)
        jumped_4NLF[0, :, -1, feature] = jumped_4NLF[1, :, :, feature] = most
        jumped_4NLF[2, :, -1, feature] = jumped_4NLF[3, :, :, feature] = -most
        jumped_4NO = network(jumped_4NLF.reshape(-1, *x_NLF.shape[1:])).reshape(4, *plain_NO.shape)
        finite = np.isfinite(jumped_4NO) & np.isfinite(plain_NO)
        moved_4NO = np.abs(np.where(finite, jumped_4NO, 0.0) - np.where(finite, plain_NO, 0.0))
        moved_FO[feature] = moved_4NO.max(axis=(0, 1), initial=0.0)
    return moved_FO
