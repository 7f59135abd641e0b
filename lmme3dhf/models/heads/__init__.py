"""Score heads: siblings with one contract, hidden state (batch, hidden) -> normalised score
(batch,).
"""

from lmme3dhf.models.heads.mlp import MLPHead

HEADS = {"mlp": MLPHead}

__all__ = ["HEADS", "MLPHead"]
