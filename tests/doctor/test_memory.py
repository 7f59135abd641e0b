"""The doctor's table of memory against the models that transformers builds, and arithmetic by
hand.
"""

import pytest
import torch
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lmme3dhf.doctor.memory import (
    _PARTS,
    GEOMETRIES,
    JOBS,
    LOADS,
    Geometry,
    needs,
    scoring_bytes,
    table,
    training_bytes,
    weight_bytes,
)
from lmme3dhf.models.configuration import SaliencyConfig
from lmme3dhf.models.heads import HEADS
from lmme3dhf.models.heads.mlp import published_head
from lmme3dhf.models.loading import UNQUANTIZED
from lmme3dhf.models.saliency_decoder import SaliencyDecoder


def built(geometry: Geometry) -> Qwen2_5_VLForConditionalGeneration:
    """The library's model of this geometry, without memory for its weights."""
    config = Qwen2_5_VLConfig(
        text_config={
            "model_type": "qwen2_5_vl_text",
            "hidden_size": geometry.hidden,
            "num_hidden_layers": geometry.layers,
            "intermediate_size": geometry.intermediate,
            "num_attention_heads": geometry.heads,
            "num_key_value_heads": geometry.key_heads,
            "vocab_size": geometry.vocabulary,
        },
        vision_config={
            "depth": geometry.blocks,
            "hidden_size": geometry.vision,
            "intermediate_size": geometry.vision_intermediate,
            "num_heads": 16,
            "out_hidden_size": geometry.hidden,
        },
        tie_word_embeddings=geometry.tied,
    )
    with torch.device("meta"):
        return Qwen2_5_VLForConditionalGeneration(config)


def count(parameters) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize(
    ("geometry", "published"),
    [(GEOMETRIES[0], 3_754_622_976), (GEOMETRIES[1], 8_292_166_656)],
)
def test_parameters_are_those_of_the_library(geometry, published):
    """In all, in the tower, in the layers that are quantised, and in the adapters. The totals are
    those of the safetensors on the hub. Catches a bias or a norm that was forgotten, and a head
    that is counted where it is the embedding.
    """
    model = built(geometry)
    assert geometry.parameters == count(model.parameters()) == published
    assert geometry.tower == count(model.model.visual.parameters())
    assert geometry.language == count(model.parameters()) - geometry.tower
    linears = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(UNQUANTIZED)
    ]
    assert geometry.quantised == count(module.weight for module in linears)
    rank = 8
    adapters = sum(rank * (module.in_features + module.out_features) for module in linears)
    assert geometry.adapters == adapters
    if geometry.name == "7B":
        assert adapters == 20_185_088  # as the released recipe trains


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_heads_are_within_what_is_counted_for_them(geometry):
    """Catches a decoder that grew."""
    saliency = SaliencyConfig().resolved(geometry.blocks, geometry.hidden)
    with torch.device("meta"):
        head = HEADS["mlp"](hidden_size=geometry.hidden, widths=published_head(geometry.hidden))
        decoder = SaliencyDecoder(
            vision_width=geometry.vision, text_width=geometry.hidden, width=saliency.width
        )
    parts = count(head.parameters()) + count(decoder.parameters())
    assert parts <= _PARTS < 4 * parts


def test_weights_by_hand():
    """A model of one layer of width 4. Catches a load that quantises what stays bfloat16, and
    scales that are not counted.
    """
    tiny = Geometry(
        name="tiny",
        hidden=4,
        layers=1,
        intermediate=8,
        heads=2,
        key_heads=1,
        vocabulary=10,
        tied=False,
        vision=2,
        blocks=0,
        vision_intermediate=2,
    )
    # q 4x4, k and v 4x2, o 4x4, gate and up 4x8, down 8x4; outputs 4+2+2+4+8+8+4.
    quantised, outputs = 16 + 8 + 8 + 16 + 3 * 32, 32
    others = 8 + (4 + 4) + 4 + 2 * 40  # biases, norms, last norm, tables
    assert tiny.quantised == quantised
    assert weight_bytes(tiny, "bf16", tower=False) == 2 * (quantised + others)
    assert weight_bytes(tiny, "8bit", tower=False) == quantised + 4 * outputs + 2 * others
    # Half a byte, one byte for 64 weights, four for 256 of those.
    nf4 = quantised * (0.5 + 1 / 64 + 4 / 16384)
    assert weight_bytes(tiny, "4bit", tower=False) == pytest.approx(nf4 + 2 * others)
    with_tower = weight_bytes(tiny, "4bit", tower=True) - weight_bytes(tiny, "4bit", tower=False)
    assert with_tower == 2 * tiny.tower


def test_known_figures_of_the_7b_model():
    """As derived from tensor sizes in configs/presets: 15.2 GB without the tower, 3.4 GB linear
    layers and 2.2 GB tables in 4 bits, .3 GB layer inputs and .6 GB within a layer at 1,420 tokens.
    """
    geometry = GEOMETRIES[1]
    assert weight_bytes(geometry, "bf16", tower=False) == pytest.approx(15.2e9, rel=0.01)
    assert weight_bytes(geometry, "4bit", tower=False) == pytest.approx(5.6e9, rel=0.02)
    optimiser = 16 * (geometry.adapters + _PARTS)
    assert training_bytes(geometry) - optimiser == pytest.approx(0.9e9, rel=0.05)
    assert 0.3e9 < scoring_bytes(geometry) < 1.5e9


def test_the_table_says_what_fits():
    """A 24 GB card. Catches a column that is swapped, and a fit that is always told."""
    rows = needs(int(24e9), gpu=True)
    assert len(rows) == len(GEOMETRIES) * len(LOADS) * len(JOBS)
    assert {row.fits for row in needs(int(4e9), gpu=True)} == {False}
    of_7b = {(row.load, row.job): row for row in rows if row.model == "7B"}
    assert of_7b["4bit", JOBS[0]].total < of_7b["8bit", JOBS[0]].total
    assert of_7b["8bit", JOBS[0]].total < of_7b["bf16", JOBS[0]].total
    assert all(row.fits == (row.total <= 24e9) for row in rows)
    lines = table(needs(int(16e9), gpu=True), "a card")
    assert len(lines) == 2 + len(GEOMETRIES) * len(LOADS)
    whole = next(line.split() for line in lines if line.split()[:2] == ["7B", "bf16"])
    assert whole[3::2] == ["no", "no"]
    quarter = next(line.split() for line in lines if line.split()[:2] == ["7B", "4bit"])
    assert quarter[3::2] == ["fits", "fits"]
