"""The published score head: a chain of linear layers on one hidden state (Section 4.1, quantitative
score regression).
"""

import itertools
from collections.abc import Sequence

import torch
from torch import nn

_MIDDLE = 0.5  # of a scale: where training starts
# The released head on the 7B model: 3584-1024-256-64-16-1.
_PUBLISHED_HIDDEN_SIZE = 3584
_PUBLISHED_HEAD = (1024, 256, 64, 16)
_SMALLEST_LAYER = 16


def published_head(hidden_size: int) -> tuple[int, ...]:
    """Hidden layers of the score head: the published geometry, scaled with the language model's
    hidden size; 3584 gives 1024-256-64-16.
    """
    return tuple(
        max(_SMALLEST_LAYER, round(width * hidden_size / _PUBLISHED_HIDDEN_SIZE))
        for width in _PUBLISHED_HEAD
    )


class MLPHead(nn.Module):
    """Linear layers with ReLU between them, and none at the output.

    Departure D2: the released head has a ReLU after its last layer too; such a head can die (all
    scores 0). Ours ends linear.

    Args:
        hidden_size: Width of what is read: of the language model, or the number of outputs below.
        outputs: Names of the values.
        widths: Hidden layers; None for the published geometry, scaled.

    Raises:
        ValueError: A width is no integer above 0.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        outputs: tuple[str, ...] = ("score",),
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        widths = published_head(hidden_size) if widths is None else tuple(widths)
        if not all(isinstance(width, int) and width >= 1 for width in widths):
            raise ValueError(f"widths: integers from 1 are expected, got {list(widths)}")
        sizes = (hidden_size, *widths, len(self.outputs))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation; the output starts at the middle of the scale."""
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.layers[-1].bias, _MIDDLE)

    def forward(self, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        """Values of hidden states.

        Args:
            hidden: (batch, hidden_size), any float type; computed in float32, since bf16 rounds a
                MOS to steps of 0.2 to 0.4.

        Returns:
            Output -> (batch,) float32, in unit values.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            x = hidden.float()
            for layer in self.layers[:-1]:
                x = torch.relu(layer(x))
            values = self.layers[-1](x).unbind(-1)
            return dict(zip(self.outputs, values, strict=True))
