"""Heads: siblings with one contract, (reads, width) -> {output: (reads,) values}, where 0 and 1 are
the ends of an aspect's scale. A plugin adds its own to `HEADS`.

Each is built as `HEADS[kind](hidden_size=width, outputs=names, **options)` and has
`reset_parameters()`. A head over other heads (a voter) reads their outputs in place of hidden
states.
"""

from lmme3dhf.models.heads.mlp import MLPHead

HEADS = {"mlp": MLPHead}

__all__ = ["HEADS", "MLPHead"]
