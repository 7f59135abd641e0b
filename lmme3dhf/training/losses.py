"""Losses of heads by name: (prediction (N,), target (N,), **options) -> the loss of each (N,).

Values are in units of their scale (`Scale.to_unit`), known targets only. Giving each its loss, not
a mean, keeps a step's loss the same however its batch is cut. A plugin adds its own to `LOSSES`.
"""

import torch
from torch.nn import functional


def l1(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Absolute error: the published loss."""
    return (prediction - target).abs()


def mse(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error."""
    return (prediction - target).square()


def huber(prediction: torch.Tensor, target: torch.Tensor, delta: float = 0.1) -> torch.Tensor:
    """Squared within `delta`, linear beyond."""
    return functional.huber_loss(prediction, target, reduction="none", delta=delta)


LOSSES = {"l1": l1, "mse": mse, "huber": huber}
