"""The published score head: a chain of linear layers on one hidden state (Section 4.1, quantitative
score regression).
"""

import itertools

import torch
from torch import nn

# Scores are learnt in MOS / 100; half-way is where training starts.
_MIDDLE = 0.5


class MLPHead(nn.Module):
    """Linear layers with ReLU between them, and none at the output.

    Departure D2: the released head has a ReLU after its last layer too; such a head can die (all
    scores 0). Ours ends linear.

    Args:
        hidden_size: Width of the language model.
        widths: Hidden layers.
    """

    def __init__(self, *, hidden_size: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (hidden_size, *widths, 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation; the output starts at the middle of the scale."""
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.layers[-1].bias, _MIDDLE)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores hidden states.

        Args:
            hidden: (batch, hidden_size), any float type; computed in float32, since bf16 rounds a
                MOS to steps of 0.2 to 0.4.

        Returns:
            (batch,) float32, MOS / 100.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            x = hidden.float()
            for layer in self.layers[:-1]:
                x = torch.relu(layer(x))
            return self.layers[-1](x).squeeze(-1)
