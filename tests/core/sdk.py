"""The loss functions of the package allora-sdk, without the rest of it."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Reference = Callable[[float, float, float], float]  # y, p, std


def reference_losses(site_packages: Path) -> dict[str, Reference]:
    """Our names for the losses the package has, each with its own function.

    Args:
        site_packages: holds ``allora_sdk``. Only its ``loss_methods`` is executed: importing the package itself
            loads a chain client that the losses do not need.
    """
    package = "allora_sdk_loss_methods"
    file = site_packages / "allora_sdk" / "loss_methods" / "__init__.py"
    spec = importlib.util.spec_from_file_location(package, file)
    assert spec is not None
    assert spec.loader is not None
    sdk: Any = importlib.util.module_from_spec(spec)
    sys.modules[package] = sdk
    spec.loader.exec_module(sdk)
    return {
        "mse": lambda y, p, _std: float(sdk.squared_error_loss(y, p)),
        "mae": lambda y, p, _std: float(sdk.absolute_error_loss(y, p)),
        "huber": lambda y, p, _std: float(sdk.huber_loss(y, p)),
        "logcosh": lambda y, p, _std: float(sdk.log_cosh_loss(y, p)),
        "ztae": lambda y, p, std: float(sdk.make_ztae_loss(std)(y, p)),
        "zptae": lambda y, p, std: float(sdk.make_zptae_loss(std)(y, p)),
    }
