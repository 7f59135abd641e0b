"""The model class against the library's: loading, positions, what a score may depend on,
generation, and the saliency decoder's inputs.
"""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.gen3dhf import PROMPTS, SALIENCY_PROMPT
from lmme3dhf.models.configuration import MetricConfig, SaliencyConfig
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.vocabulary import LEVELS
from tests.conftest import random_frames
from tests.models.conftest import PREFIX, SHAPES, batch_of, load_with_head, made_item, rewritten

WEIGHTS = "model.safetensors"
# Largest change of a score (MOS / 100) by what must not matter but changes the order of sums.
ROUNDING = 1e-5


def module_layout(tensors: dict) -> dict:
    """Names of the modules in place of those of published checkpoints."""
    renamed = {
        re.sub(r"^visual", "model.visual", re.sub(r"^model\.", "model.language_model.", key)): value
        for key, value in tensors.items()
    }
    assert set(renamed).isdisjoint(tensors)
    return renamed


def assert_same_backbone(ours: LMME3DHF, stock: Qwen2_5_VLForConditionalGeneration) -> None:
    expected = stock.state_dict()
    assert expected
    for name, tensor in expected.items():
        assert torch.equal(ours.state_dict()[name], tensor), name


@pytest.fixture(scope="module")
def real_batch(processor):
    """Two clips of different grids, as the library's own processor makes a batch of them."""
    message = [{"type": "video"}, {"type": "text", "text": PROMPTS["quality"]}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    return processor(
        text=[text, text],
        videos=[random_frames(seed, *SHAPES[seed]) for seed in (0, 1)],
        do_resize=False,
        do_sample_frames=False,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model):
    """The all-in-one model: every new part, with a metric that differs from the defaults."""
    finished = load_with_head(model.name_or_path)
    torch.manual_seed(7)
    finished.config.set_metric(
        model.metric.replace(
            level_edges={"quality": (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)}, frames={"frames": 4}
        )
    )
    finished.add_saliency_decoder(SaliencyConfig())
    folder = tmp_path_factory.mktemp("finished")
    finished.save_pretrained(folder)
    return finished.eval(), folder


# Loading


@torch.no_grad()
def test_logits_are_those_of_the_stock_class(model, stock, real_batch):
    """Catches weights that are not loaded, loaded in the wrong place, or computed by other code
    than the library's.
    """
    logits = model(**real_batch).logits
    assert logits.shape[:2] == real_batch["input_ids"].shape
    assert torch.equal(logits, stock(**real_batch).logits)


@torch.no_grad()
def test_logits_are_those_of_the_stock_class_with_an_own_output_layer(
    tiny_folder, tmp_path, stock, real_batch
):
    """The 7B model ties no weights. Catches an output layer whose name is lost when keys are
    renamed: the logits would be random.
    """
    config = Qwen2_5_VLForConditionalGeneration.config_class.from_pretrained(tiny_folder)
    config.tie_word_embeddings = False
    torch.manual_seed(1)
    untied = Qwen2_5_VLForConditionalGeneration(config).eval()
    untied.save_pretrained(tmp_path)
    ours = LMME3DHF.from_pretrained(tmp_path).eval()
    assert ours.missing_parts == ["score_head"]
    assert ours.lm_head.weight is not ours.get_input_embeddings().weight
    assert torch.equal(ours(**real_batch).logits, untied(**real_batch).logits)


@pytest.mark.parametrize("layout", ["published", "modules"])
def test_plain_weights_load_with_only_the_head_missing(tiny_folder, tmp_path, stock, layout):
    """Catches a key mapping that fits one on-disk layout and leaves the other at random values,
    which the library mentions in a table at most.
    """
    folder = tiny_folder
    stored = load_file(folder / WEIGHTS)
    assert all(key.startswith(("visual.", "model.")) for key in stored)
    assert not any(key.startswith(("model.visual.", "model.language_model.")) for key in stored)
    if layout == "modules":
        folder = rewritten(folder, tmp_path / "modules", module_layout, WEIGHTS)
    ours, info = LMME3DHF.from_pretrained(folder, output_loading_info=True)
    head = {f"score_head.layers.{i}.{kind}" for i in range(5) for kind in ("weight", "bias")}
    assert set(info["missing_keys"]) == head
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert ours.missing_parts == ["score_head"]
    assert_same_backbone(ours, stock)


def deeper_text(config: dict) -> None:
    config["text_config"] |= {"num_hidden_layers": 5, "layer_types": ["full_attention"] * 5}


def shallower_text(config: dict) -> None:
    config["text_config"] |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}


def deeper_vision(config: dict) -> None:
    config["vision_config"]["depth"] = 7


def narrower_text(config: dict) -> None:
    config["text_config"]["intermediate_size"] = 256


@pytest.mark.parametrize(
    "edit",
    [
        deeper_text,
        shallower_text,
        deeper_vision,
        narrower_text,
    ],
)
def test_weights_of_another_geometry_are_refused(tiny_folder, tmp_path, edit):
    """Catches a model that runs with layers at random values, or with trained layers left out."""
    folder = shutil.copytree(tiny_folder, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"other.*config\.json and the weights belong together"):
        LMME3DHF.from_pretrained(folder)


def test_foreign_tensors_are_refused(tiny_folder, tmp_path):
    """Catches weights of another architecture that happen to hold all of ours too."""
    folder = rewritten(
        tiny_folder, tmp_path / "more", lambda t: t | {"model.expert.w": torch.zeros(3)}, WEIGHTS
    )
    with pytest.raises(ValueError, match=r"left over.*expert"):
        LMME3DHF.from_pretrained(folder)


def test_unknown_head_is_refused(tiny_folder, tmp_path):
    """Catches a misspelt head that ends in a bare KeyError."""
    folder = shutil.copytree(tiny_folder, tmp_path / "head")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"metric": {"head": "mpl"}}))
    with pytest.raises(ValueError, match=r"metric\.head.*'mpl'.*mlp"):
        LMME3DHF.from_pretrained(folder)


@torch.no_grad()
def test_finished_folder_comes_back_bit_for_bit(finished, processor):
    """Catches a head, a decoder or a part of the metric's configuration that is lost or rounded on
    the way through the folder.
    """
    before, folder = finished
    after, info = LMME3DHF.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert after.missing_parts == []
    assert after.metric == before.metric
    assert after.metric.frames == {"frames": 4}
    assert before.state_dict().keys() == after.state_dict().keys()
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name
    batch = batch_of(processor, made_item(processor, 0), made_item(processor, 1))
    one, two = before(**batch), after.eval()(**batch)
    # Equal weights at other addresses may be summed in another order.
    torch.testing.assert_close(one.score, two.score, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(one.level_logits, two.level_logits, atol=1e-6, rtol=1e-6)
    views = view_batch(processor, 0)
    torch.testing.assert_close(
        before.saliency_decoder(*before.saliency_features(**views)),
        after.saliency_decoder(*after.saliency_features(**views)),
    )


@torch.no_grad()
def test_stock_class_reads_the_finished_folder(finished, real_batch):
    """Catches key names or a configuration that only our class understands: such a folder could not
    be served or quantised by anybody.
    """
    ours, folder = finished
    stock, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"]
    new = [key.split(".")[0] for key in info["unexpected_keys"]]
    assert set(new) == {"score_head", "saliency_decoder"}
    assert torch.equal(stock.eval()(**real_batch).logits, ours(**real_batch).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_new_parts_stay_float32_in_a_half_precision_backbone(finished, tmp_path, dtype):
    """Catches new parts that are rounded with the backbone, on loading or on saving."""
    before, folder = finished
    half = LMME3DHF.from_pretrained(folder, dtype=dtype)
    half.save_pretrained(tmp_path)
    again = LMME3DHF.from_pretrained(tmp_path, dtype="auto")
    looked = 0
    for model in (half, again):
        assert model.model.language_model.layers[0].mlp.up_proj.weight.dtype == dtype
        assert model.model.visual.blocks[0].attn.qkv.weight.dtype == dtype
        for name in ("score_head", "saliency_decoder"):
            expected = getattr(before, name).state_dict()
            for key, tensor in getattr(model, name).state_dict().items():
                assert tensor.dtype == torch.float32, key
                assert torch.equal(tensor, expected[key]), key
                looked += 1
    assert looked > 100


def test_new_parts_start_in_float32_in_a_half_precision_backbone(tiny_folder):
    """Catches stage 2 on a plain bfloat16 base training a bfloat16 head."""
    model = LMME3DHF.from_pretrained(tiny_folder, dtype=torch.bfloat16)
    assert model.missing_parts == ["score_head"]
    assert {parameter.dtype for parameter in model.score_head.parameters()} == {torch.float32}


def test_missing_head_starts_as_the_head_says(tiny_folder):
    """He's deviation sqrt(2 / 128) and the middle of the scale. Catches the library's own
    initialisation in its place: deviation 0.04 in every layer, and all scores at 0.
    """
    model = LMME3DHF.from_pretrained(tiny_folder)
    first, last = model.score_head.layers[0], model.score_head.layers[-1]
    assert first.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.1)
    assert last.bias.item() == 0.5


def test_missing_decoder_starts_nearly_black(tiny_folder, tmp_path):
    """By the decoder's docstring, sigmoid(-3). Catches a grey start of a decoder that the
    configuration asks for and the weights lack.
    """
    folder = shutil.copytree(tiny_folder, tmp_path / "decoder")
    config = json.loads((folder / "config.json").read_text())
    config["metric"] = MetricConfig(saliency=SaliencyConfig()).to_dict()
    (folder / "config.json").write_text(json.dumps(config))
    model = LMME3DHF.from_pretrained(folder)
    assert model.missing_parts == ["saliency_decoder", "score_head"]
    assert model.saliency_decoder.out[-1].bias.item() == -3.0


def test_missing_head_comes_from_the_seed(tiny_folder):
    """Catches runs that cannot be repeated, and one start whatever the seed."""

    def head(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return LMME3DHF.from_pretrained(tiny_folder).score_head.layers[0].weight

    assert torch.equal(head(3), head(3))
    assert not torch.equal(head(3), head(4))


# The forward pass


@torch.no_grad()
def test_reading_agrees_with_the_stock_logits_and_loss(model, stock, processor):
    """Catches a read position that is off by one, level words in another order, and a loss that is
    shifted or averaged in another way than the library's.
    """
    items = [
        made_item(processor, seed, shape, reply=f"{PREFIX} {LEVELS[seed]}.")
        for seed, shape in enumerate(SHAPES)
    ]
    batch = batch_of(processor, *items, keep=("labels",))
    ours = model(**batch)
    read_index = batch.pop("read_index")
    expected = stock(**batch)
    rows = torch.arange(len(items))
    words = [processor.tokenizer.encode(f" {word}")[0] for word in LEVELS]
    said = expected.logits[rows, read_index]
    torch.testing.assert_close(ours.level_logits, said[:, words], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.loss, expected.loss, atol=1e-6, rtol=1e-6)
    # The read token is the one before the level word.
    following = batch["input_ids"][rows, read_index + 1]
    assert following.tolist() == words[: len(items)]


@torch.no_grad()
def test_score_is_the_head_on_the_read_hidden_state(model, stock, processor):
    """Catches a score from another layer (before the final norm) or another position."""
    items = [made_item(processor, seed, shape) for seed, shape in enumerate(SHAPES)]
    batch = batch_of(processor, *items)
    score = model(**batch).score
    read_index = batch.pop("read_index")
    hidden = stock.model(**batch).last_hidden_state
    expected = model.score_head(hidden[torch.arange(len(items)), read_index])
    torch.testing.assert_close(score, expected, atol=1e-6, rtol=0)
    assert score.std() > 0.01  # the clips differ


def test_losses_are_taken_as_plain_means(model):
    """The library divides such losses by the accumulation steps, and no others. Catches a forward
    pass that claims to have done so itself, because it takes keyword arguments.
    """
    assert model.accepts_loss_kwargs is False


def test_placeholders_and_visual_tokens_must_agree(model, processor):
    """Catches visual tokens that slide into the next sample's places."""
    batch = batch_of(processor, made_item(processor, 0, model=model))
    batch["video_embeds"] = batch["video_embeds"][:-1]
    with pytest.raises(ValueError, match="24 video placeholders, but 23 visual tokens"):
        model(**batch)


def test_frozen_tower_keeps_no_graph(tiny_folder, processor):
    """Catches a frozen tower whose activations fill the memory in training, and a trained tower
    (Table 5) that gets no gradient.
    """
    model = LMME3DHF.from_pretrained(tiny_folder)
    pixels, grid = made_item(processor, 0).pixel_values, torch.tensor([[2, 6, 8]])
    model.model.visual.requires_grad_(False)
    # Gradient checkpointing makes inputs ask for gradients.
    assert not model.encode_video(pixels.clone().requires_grad_(True), grid).requires_grad
    model.model.visual.blocks[0].attn.qkv.weight.requires_grad_(True)
    model.encode_video(pixels, grid).sum().backward()
    assert model.model.visual.blocks[0].attn.qkv.weight.grad.abs().max() > 0


def positions_seen(model, run) -> torch.Tensor:
    """What reaches the language model as position_ids while `run` runs."""
    seen = []

    def keep(module, args, kwargs):
        seen.append(kwargs["position_ids"])

    handle = model.model.language_model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    assert len(seen) == 1
    return seen[0]


@torch.no_grad()
def test_positions_are_those_of_the_stock_class_and_three_dimensional(model, stock, processor):
    """Catches text positions, into which the library falls back without a word when
    mm_token_type_ids is lost, and positions that ignore the clip's time base or the padding.
    """
    items = [made_item(processor, seed, shape) for seed, shape in enumerate(SHAPES)]
    batch = batch_of(processor, *items)
    ours = positions_seen(model, lambda: model(**batch))
    batch.pop("read_index")
    expected = positions_seen(stock, lambda: stock(**batch))
    tokens = batch["attention_mask"].bool()
    # The stock class may add a row of text positions in front of the three axes.
    assert torch.equal(ours[-3:, tokens].long(), expected[-3:, tokens].long())
    # By hand: 2 frames of 3 x 4 merged tokens after the text before them, one second (two
    # positions a second, half a second between temporal patches) from frame to frame.
    at = batch["input_ids"][0] == model.config.video_token_id
    t, y, x = (axis[at] - axis[at].min() for axis in ours[-3:, 0])
    assert t.tolist() == [0] * 12 + [1] * 12
    assert y.tolist() == [row for _ in range(2) for row in range(3) for _ in range(4)]
    assert x.tolist() == [0, 1, 2, 3] * 6


@torch.no_grad()
def test_shape_and_time_base_of_a_clip_matter(model, processor):
    """The same tokens under another grid or time base mean another clip. Catches positions that do
    not reach the attention.
    """
    item = made_item(processor, 0, model=model)
    batch = batch_of(processor, item)

    def hidden(grid: list[int], seconds: float) -> torch.Tensor:
        media = {"video_grid_thw": torch.tensor([grid])}
        media["second_per_grid_ts"] = torch.tensor([seconds])
        arguments = {key: value for key, value in batch.items() if key != "read_index"}
        return model.hidden_states(**arguments | media)[0]

    first = hidden([2, 6, 8], 0.5)
    for grid, seconds in (([2, 8, 6], 0.5), ([4, 6, 4], 0.5), ([2, 6, 8], 2.0)):
        assert (hidden(grid, seconds) - first).abs().max() > 1e-3, (grid, seconds)


# What a score may depend on


@torch.no_grad()
def test_score_does_not_depend_on_the_reply(model, processor):
    """The released code reads the level word itself, which is a label. Catches any way from the
    reply to the score: replies of one length give the same bits; longer ones change the order of
    sums.
    """

    def score(reply: str | None) -> float:
        return model(**batch_of(processor, made_item(processor, 0, reply=reply))).score.item()

    asked = score(None)
    words = [score(f"{PREFIX} {level}.") for level in LEVELS]
    assert len(set(words)) == 1
    assert words[0] == pytest.approx(asked, abs=1e-6)
    for rest in (". (12.3)", " excellent. (99.0)", " nonsense " * 20):
        assert score(PREFIX + rest) == pytest.approx(asked, abs=1e-6)
    # Such a test must be able to fail: one token further it does.
    batches = [
        batch_of(processor, made_item(processor, 0, reply=f"{PREFIX} {level}."))
        for level in ("bad", "excellent")
    ]
    for batch in batches:
        batch["read_index"] += 1
    leaking = [model(**batch).score.item() for batch in batches]
    assert abs(leaking[0] - leaking[1]) > 1e-3


@torch.no_grad()
def test_asking_needs_no_reply(model, processor):
    """Catches a prediction path that wants a reply, or appends one."""
    item = made_item(processor, 0)
    assert item.encoded.read_index == len(item.encoded.input_ids) - 1
    assert set(item.encoded.labels) == {-100}
    text = processor.tokenizer.decode(item.encoded.input_ids)
    assert text.endswith(f"<|im_start|>assistant\n{PREFIX}")
    assert torch.isfinite(model(**batch_of(processor, item)).score).all()


@torch.no_grad()
def test_neighbours_batch_size_and_padding_do_not_matter(model, processor):
    """Catches padding that is attended to, positions that count padding, and visual tokens that
    land in a neighbour's places. Four grids and two prompts in one batch, in pixels and in stored
    tokens.
    """
    options = [{"prompt": "Rate it."}, {}, {"reply": f"{PREFIX} good. (61.0)"}, {}]
    pixels, stored = (
        [
            made_item(processor, seed, shape, model=source, **option)
            for seed, (shape, option) in enumerate(zip(SHAPES, options, strict=True))
        ]
        for source in (None, model)
    )
    alone = [model(**batch_of(processor, item)) for item in pixels]
    score = torch.cat([output.score for output in alone])
    levels = torch.cat([output.level_logits for output in alone])
    assert score.std() > 0.01
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [0, 3], [2, 1], [0, 0, 3], [1, 1, 1, 1]]
    for items in (pixels, stored):
        for order in orders:
            output = model(**batch_of(processor, *(items[i] for i in order)))
            assert (output.score - score[order]).abs().max() <= ROUNDING, order
            assert (output.level_logits - levels[order]).abs().max() <= ROUNDING, order


@torch.no_grad()
def test_generation_from_stored_tokens_is_generation_from_pixels(model, stock, processor):
    """Catches generation on text positions (the library looks for argument names in our signature),
    and visual tokens that reach the first step only. The random model repeats itself, so the logits
    of every step are compared too.
    """
    prompts = (PROMPTS["quality"], PROMPTS["distortion"])
    items = [
        made_item(processor, seed, SHAPES[seed], prompt=prompt, prefix=None)
        for seed, prompt in enumerate(prompts)
    ]
    batch = batch_of(processor, *items)
    batch.pop("read_index")
    how = {
        "max_new_tokens": 8,
        "do_sample": False,
        "pad_token_id": processor.tokenizer.pad_token_id,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    expected = stock.generate(**batch, **how)
    from_pixels = model.generate(**batch, **how)
    pixels = batch.pop("pixel_values_videos")
    tokens = model.encode_video(pixels, batch["video_grid_thw"])
    embeds = model.embed(batch["input_ids"], tokens)
    from_tokens = model.generate(**batch, inputs_embeds=embeds, **how)
    assert torch.equal(from_pixels.sequences, expected.sequences)
    assert torch.equal(from_tokens.sequences, expected.sequences)
    assert len(expected.logits) == 8
    for step, logits in enumerate(expected.logits):
        assert (from_tokens.logits[step] - logits).abs().max() <= ROUNDING, step
    # The comparison must be able to fail: on text positions the logits are others.
    batch.pop("mm_token_type_ids")
    flat = model.generate(**batch, inputs_embeds=embeds, **how)
    assert (flat.logits[1] - expected.logits[1]).abs().max() > 100 * ROUNDING


# The saliency decoder's inputs


def view_batch(processor, *seeds, height=84, width=112, prompt=SALIENCY_PROMPT, video_first=False):
    """Three views a clip: each fills a temporal patch of its own."""
    shape = (6, height, width)
    items = [
        made_item(processor, seed, shape, prompt=prompt, prefix=None, video_first=video_first)
        for seed in seeds
    ]
    batch = batch_of(processor, *items)
    batch.pop("read_index")
    return batch


@torch.no_grad()
def test_saliency_features_stand_in_raster_order(finished, processor):
    """The last block's tap goes through the tower's own merger again, which must give the visual
    tokens in raster order. Catches taps of other blocks, in window order, or of other clips.
    """
    model, _ = finished
    assert model.metric.saliency.taps == (5, 3, 1)
    batch = view_batch(processor, 0, 1)
    tokens, taps = model.saliency_features(**batch)
    assert tokens.shape == (2, 3, 3, 4, 128)
    assert [tap.shape for tap in taps] == [(2, 3, 6, 8, 160)] * 3
    grid = batch["video_grid_thw"]
    expected = model.encode_video(batch["pixel_values_videos"], grid).view(2, 3, 3, 4, 128)
    # Four neighbours of one merged block stand together before the merger.
    blocks = taps[0].view(2, 3, 3, 2, 4, 2, 160).transpose(3, 4).reshape(-1, 160)
    merged = model.model.visual.merger(blocks).view(expected.shape)
    torch.testing.assert_close(merged, expected, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(taps[0], taps[1], atol=1e-2)
    assert not torch.allclose(taps[1], taps[2], atol=1e-2)
    maps = model.saliency_decoder(tokens, taps)
    assert maps.shape == (2, 3, 24, 32)


@torch.no_grad()
def test_saliency_tokens_are_the_hidden_states_at_the_visual_tokens(finished, processor):
    """Catches embeddings in place of hidden states, and clips or views in another order."""
    model, _ = finished
    batch = view_batch(processor, 0, 1)
    tokens, _ = model.saliency_features(**batch)
    hidden = Qwen2_5_VLForConditionalGeneration.forward(
        model, **batch, output_hidden_states=True
    ).hidden_states[-1]
    at = batch["input_ids"] == model.config.video_token_id
    torch.testing.assert_close(tokens.flatten(0, 3), hidden[at], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_text_matters_before_the_views_and_cannot_after_them(finished, processor):
    """In a causal model text after the media cannot reach the visual tokens (departure D5). Catches
    a saliency question in a place where it is only decoration.
    """
    model, _ = finished

    def tokens(prompt: str, video_first: bool) -> torch.Tensor:
        return model.saliency_features(
            **view_batch(processor, 0, prompt=prompt, video_first=video_first)
        )[0]

    other = "Where does the face look real?"
    after = tokens(SALIENCY_PROMPT, True) - tokens(other, True)
    before = tokens(SALIENCY_PROMPT, False) - tokens(other, False)
    assert after.abs().max() <= 1e-5
    assert before.abs().max() > 1e-2


def test_saliency_features_leave_no_hooks_and_no_graph(finished, processor):
    """Catches taps that stay registered and keep every later clip's activations, after an error
    too.
    """
    model, _ = finished
    batch = view_batch(processor, 0)

    def hooks() -> int:
        return sum(len(block._forward_hooks) for block in model.model.visual.blocks)

    before = hooks()  # the library may keep some of its own
    tokens, taps = model.saliency_features(**batch)
    assert not any(tensor.requires_grad for tensor in (tokens, *taps))
    broken = dict(batch) | {"pixel_values_videos": batch["pixel_values_videos"][:-1]}
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        model.saliency_features(**broken)
    assert hooks() == before


def test_saliency_features_refuse_what_cannot_be_stacked(finished, model, processor):
    """Catches clips of several sizes in one tensor, and a model that was never given a decoder."""
    items = [
        made_item(processor, 0, shape, prompt=SALIENCY_PROMPT, prefix=None)
        for shape in ((6, 84, 112), (6, 112, 84))
    ]
    batch = batch_of(processor, *items)
    batch.pop("read_index")
    with pytest.raises(ValueError, match="equal grids"):
        finished[0].saliency_features(**batch)
    with pytest.raises(ValueError, match="no saliency decoder"):
        model.saliency_features(**view_batch(processor, 0))


def test_decoder_geometry_lands_in_the_configuration(tiny_folder):
    """Catches a decoder whose geometry exists in memory only: its folder could not be loaded."""
    model = LMME3DHF.from_pretrained(tiny_folder)
    assert model.metric.saliency is None
    assert model.saliency_decoder is None
    model.add_saliency_decoder(SaliencyConfig(width=40))
    assert model.metric.saliency == SaliencyConfig(taps=(5, 3, 1), width=40)


def test_dialogue_encoder_and_model_agree_on_the_placeholder(model, processor):
    """Catches a configuration whose placeholder is another token than the tokenizer's."""
    assert DialogueEncoder(processor.tokenizer).video_pad == model.config.video_token_id
