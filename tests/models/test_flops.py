"""The FLOP model against the 7B geometry's figures, worked out by hand, and against torch's own
counter on the tiny model.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import Qwen2_5_VLConfig

from lmme3dhf.models.flops import Work, batch_work, head_work, language_work, tower_work
from lmme3dhf.models.lora import add_adapters
from lmme3dhf.models.modeling import LMME3DHF

ATTENTION = ("scaled_dot_product", "bmm")
# Before 2.15 torch counts its fused attention on GPUs and nothing for the same kernel of the CPU;
# its own formulas for it.
_CPU = "_scaled_dot_product_flash_attention_for_cpu"
FUSED_ON_THE_CPU = {
    getattr(torch.ops.aten, _CPU): lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    getattr(torch.ops.aten, f"{_CPU}_backward"): lambda gradient, q, k, v, *_, **__: (
        sdpa_backward_flop_count(gradient, q, k, v)
    ),
}


@pytest.fixture(scope="module")
def seven_b() -> Qwen2_5_VLConfig:
    """Geometry of Qwen2.5-VL-7B-Instruct, from its config.json."""
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    )


def causal(config: Qwen2_5_VLConfig, tokens: int, rank: int = 0) -> Work:
    """A sequence that is read everywhere."""
    pairs = tokens * (tokens + 1) / 2
    return language_work(config.text_config, tokens=tokens, pairs=pairs, reads=tokens, rank=rank)


@pytest.mark.parametrize(
    ("grid", "tflop"),
    [
        ((4, 36, 36), 6.84),  # 8 frames of 504 x 504
        ((2, 36, 36), 3.42),  # 4 frames
        ((1, 36, 36), 1.71),  # one picture
        ((4, 24, 24), 3.01),  # 336 x 336
    ],
)
def test_the_towers_work_at_7b(seven_b, grid, tflop):
    """By hand, per patch: 32 blocks of 19.69 M weights, the patch's 1.51 M, a quarter of the
    merger's 44.6 M; four blocks see a whole slice, the others windows of 64, 32 and 16 patches.
    Catches windows that are counted as whole, and slices that see each other.
    """
    assert tower_work(seven_b.vision_config, [grid]).forward / 1e12 == pytest.approx(
        tflop, rel=0.002
    )


@pytest.mark.parametrize(("tokens", "tflop"), [(1358, 18.1), (710, 9.4), (38942, 813)])
def test_the_language_models_work_at_7b(seven_b, tokens, tflop):
    """2 x 6.525 G weights a token, and 4 x 3584 x 28 for each of S (S + 1) / 2 pairs. Catches
    grouped keys that are counted as wide as the queries, and attention that is counted twice.
    """
    assert causal(seven_b, tokens).forward / 1e12 == pytest.approx(tflop, rel=0.004)


def test_a_training_step_at_7b(seven_b):
    """From stored visual tokens, 14 learnt tokens: 17.7 + 17.7 in the layers, 0.37 + 0.74 in
    attention, 0.16 in 20.2 M adapter weights, 0.03 in the head: 36.8. Catches a gradient of frozen
    weights (54), and a head at all positions (39.7).
    """
    work = causal(seven_b, 1358, rank=8) + head_work(seven_b.text_config, 14)
    assert work.training / 1e12 == pytest.approx(36.75, abs=0.1)
    assert causal(seven_b, 1, rank=8).adapters == 2 * 20_185_088


def test_the_last_mlp_is_counted_where_it_is_read(seven_b):
    """It has 203.7 M weights. Catches reads that cost nothing, or everything."""
    text = seven_b.text_config
    read = [language_work(text, tokens=1000, pairs=0, reads=r).forward for r in (1000, 14)]
    assert read[0] - read[1] == 2 * 986 * 3 * 3584 * 18944


def counted(counter: FlopCounterMode) -> tuple[int, int]:
    """FLOPs in linear layers and in attention, by torch's counter."""
    by_kind = [0, 0]
    for operation, flops in counter.get_flop_counts()["Global"].items():
        by_kind[any(name in str(operation) for name in ATTENTION)] += flops
    return by_kind[0], by_kind[1]


def test_torch_counts_the_same_in_the_tower(tiny_folder):
    """On a grid with windows that are cut at both edges. torch knows nothing of our formulas."""
    model = LMME3DHF.from_pretrained(tiny_folder)
    grid = (2, 10, 14)
    with FlopCounterMode(display=False, custom_mapping=FUSED_ON_THE_CPU) as counter:
        model.encode_video(torch.randn(2 * 10 * 14, 1176), torch.tensor([grid]))
    work = tower_work(model.config.vision_config, [grid])
    assert counted(counter) == (work.linear, work.attention)


def packed(model: LMME3DHF, visual: int = 12) -> dict:
    """Two questions of 3 and 5 tokens on one clip of `visual` tokens, after one system token; three
    padding tokens.
    """
    video = model.config.video_token_id
    prefix = 1 + visual
    ids = [5] + [video] * visual + [7] * 8 + [0] * 3
    seen = [prefix + 8] * prefix + [prefix + 3] * 3 + [prefix + 8] * 5
    seen += [prefix + 9, prefix + 10, prefix + 11]
    return {
        "input_ids": torch.tensor([ids]),
        "seen_until": torch.tensor([seen]),
        "mm_token_type_ids": torch.tensor([[0] + [2] * visual + [0] * 11]),
        "video_grid_thw": torch.tensor([[1, 6, 8]]),
        "second_per_grid_ts": torch.tensor([1.0]),
        "video_embeds": torch.randn(visual, model.config.text_config.hidden_size),
        "reads": torch.tensor([[prefix + 2, prefix + 6, prefix + 7]]),
        "learnt": torch.tensor([1, 2]),
        "targets": torch.tensor([7, 7]),
    }


def test_torch_counts_the_same_in_a_training_step(tiny_folder):
    """Forward and backward with adapters on one packed sequence. torch counts what its kernel does:
    padding, and all pairs of the square mask, here as L^2 tokens and pairs. Left out of the rule on
    purpose: the first layer's inputs need no gradient. Catches terms that are missing or counted
    twice, backward too.
    """
    model = LMME3DHF.from_pretrained(tiny_folder, attn_implementation="sdpa")
    adapted = add_adapters(model, rank=4, alpha=8, dropout=0.0, language=True, vision=False)
    batch = packed(model)
    with FlopCounterMode(display=False, custom_mapping=FUSED_ON_THE_CPU) as counter:
        adapted(**batch).token_losses.sum().backward()
    length, text = batch["input_ids"].shape[1], model.config.text_config
    work = language_work(text, tokens=length, pairs=length**2, reads=3, rank=4)
    work += head_work(text, 2)
    linear, attention = counted(counter)
    first = text.hidden_size * (text.hidden_size + 2 * text.hidden_size // 2)  # q, k, v
    assert linear == pytest.approx(
        2 * work.linear + 3 * work.adapters - 2 * length * first, rel=0.005
    )
    # Backward, the kernel computes the weights again: 5 products for 2, of which 4 are the model's.
    assert attention == pytest.approx(work.attention * 3.5, rel=0.02)


def test_a_batchs_work_leaves_out_padding_and_what_is_not_seen(tiny_folder):
    """13 tokens see each other, 3 and 5 more see these and their own: 91 + 3 * 13 + 6 + 5 * 13 + 15
    pairs. Catches the square, padding, and branches that see each other.
    """
    model = LMME3DHF.from_pretrained(tiny_folder)
    batch = packed(model) | {"tokens": 21}
    text = model.config.text_config
    work = language_work(text, tokens=21, pairs=216, reads=3, rank=4) + head_work(text, 2)
    assert float(batch_work(model.config, batch, language_rank=4)) == work.training
    pixels = batch | {"pixel_values_videos": torch.zeros(48, 1176)}
    tower = tower_work(model.config.vision_config, [(1, 6, 8)], 4)
    frozen = float(batch_work(model.config, pixels, language_rank=4)) - work.training
    assert frozen == pytest.approx(tower.forward - tower.adapters, rel=1e-4)
    trained = batch_work(model.config, pixels, language_rank=4, tower_rank=4) - work.training
    assert float(trained) == pytest.approx(tower.training, rel=1e-4)
