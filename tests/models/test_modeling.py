"""The model class against the library's: loading, packed questions and their positions, what a
score may depend on, work that is not done, generation, and the saliency decoder's inputs.
"""

import copy
import json
import re
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed

from lmme3dhf.data import collation
from lmme3dhf.data.dialogue import IGNORED, DialogueEncoder
from lmme3dhf.data.gen3dhf import PROMPTS, SALIENCY_PROMPT
from lmme3dhf.models.configuration import MetricConfig, ModelError, SaliencyConfig
from lmme3dhf.models.lora import add_adapters
from lmme3dhf.models.modeling import LMME3DHF, tree_attention
from lmme3dhf.models.tower import PatchProduct
from lmme3dhf.vocabulary import LEVELS
from tests.conftest import random_frames
from tests.models.conftest import (
    PREFIX,
    SHAPES,
    Case,
    asked,
    batch_of,
    hidden_of,
    levels_of,
    load_with_head,
    made_case,
    noise,
    rewritten,
    stock_batch,
)

WEIGHTS = "model.safetensors"
# Largest change of a score (MOS / 100), a logit or a loss by what must not matter but changes the
# order of sums.
ROUNDING = 1e-5


def score_of(output):
    """Unit values of the one head."""
    return output.heads["score"]["score"]


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
    finished.config.set_metric(model.metric.replace(frames={"frames": 4}))
    finished.add_saliency_decoder(SaliencyConfig())
    folder = tmp_path_factory.mktemp("finished")
    finished.save_pretrained(folder)
    return finished.eval(), folder


# Loading


def assert_stock_logits(
    ours: LMME3DHF, stock: Qwen2_5_VLForConditionalGeneration, batch: dict, monkeypatch
) -> None:
    """Bit for bit, but for the patch embedding, whose sums are in another order."""
    expected = stock(**batch).logits
    logits = ours(**batch).logits
    assert logits.shape[:2] == batch["input_ids"].shape
    assert (logits - expected).abs().max() <= ROUNDING
    with monkeypatch.context() as patch:
        patch.setattr(PatchProduct, "forward", Qwen2_5_VisionPatchEmbed.forward)
        assert torch.equal(ours(**batch).logits, expected)


@torch.no_grad()
def test_logits_are_those_of_the_stock_class(model, stock, real_batch, monkeypatch):
    """Catches weights that are not loaded, loaded in the wrong place, or computed by other code
    than the library's.
    """
    assert_stock_logits(model, stock, real_batch, monkeypatch)


@torch.no_grad()
def test_logits_are_those_of_the_stock_class_with_an_own_output_layer(
    tiny_folder, tmp_path, real_batch, monkeypatch
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
    assert ours.missing_parts == ["heads.score"]
    assert ours.lm_head.weight is not ours.get_input_embeddings().weight
    assert_stock_logits(ours, untied, real_batch, monkeypatch)


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
    head = {f"heads.score.layers.{i}.{kind}" for i in range(5) for kind in ("weight", "bias")}
    assert set(info["missing_keys"]) == head
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert ours.missing_parts == ["heads.score"]
    assert_same_backbone(ours, stock)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["published", "modules"])
def test_without_the_tower_the_rest_is_the_same(tiny_folder, tmp_path, model, processor, layout):
    """Training on stored features. Catches a tower that takes memory all the same, other weights
    that go with it, and weights of the rest that may be missing too.
    """
    folder = tiny_folder
    if layout == "modules":
        folder = rewritten(folder, tmp_path / "modules", module_layout, WEIGHTS)
    lone = load_with_head(folder, tower=False)
    assert lone.model.visual is None
    assert lone.missing_parts == ["heads.score"]
    whole = model.state_dict()
    assert {name for name in whole if ".visual." not in name} == set(lone.state_dict())
    for name, tensor in lone.state_dict().items():
        assert torch.equal(tensor, whole[name]), name
    batch = batch_of(processor, made_case(processor, 0, model=model))
    torch.testing.assert_close(
        score_of(lone(**batch)),
        score_of(model(**batch)),
        atol=1e-6,
        rtol=1e-6,
    )
    lost = "model.layers.2.mlp.up_proj.weight"
    without = rewritten(
        tiny_folder,
        tmp_path / "lost",
        lambda tensors: {name: t for name, t in tensors.items() if name != lost},
        WEIGHTS,
    )
    with pytest.raises(ModelError, match=r"missing .*layers\.2\.mlp\.up_proj"):
        LMME3DHF.from_pretrained(without, tower=False)


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


def test_no_layer_is_split_over_devices(model):
    """Device maps keep together what is named by its class. Catches a last layer whose halves land
    on two devices.
    """
    layers = [*model.model.language_model.layers, *model.model.visual.blocks]
    assert {type(layer).__name__ for layer in layers} <= set(model._no_split_modules)


def test_unknown_head_is_refused(tiny_folder, tmp_path):
    """Catches a misspelt head that ends in a bare KeyError."""
    folder = shutil.copytree(tiny_folder, tmp_path / "head")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"metric": {"head": "mpl"}}))
    with pytest.raises(ValueError, match=r"heads\.score.*'mpl'.*mlp.*--plugin"):
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
    batch = batch_of(processor, made_case(processor, 0), made_case(processor, 1))
    one, two = before(**batch), after.eval()(**batch)
    # Equal weights at other addresses may be summed in another order.
    torch.testing.assert_close(score_of(one), score_of(two), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        levels_of(before, batch), levels_of(after, batch), atol=1e-6, rtol=1e-6
    )
    views = view_batch(processor, 0)
    torch.testing.assert_close(
        before.saliency_decoder(*features(before, views)),
        after.saliency_decoder(*features(after, views)),
    )


@torch.no_grad()
def test_stock_class_reads_the_finished_folder(finished, real_batch, monkeypatch):
    """Catches key names or a configuration that only our class understands: such a folder could not
    be served or quantised by anybody.
    """
    ours, folder = finished
    stock, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"]
    new = [key.split(".")[0] for key in info["unexpected_keys"]]
    assert set(new) == {"heads", "saliency_decoder"}
    assert_stock_logits(ours, stock.eval(), real_batch, monkeypatch)


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
        for name in ("heads", "saliency_decoder"):
            expected = getattr(before, name).state_dict()
            for key, tensor in getattr(model, name).state_dict().items():
                assert tensor.dtype == torch.float32, key
                assert torch.equal(tensor, expected[key]), key
                looked += 1
    assert looked > 100


def test_new_parts_start_in_float32_in_a_half_precision_backbone(tiny_folder):
    """Catches stage 2 on a plain bfloat16 base training a bfloat16 head."""
    model = LMME3DHF.from_pretrained(tiny_folder, dtype=torch.bfloat16)
    assert model.missing_parts == ["heads.score"]
    assert {parameter.dtype for parameter in model.heads["score"].parameters()} == {torch.float32}


def test_missing_head_starts_as_the_head_says(tiny_folder):
    """He's deviation sqrt(2 / 128) and the middle of the scale. Catches the library's own
    initialisation in its place: deviation 0.04 in every layer, and all scores at 0.
    """
    model = LMME3DHF.from_pretrained(tiny_folder)
    first, last = model.heads["score"].layers[0], model.heads["score"].layers[-1]
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
    assert model.missing_parts == ["heads.score", "saliency_decoder"]
    assert model.saliency_decoder.out[-1].bias.item() == -3.0


def test_missing_head_comes_from_the_seed(tiny_folder):
    """Catches runs that cannot be repeated, and one start whatever the seed."""

    def head(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return LMME3DHF.from_pretrained(tiny_folder).heads["score"].layers[0].weight

    assert torch.equal(head(3), head(3))
    assert not torch.equal(head(3), head(4))


# The forward pass


@torch.no_grad()
def test_reading_agrees_with_the_stock_logits_and_loss(model, stock, processor):
    """Catches a read position that is off by one, level words in another order, and a loss that is
    shifted or averaged in another way than the library's.
    """
    cases = [
        made_case(processor, seed, shape, reply=f"{PREFIX} {LEVELS[seed]}.")
        for seed, shape in enumerate(SHAPES)
    ]
    batch = batch_of(processor, *cases)
    arguments = stock_batch(processor, *cases, side="left")
    expected = stock(**arguments)
    words = [processor.tokenizer.encode(f" {word}")[0] for word in LEVELS]
    # The level word is predicted by the token before it.
    rows = torch.arange(len(cases))
    at = torch.stack([arguments["input_ids"][row] == words[row] for row in rows]).nonzero()[:, 1]
    said = expected.logits[rows, at - 1]
    torch.testing.assert_close(levels_of(model, batch), said[:, words], atol=1e-5, rtol=1e-5)
    loss = model(**batch).token_losses.mean()
    torch.testing.assert_close(loss, expected.loss, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_score_is_the_head_on_the_read_hidden_state(model, stock, processor):
    """Catches a score from another layer (before the final norm) or another position."""
    cases = [made_case(processor, seed, shape) for seed, shape in enumerate(SHAPES)]
    score = model(**batch_of(processor, *cases)).heads["score"]["score"]
    arguments = stock_batch(processor, *cases, side="left")
    del arguments["labels"]
    # Without a reply the last token is the prefix's last.
    expected = model.heads["score"](stock.model(**arguments).last_hidden_state[:, -1])["score"]
    torch.testing.assert_close(score, expected, atol=ROUNDING, rtol=0)
    assert score.std() > 0.01  # the clips differ


def test_losses_are_taken_as_plain_means(model):
    """The library divides such losses by the accumulation steps, and no others. Catches a forward
    pass that claims to have done so itself, because it takes keyword arguments.
    """
    assert model.accepts_loss_kwargs is False


def test_placeholders_and_visual_tokens_must_agree(model, processor):
    """Catches visual tokens that slide into the next sample's places."""
    batch = batch_of(processor, made_case(processor, 0, model=model))
    batch["video_embeds"] = batch["video_embeds"][:-1]
    with pytest.raises(ValueError, match="24 placeholders, but 23 visual tokens"):
        model(**batch)


@pytest.mark.filterwarnings("ignore:.*checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("hooked", ["plain", "require_grads", "checkpointing"])
def test_frozen_tower_keeps_no_graph(tiny_folder, processor, hooked):
    """The library's way to gradient checkpointing hooks the tower's input too, so that a graph of
    the whole tower is kept and gone back through. Catches a frozen tower whose activations fill the
    memory in training, and a trained tower (Table 5) that gets no gradient.
    """
    model = LMME3DHF.from_pretrained(tiny_folder).train()
    pixels, grid = noise(processor, 0).pixel_values, torch.tensor([[2, 6, 8]])
    model.model.visual.requires_grad_(False)
    if hooked != "plain":
        model.enable_input_require_grads()
    if hooked == "checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    assert not model.encode_video(pixels, grid).requires_grad
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
    """Every token of packed questions against its dialogue alone. Catches positions that count the
    other questions, text positions, into which the library falls back without a word when
    mm_token_type_ids is lost, and positions that ignore the clip's time base or the padding.
    """
    cases = three_questions(processor)
    batch = batch_of(processor, *cases)
    ours = positions_seen(model, lambda: model(**batch))
    looked = 0
    for row, case in enumerate(cases):
        seen = [paths_back(batch, row, read) for read in batch["reads"][row].tolist()]
        for question in case.questions:
            alone = stock_batch(processor, Case(case.media, (question,)))
            expected = positions_seen(stock, lambda alone=alone: stock(**alone))
            # The last token that is read sees its whole dialogue, but for the reply's end.
            ids = alone["input_ids"][0, :-1].tolist()
            (own,) = {tuple(path) for path in seen if batch["input_ids"][row, path].tolist() == ids}
            # The stock class may add a row of text positions in front of the three axes.
            assert torch.equal(ours[-3:, row, own].long(), expected[-3:, 0, : len(own)].long())
            looked += 1
    assert looked == 3 * len(SHAPES)
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
    batch = batch_of(processor, made_case(processor, 0, model=model))

    def hidden(grid: list[int], seconds: float) -> torch.Tensor:
        media = {"video_grid_thw": torch.tensor([grid])}
        media["second_per_grid_ts"] = torch.tensor([seconds])
        return hidden_of(model, batch | media)

    first = hidden([2, 6, 8], 0.5)
    for grid, seconds in (([2, 8, 6], 0.5), ([4, 6, 4], 0.5), ([2, 6, 8], 2.0)):
        assert (hidden(grid, seconds) - first).abs().max() > 1e-3, (grid, seconds)


# Packed questions


def three_questions(processor, *, source: LMME3DHF | None = None, scored: bool = True) -> list:
    """A clip of each grid with three questions: two dimensions with their replies, learnt and
    scored, and the distortions with replies of several lengths.
    """
    found = ("Eye Distortions", "Eye Distortions, Blurriness", "No Distortion", "Hair Distortions")
    cases = []
    for seed, shape in enumerate(SHAPES):
        questions = []
        for i, dimension in enumerate(("quality", "authenticity")):
            prefix = PREFIX.replace("quality", dimension)
            questions.append(
                asked(
                    processor,
                    prompt=PROMPTS[dimension],
                    reply=f"{prefix} {LEVELS[(seed + i) % 5]}.",
                    prefix=prefix if scored else None,
                    mos=0.3 * i + 0.1 * seed,
                )
            )
        reply = f"Distortions found: {found[seed]}"
        questions.append(asked(processor, prompt=PROMPTS["distortion"], reply=reply, prefix=None))
        cases.append(Case(noise(processor, seed, shape, model=source), tuple(questions)))
    return cases


def paths_back(batch: dict, row: int, read: int) -> list[int]:
    """Positions that a token of a packed row sees, itself included, in their order."""
    seen_until = batch["seen_until"][row].tolist()
    return [j for j in range(read + 1) if read < seen_until[j]]


def test_tree_attention_by_hand():
    """The dialogues 1 2 3 and 1 4, and one token of padding. Catches a mask that is turned round,
    one that shows a branch to the next, and positions that are not shifted back.
    """
    sees, unseen = tree_attention(torch.tensor([[4, 3, 3, 4, 5], [5, 5, 5, 5, 5]]))
    assert sees.shape == (2, 1, 5, 5)
    assert sees[0, 0].long().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert torch.equal(sees[1, 0], torch.ones(5, 5).tril().bool())
    assert unseen.tolist() == [[0, 0, 0, 2, 4], [0] * 5]


def told_by_stock(
    stock: Qwen2_5_VLForConditionalGeneration, head: Callable, processor, cases: list[Case]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token losses, level logits and scores of all questions by the definition: the library's class
    on one whole dialogue at a time, not packed, every token read.
    """
    words = [processor.tokenizer.encode(f" {word}")[0] for word in LEVELS]
    losses, levels, scores = [], [], []
    for case in cases:
        for question in case.questions:
            arguments = stock_batch(processor, Case(case.media, (question,)))
            labels = arguments.pop("labels")[0]
            hidden = stock.model(**arguments).last_hidden_state[0]
            logits = stock.lm_head(hidden)
            at = (labels != IGNORED).nonzero()[:, 0]
            losses.append(functional.cross_entropy(logits[at - 1], labels[at], reduction="none"))
            read = question.encoded.expand("video", case.media.tokens).read_index
            if read >= 0:
                levels.append(logits[read, words])
                scores.append(head(hidden[read][None])["score"])
    return torch.cat(losses), torch.stack(levels), torch.cat(scores)


@torch.no_grad()
@pytest.mark.parametrize("source", ["pixels", "visual tokens"])
def test_packed_questions_are_the_separate_ones(
    model, stock, lively, lively_stock, processor, source
):
    """Losses, level logits and scores of three questions on clips of several grids in one batch
    against the stock class, a dialogue at a time; from pixels, and with the stock tower's visual
    tokens in a model that exaggerates. Catches a branch that sees its neighbours or the padding,
    positions that count the whole tree, a token that is read in another branch, and a last layer
    that is computed otherwise where it is read.
    """
    cases = three_questions(processor)
    batch = batch_of(processor, *cases)
    ours, theirs = model, stock
    if source == "visual tokens":
        ours, theirs = lively, lively_stock
        del batch["pixel_values_videos"]
        batch["video_embeds"] = torch.cat(
            [
                theirs.model.visual(
                    case.media.pixel_values, grid_thw=torch.tensor([case.media.grid_thw])
                ).pooler_output
                for case in cases
            ]
        )
    losses, levels, scores = told_by_stock(theirs, ours.heads["score"], processor, cases)
    output = ours(**batch)
    assert losses.std() > 0.3
    assert scores.std() > 0.01
    for found, expected in (
        (output.token_losses, losses),
        (levels_of(ours, batch), levels),
        (output.heads["score"]["score"], scores),
    ):
        torch.testing.assert_close(found, expected, atol=ROUNDING, rtol=ROUNDING)


@torch.no_grad()
@pytest.mark.parametrize("shift", [-1, 1])
def test_what_a_branch_sees_matters_by_one_token(lively, processor, shift):
    """The comparisons above must be able to fail: each branch ends one token too late or too early
    for what goes on from it.
    """
    cases = three_questions(processor, source=lively)[:1]
    batch = batch_of(processor, *cases)
    before = lively(**batch)
    length = batch["input_ids"].shape[1]
    index = torch.arange(length)
    inner = batch["seen_until"] < length
    assert inner.any()
    moved = torch.where(inner, batch["seen_until"] + shift, batch["seen_until"])
    after = lively(**batch | {"seen_until": moved.maximum(index + 1)})
    assert (after.token_losses - before.token_losses).abs().max() > 1000 * ROUNDING


def relative(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest difference of gradients, relative to the largest of each."""
    assert ours.keys() == expected.keys()
    return max(
        float((ours[name] - grad).abs().max() / grad.abs().max()) for name, grad in expected.items()
    )


@pytest.mark.filterwarnings("ignore:.*checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_gradients_are_the_separate_ones(model, stock, processor, checkpointing):
    """Gradients of adapters and head by the three questions' losses and score errors, packed,
    against the stock class with the same adapters, a dialogue at a time. Catches a branch that
    teaches another one, a prefix that learns from one question only, a last layer that learns less,
    and layers that are computed again without their reads.
    """
    cases = three_questions(processor)
    target = torch.tensor(
        [mos for case in cases for q in case.questions for mos in q.values.values()]
    )
    how = {"rank": 4, "alpha": 16, "dropout": 0.0, "language": True, "vision": False}
    ours = add_adapters(copy.deepcopy(model), **how, heads=("score",)).train()
    theirs = add_adapters(copy.deepcopy(stock), **how).train()
    head = copy.deepcopy(model.heads["score"]).requires_grad_(True)
    generator = torch.Generator().manual_seed(5)
    lora = {name: p for name, p in ours.named_parameters() if "lora_" in name}
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                drawn = 0.05 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn)
                lora[name].copy_(drawn)
    if checkpointing:
        ours.gradient_checkpointing_enable({"use_reentrant": False})
    batch = batch_of(processor, *cases)
    with rows_into(ours.get_base_model().model.language_model.layers[-1].mlp) as (last,):
        output = ours(**batch)
        (output.token_losses.sum() + (score_of(output) - target).abs().sum()).backward()
    # The last layer, where it is read, is computed once, or once more in the backward pass.
    assert last == [batch["reads"].numel()] * (2 if checkpointing else 1)
    losses, _, scores = told_by_stock(theirs.get_base_model(), head, processor, cases)
    (losses.sum() + (scores - target).abs().sum()).backward()

    expected = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    assert len(expected) == 2 * 7 * 4
    assert relative({name: p.grad for name, p in lora.items()}, expected) <= ROUNDING
    trained = ours.get_base_model().heads["score"].modules_to_save["default"]
    assert (
        relative(
            {name: p.grad for name, p in trained.named_parameters()},
            {name: p.grad for name, p in head.named_parameters()},
        )
        <= ROUNDING
    )


@torch.no_grad()
def test_neighbours_order_and_padding_of_packed_questions_do_not_matter(lively, processor):
    """Alone or together, in both orders of clips and of questions, as one item or as three, and
    with lengths rounded up. Catches padding that is attended to, and a tree that depends on what
    was put in first.
    """
    cases = three_questions(processor, source=lively)

    def told(cases: list[Case], pad_to: int = 1) -> list[torch.Tensor]:
        """Token losses and score of each question, in the order of the batch."""
        output = lively(**batch_of(processor, *cases, pad_to=pad_to))
        questions = [q for case in cases for q in case.questions]
        lengths = [sum(label != IGNORED for label in q.encoded.labels) for q in questions]
        scores = iter(score_of(output))
        return [
            torch.cat([part, next(scores)[None]]) if q.encoded.read_index >= 0 else part
            for q, part in zip(questions, output.token_losses.split(lengths), strict=True)
        ]

    def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
        assert len(found) == len(expected) == 3 * len(SHAPES)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=ROUNDING, rtol=ROUNDING)

    together = told(cases)
    same([part for case in cases for part in told([case])], together)
    same(
        told([replace(case, questions=case.questions[::-1]) for case in cases[::-1]]),
        together[::-1],
    )
    single = [Case(case.media, (question,)) for case in cases for question in case.questions]
    same(told(single), together)
    for pad_to in (7, 64, 512):
        same(told(cases, pad_to), together)


def test_a_kernel_without_masks_of_our_own_is_refused(model, processor, monkeypatch):
    """Flash attention would let every branch see all others. Catches wrong figures from it."""
    config = model.model.language_model.config
    batch = batch_of(processor, made_case(processor, 0, model=model))
    monkeypatch.setattr(config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(ModelError, match=r"flash_attention_2.*attn_implementation sdpa"):
        model(**batch)


# Work that is not done


@contextmanager
def rows_into(*modules: torch.nn.Module):
    """For each module and each of its runs, how many vectors went in."""
    runs: list[list[int]] = [[] for _ in modules]

    def keep(of: list[int]):
        def hook(module, inputs) -> None:
            of.append(inputs[0].flatten(0, -2).shape[0])

        return hook

    handles = [
        module.register_forward_pre_hook(keep(of)) for module, of in zip(modules, runs, strict=True)
    ]
    try:
        yield runs
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def test_only_what_is_read_is_computed(model, processor):
    """Catches a last layer that is computed at all positions, and an output layer over the whole
    vocabulary at places where nothing is learnt.
    """
    batch = batch_of(processor, *three_questions(processor, source=model))
    layers = model.model.language_model.layers
    modules = (layers[0].mlp, layers[-2].mlp, layers[-1].mlp, model.lm_head)
    with rows_into(*modules) as (first, before, last, output):
        model(**batch)
    everywhere = batch["input_ids"].numel()
    assert (first, before) == ([everywhere], [everywhere])
    assert last == [batch["reads"].numel()]
    assert batch["reads"].numel() < everywhere / 2
    assert output == [len(batch["learnt"])]


@torch.no_grad()
def test_regression_computes_no_logits(model, processor):
    """Catches the released code's way: logits over the whole vocabulary that are thrown away."""
    cases = [made_case(processor, seed, shape, model=model) for seed, shape in enumerate(SHAPES)]
    told = batch_of(processor, *three_questions(processor, source=model))
    scored = {name: value for name, value in told.items() if name not in ("learnt", "targets")}
    with rows_into(model.lm_head, model.heads["score"].layers[0]) as (output, head):
        alone = model(**batch_of(processor, *cases))
        # Where replies follow for other reasons, too.
        assert torch.equal(score_of(model(**scored)), score_of(model(**told)))
    assert alone.token_losses is None
    assert output == [len(told["learnt"])]
    assert head == [4, 8, 8]


@torch.no_grad()
def test_no_score_is_computed_where_none_is_asked_for(model, processor):
    """Catches a head that runs in stage 1, where it is random."""
    batch = batch_of(processor, *three_questions(processor, source=model, scored=False))
    with rows_into(model.heads["score"].layers[0]) as (head,):
        output = model(**batch)
    assert output.heads is None
    assert head == []
    assert torch.isfinite(output.token_losses).all()


@torch.no_grad()
def test_the_tower_takes_clips_one_by_one(model, processor):
    """Catches visual tokens whose last bits depend on the clip's neighbours: stored ones would be
    others than those of a batch.
    """
    clips = [noise(processor, seed, shape) for seed, shape in enumerate(SHAPES)]
    grids = torch.tensor([clip.grid_thw for clip in clips])
    together = model.encode_video(torch.cat([clip.pixel_values for clip in clips]), grids)
    alone = [
        model.encode_video(clip.pixel_values, grid[None])
        for clip, grid in zip(clips, grids, strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))


# What a score may depend on


@torch.no_grad()
def test_score_does_not_depend_on_the_reply(model, processor):
    """The released code reads the level word itself, which is a label. Catches any way from the
    reply to the score: replies of one length give the same bits; longer ones change the order of
    sums.
    """

    def score(reply: str | None) -> float:
        return score_of(model(**batch_of(processor, made_case(processor, 0, reply=reply)))).item()

    without = score(None)
    words = [score(f"{PREFIX} {level}.") for level in LEVELS]
    assert len(set(words)) == 1
    assert words[0] == pytest.approx(without, abs=1e-6)
    for rest in (". (12.3)", " excellent. (99.0)", " nonsense " * 20):
        assert score(PREFIX + rest) == pytest.approx(without, abs=1e-6)
    # Such a test must be able to fail: one token further it does.
    batches = [
        batch_of(processor, made_case(processor, 0, reply=f"{PREFIX} {level}."))
        for level in ("bad", "excellent")
    ]
    for batch in batches:
        batch["scored"] += 1  # all of a reply is read
    leaking = [score_of(model(**batch)).item() for batch in batches]
    assert abs(leaking[0] - leaking[1]) > 1e-3


@torch.no_grad()
def test_asking_needs_no_reply(model, processor):
    """Catches a prediction path that wants a reply, or appends one."""
    case = made_case(processor, 0)
    encoded = case.questions[0].encoded
    assert encoded.read_index == len(encoded.input_ids) - 1
    assert set(encoded.labels) == {IGNORED}
    batch = batch_of(processor, case)
    text = processor.tokenizer.decode(batch["input_ids"][0])
    assert text.endswith(f"<|im_start|>assistant\n{PREFIX}")
    assert torch.isfinite(score_of(model(**batch))).all()


@torch.no_grad()
def test_neighbours_batch_size_and_padding_do_not_matter(model, processor):
    """Catches padding that is attended to, positions that count padding, and visual tokens that
    land in a neighbour's places. Four grids and two prompts in one batch, in pixels and in stored
    tokens.
    """
    options = [{"prompt": "Rate it."}, {}, {"reply": f"{PREFIX} good. (61.0)"}, {}]
    pixels, stored = (
        [
            made_case(processor, seed, shape, model=source, **option)
            for seed, (shape, option) in enumerate(zip(SHAPES, options, strict=True))
        ]
        for source in (None, model)
    )
    alone = [batch_of(processor, case) for case in pixels]
    score = torch.cat([score_of(model(**batch)) for batch in alone])
    levels = torch.cat([levels_of(model, batch) for batch in alone])
    assert score.std() > 0.01
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [0, 3], [2, 1], [0, 0, 3], [1, 1, 1, 1]]
    for cases in (pixels, stored):
        for order in orders:
            batch = batch_of(processor, *(cases[i] for i in order))
            assert (score_of(model(**batch)) - score[order]).abs().max() <= ROUNDING, order
            assert (levels_of(model, batch) - levels[order]).abs().max() <= ROUNDING, order


@torch.no_grad()
def test_generation_from_stored_tokens_is_generation_from_pixels(model, stock, processor):
    """Catches generation on text positions (the library looks for argument names in our signature),
    and visual tokens that reach the first step only. The random model repeats itself, so the logits
    of every step are compared too.
    """
    prompts = (PROMPTS["quality"], PROMPTS["distortion"])
    cases = [
        made_case(processor, seed, SHAPES[seed], prompt=prompt, prefix=None)
        for seed, prompt in enumerate(prompts)
    ]
    dialogues = [case.questions[0].encoded for case in cases]
    batch = collation.written_batch(
        dialogues, [case.media for case in cases], processor.tokenizer.pad_token_id
    )
    by_hand = stock_batch(processor, *cases, side="left")
    del by_hand["labels"]
    assert batch.keys() == by_hand.keys()
    assert all(torch.equal(batch[name], by_hand[name]) for name in batch)
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


def view_batch(processor, *seeds, height=84, width=112, prompt=SALIENCY_PROMPT):
    """Three views a clip: each fills a temporal patch of its own."""
    clips = [noise(processor, seed, (6, height, width)) for seed in seeds]
    return collation.view_batch(DialogueEncoder(processor.tokenizer), clips, prompt)


def features(model, batch: dict) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What the saliency decoder takes: the language model's tokens and the tower's taps."""
    batch = dict(batch)
    tokens, taps = model.encode_views(batch.pop("pixel_values_videos"), batch["video_grid_thw"])
    return model.view_states(**batch, video_embeds=tokens), taps


@torch.no_grad()
def test_saliency_features_stand_in_raster_order(finished, processor):
    """The last block's tap goes through the tower's own merger again, which must give the visual
    tokens in raster order. Catches taps of other blocks, in window order, or of other clips.
    """
    model, _ = finished
    assert model.metric.saliency.taps == (5, 3, 1)
    batch = view_batch(processor, 0, 1)
    pixels, grid = batch["pixel_values_videos"], batch["video_grid_thw"]
    visual, taps = model.encode_views(pixels, grid)
    tokens, _ = features(model, batch)
    assert tokens.shape == (2, 3, 3, 4, 128)
    assert [tap.shape for tap in taps] == [(2, 3, 6, 8, 160)] * 3
    expected = model.encode_video(pixels, grid)
    assert torch.equal(visual, expected)
    expected = expected.view(2, 3, 3, 4, 128)
    # Four neighbours of one merged block stand together before the merger.
    blocks = taps[0].view(2, 3, 3, 2, 4, 2, 160).transpose(3, 4).reshape(-1, 160)
    merged = model.model.visual.merger(blocks).view(expected.shape)
    torch.testing.assert_close(merged, expected, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(taps[0], taps[1], atol=1e-2)
    assert not torch.allclose(taps[1], taps[2], atol=1e-2)
    maps = model.saliency_decoder(tokens, taps)
    assert maps.shape == (2, 3, 24, 32)


@torch.no_grad()
def test_saliency_tokens_are_the_hidden_states_at_the_visual_tokens(finished, stock, processor):
    """Against the stock class on the whole dialogue. Catches embeddings in place of hidden states,
    and clips or views in another order.
    """
    tokens, _ = features(finished[0], view_batch(processor, 0, 1))
    cases = [
        made_case(
            processor, seed, (6, 84, 112), prompt=SALIENCY_PROMPT, prefix=None, media_first=False
        )
        for seed in (0, 1)
    ]
    whole = stock_batch(processor, *cases)
    hidden = stock(**whole, output_hidden_states=True).hidden_states[-1]
    at = whole["input_ids"] == stock.config.video_token_id
    torch.testing.assert_close(tokens.flatten(0, 3), hidden[at], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_text_matters_before_the_views_and_cannot_after_them(finished, processor):
    """In a causal model text after the media cannot reach the visual tokens (departure D5). Catches
    a saliency question in a place where it is only decoration.
    """
    model, _ = finished

    def tokens(prompt: str, media_first: bool) -> torch.Tensor:
        if not media_first:
            return features(model, view_batch(processor, 0, prompt=prompt))[0]
        case = made_case(processor, 0, (6, 84, 112), prompt=prompt, prefix="")
        batch = batch_of(processor, case)
        at = batch["input_ids"][0] == model.config.video_token_id
        batch["reads"] = at.nonzero().T
        return hidden_of(model, batch)

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
    pixels, grid = batch["pixel_values_videos"], batch["video_grid_thw"]

    def hooks() -> int:
        return sum(len(block._forward_hooks) for block in model.model.visual.blocks)

    before = hooks()  # the library may keep some of its own
    assert any(parameter.requires_grad for parameter in model.parameters())
    tokens, taps = features(model, batch)
    visual, _ = model.encode_views(pixels, grid)
    assert not any(tensor.requires_grad for tensor in (tokens, visual, *taps))
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        model.encode_views(pixels[:-1], grid)
    assert hooks() == before


def test_saliency_features_refuse_what_cannot_be_stacked(finished, model, processor):
    """Catches clips of several sizes in one tensor, and a model that was never given a decoder."""
    clips = [noise(processor, 0, shape) for shape in ((6, 84, 112), (6, 112, 84))]
    batch = collation.view_batch(DialogueEncoder(processor.tokenizer), clips)
    pixels, grid = batch.pop("pixel_values_videos"), batch["video_grid_thw"]
    with pytest.raises(ValueError, match="equal grids"):
        finished[0].encode_views(pixels, grid)
    with pytest.raises(ValueError, match="equal grids"):
        finished[0].view_states(**batch, video_embeds=model.encode_video(pixels, grid))
    with pytest.raises(ModelError, match="no saliency decoder"):
        model.encode_views(pixels, grid)


def test_decoder_geometry_lands_in_the_configuration(tiny_folder):
    """Catches a decoder whose geometry exists in memory only: its folder could not be loaded."""
    model = LMME3DHF.from_pretrained(tiny_folder)
    assert model.metric.saliency is None
    assert model.saliency_decoder is None
    model.add_saliency_decoder(SaliencyConfig(width=40))
    assert model.metric.saliency == SaliencyConfig(taps=(5, 3, 1), width=40)


def test_dialogue_encoder_and_model_agree_on_the_placeholder(model, processor):
    """Catches a configuration whose placeholder is another token than the tokenizer's."""
    assert DialogueEncoder(processor.tokenizer).marker == model.config.video_token_id
