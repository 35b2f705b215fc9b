"""Handing a trained network on: ONNX for serving, safetensors for further training."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save

from core.errors import TrainingFailed
from model.features import Floats32
from model.network import onnx_network
from model.training.birnn import PanelNetwork, torch_network

ONNX_TOLERANCE = 1e-5  # largest difference between torch and the published network, of outputs up to 1; relative beyond
OPSET = 17


def export_onnx(model: PanelNetwork, lookback: int, windows_BLF: Floats32) -> bytes:
    """The model for onnxruntime, checked against torch on random windows and on real windows.

    Args:
        model: the network, of any input size F.
        lookback: candles in a window.
        windows_BLF: ``(B, L, F)`` real windows to check with; B may be 0.
    Returns:
        the ONNX file: input ``x`` ``(batch, L, F)``, output ``y`` ``(batch, O)``, float32.
    Raises:
        TrainingFailed: an output differs from torch's by ONNX_TOLERANCE or more; names both and the window.
    """
    features = model.input_size
    model.eval()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # This exporter is deprecated, but its successor unrolls the recurrence into a graph many times as large. It
        # warns that the graph may hold for a batch of 1 only: the check below uses larger batches.
        warnings.simplefilter("ignore")
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (torch.zeros(1, lookback, features),),
            file,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
        onnx = file.read_bytes()
    served, trained = onnx_network(onnx), torch_network(model)
    random = np.random.default_rng(0).normal(0, 2, (7, lookback, features)).astype(np.float32)
    for kind, x_BLF in (("random", random), ("real", windows_BLF)):
        if len(x_BLF):
            theirs_BO, ours_BO = served(x_BLF), trained(x_BLF)
            allowed = ONNX_TOLERANCE * max(1.0, float(np.abs(ours_BO).max()))
            apart_BO = np.nan_to_num(np.abs(theirs_BO - ours_BO), nan=np.inf)
            window, output = np.unravel_index(np.argmax(apart_BO), apart_BO.shape)
            if not apart_BO[window, output] < allowed:
                raise TrainingFailed(
                    f"the exported network differs from torch's by {apart_BO[window, output]:.3g}: output {output} of "
                    f"{kind} window {window} is {theirs_BO[window, output]:.9g}, torch's is "
                    f"{ours_BO[window, output]:.9g}; allowed is less than {allowed:.3g}. torch {torch.__version__} and "
                    f"onnxruntime {onnxruntime.__version__} compute this network differently: the versions that were "
                    "tried together stand in requirements.lock"
                )
    return onnx


def weights_bytes(model: PanelNetwork) -> bytes:
    """The weights as safetensors; the first member's have the guide's names (``rnn.*``, ``linear.*``)."""
    return save({name: tensor.contiguous() for name, tensor in model.named_weights().items()})
