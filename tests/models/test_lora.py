"""Adapters: which layers they reach, what is trained, and that the rest stays as it was."""

import pytest
import torch
from transformers import Qwen2_5_VLConfig

from lmme3dhf.models.configuration import LMME3DHFConfig
from lmme3dhf.models.lora import add_adapters
from lmme3dhf.models.modeling import LMME3DHF
from tests.models.conftest import PREFIX, SHAPES, batch_of, load_with_head, made_case

# Qwen2.5-VL-7B, as its config.json has it.
SEVEN_B = {
    "text_config": {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
    },
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "tie_word_embeddings": False,
}


def adapt(model, *, language=True, vision=False, rank=8, dropout=0.0, heads=()):
    return add_adapters(
        model,
        rank=rank,
        alpha=4 * rank,
        dropout=dropout,
        language=language,
        vision=vision,
        heads=heads,
    )


def seven_b(**options):
    """The 7B geometry without weights, adapted."""
    with torch.device("meta"):
        model = LMME3DHF(LMME3DHFConfig(**Qwen2_5_VLConfig(**SEVEN_B).to_dict()))
        return adapt(model, **options)


def adapted_layers(model) -> list[str]:
    suffix = ".lora_A.default"
    return [name.removesuffix(suffix) for name, _ in model.named_modules() if name.endswith(suffix)]


def lora_size(model) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)


def test_seven_b_is_the_published_model_plus_the_published_head():
    """8,292,166,656 is half the total_size of the published bfloat16 weights. Catches layers that
    are built with other sizes than the released ones, or twice.
    """
    with torch.device("meta"):
        model = LMME3DHF(LMME3DHFConfig(**Qwen2_5_VLConfig(**SEVEN_B).to_dict()))
    head = sum(parameter.numel() for parameter in model.heads["score"].parameters())
    assert head == 3_950_945
    assert sum(p.numel() for p in model.parameters()) - head == 8_292_166_656
    assert [layer.out_features for layer in model.heads["score"].layers] == [1024, 256, 64, 16, 1]


def test_language_adapters_of_seven_b():
    """By hand: 7 linears in 28 layers; rank 8 times inputs plus outputs, a layer 8 * 90,112.
    Catches the old pattern, which reaches the vision tower in this version's layout, and adapters
    on the output layer.
    """
    model = seven_b()
    names = adapted_layers(model)
    assert len(names) == 196
    assert all(".language_model.layers." in name for name in names)
    sizes = [3584 + 3584, 3584 + 512, 3584 + 512, 3584 + 3584, *[3584 + 18944] * 3]
    assert lora_size(model) == 28 * 8 * sum(sizes) == 20_185_088


def test_vision_adapters_of_seven_b():
    """By hand: 5 linears in 32 blocks. Catches a pattern that reaches the merger, the patch
    embedding or the language model.
    """
    model = seven_b(language=False, vision=True)
    names = adapted_layers(model)
    assert len(names) == 32 * 5
    assert all(".visual.blocks." in name for name in names)
    sizes = [1280 + 3840, 1280 + 1280, *[1280 + 3420] * 3]
    assert lora_size(model) == 32 * 8 * sum(sizes)
    assert len(adapted_layers(seven_b(vision=True))) == 196 + 160


@pytest.mark.parametrize("train_head", [False, True])
def test_only_adapters_and_the_wanted_head_are_trained(tiny_folder, train_head):
    """Catches a backbone that is trained along, and a head that is frozen when it should learn."""
    model = adapt(LMME3DHF.from_pretrained(tiny_folder), heads=("score",) if train_head else ())
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    lora = [name for name in trained if "lora_" in name]
    head = [name for name in trained if "heads.score.modules_to_save" in name]
    assert len(lora) == 2 * 7 * 4
    assert len(head) == (10 if train_head else 0)
    assert sorted(trained) == sorted(lora + head)


def test_fresh_adapters_change_nothing(tiny_folder, processor):
    """Catches an update that does not start at zero: stage 2 would start beside stage 1's model."""
    model = load_with_head(tiny_folder)
    batch = batch_of(processor, made_case(processor, 0), made_case(processor, 1))
    with torch.no_grad():
        before = model(**batch).heads["score"]["score"]
        after = adapt(model, heads=("score",)).eval()(**batch).heads["score"]["score"]
    assert torch.equal(before, after)


@pytest.mark.parametrize("vision", [False, True])
def test_a_step_leaves_everything_else_bit_equal(tiny_folder, processor, vision):
    """Frozen is frozen. Catches a weight that moves without being asked, weight decay on frozen
    weights included, and a head or adapter that does not move. At the first step only one half of
    an adapter can: the other half starts at zero.
    """
    model = adapt(load_with_head(tiny_folder), vision=vision, heads=("score",), dropout=0.1).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cases = [
        made_case(processor, seed, shape, reply=f"{PREFIX} good.")
        for seed, shape in enumerate(SHAPES)
    ]
    output = model(**batch_of(processor, *cases))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    (output.token_losses.mean() + (output.heads["score"]["score"] - 0.7).abs().mean()).backward()
    optimizer.step()
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {
        name
        for name in before
        if "lora_B" in name or "heads.score.modules_to_save" in name or "lora_A" in name
    }
    assert moved <= expected
    assert {name for name in expected if "lora_B" in name} <= moved
    assert {name for name in expected if "heads.score" in name} <= moved
    assert any("visual" in name for name in moved) == vision


def test_a_model_of_another_layout_is_refused():
    """Catches an adapter that silently reaches nothing, as patterns of the old layout do."""
    other = torch.nn.ModuleDict({"visual": torch.nn.Linear(2, 2), "model": torch.nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"no layer of ModuleDict matches .*language_model"):
        adapt(other)


def test_adapting_nothing_is_refused_in_our_words(tiny_folder):
    """Catches settings that switch language and vision off and end in a library's message."""
    with pytest.raises(ValueError, match="neither the language model nor"):
        adapt(LMME3DHF.from_pretrained(tiny_folder), language=False, heads=("score",))
