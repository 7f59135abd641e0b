"""Pretraining of the tiny base: its shortcuts equal the stock model, its targets are where they
should be, and the shipped folder is what the README says."""

import re
from itertools import islice

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.synthetic.pretraining import (
    CLIP_FRAMES,
    KINDS,
    open_shard,
    questions,
    render_pool,
)
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.models.tiny import TINY_BASE
from lmme3dhf.stages.pretrain import (
    GROUPS,
    PackedTower,
    average_gradients,
    conversation,
    cosine_init_,
    encode_pool,
    group_frames,
    language_batches,
    load_groups,
    main,
    patchify,
)
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Six rendered clips with their dense targets."""
    folder = tmp_path_factory.mktemp("pool")
    render_pool(folder, 6, seed=5)
    return [open_shard(folder, "r")]


@pytest.fixture(scope="module")
def base():
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(TINY_BASE, dtype=torch.float32).eval()


def test_packed_tower_equals_the_stock_tower(pool, base):
    """Catches a wrong window order, rotary angle or merge order in the batched attention."""
    pictures, _ = load_groups(pool, np.arange(6), np.arange(6), None)
    patches = patchify(pictures)
    with torch.no_grad():
        ours = PackedTower(base.model.visual)(patches)[1]
        stock = base.model.visual(
            patches.flatten(0, 1), grid_thw=torch.tensor([[1, 8, 8]] * 6)
        ).pooler_output
    assert (ours.flatten(0, 1) - stock).abs().max() <= 1e-4 * stock.abs().max()


def test_patchify_equals_the_processor(pool):
    """Catches swapped colour, time or patch axes, and another normalisation."""
    pictures, _ = load_groups(pool, np.array([0]), np.array([1]), None)
    processor = AutoProcessor.from_pretrained(TINY_BASE).video_processor
    frames = pictures[0].permute(0, 3, 1, 2)
    reference = processor(
        videos=[frames], do_resize=False, do_sample_frames=False, return_tensors="pt"
    )["pixel_values_videos"]
    torch.testing.assert_close(patchify(pictures)[0], reference, atol=1e-5, rtol=0)


def test_groups_are_pairs_of_neighbours_and_stills():
    """Seven groups a clip: 0-1, 2-3, 4-5, 6-7, and the three stills twice each."""
    assert group_frames(np.arange(GROUPS)).tolist() == [
        [0, 1], [2, 3], [4, 5], [6, 7], [8, 8], [9, 9], [10, 10],
    ]  # fmt: skip


def test_mirroring_moves_pictures_and_targets_alike(pool):
    """Catches targets that stay where they were when the picture is turned over."""

    class Mirror:
        """A generator whose every draw says: mirror, and leave the colours alone."""

        def random(self) -> float:
            return 0.0

        def uniform(self, low: float, high: float, size: int) -> np.ndarray:
            return np.ones(size)

    clips, groups = np.arange(6), np.full(6, 5)
    plain, straight = load_groups(pool, clips, groups, None)
    turned, mirrored = load_groups(pool, clips, groups, Mirror())
    assert torch.equal(turned, plain.flip(3))
    assert torch.equal(mirrored["parts"], straight["parts"].flip(2))
    assert torch.equal(mirrored["cells"], straight["cells"].flip(2))
    left, right = straight["landmarks"][:, :, :, 0], mirrored["landmarks"][:, :, :, 1]
    torch.testing.assert_close(right[..., 0], -left[..., 0])
    torch.testing.assert_close(right[..., 1:], left[..., 1:])


def test_cosine_start_keeps_the_pictures(pool):
    """The embedding starts as an orthogonal transform: equal norms, no two filters alike."""
    weight = torch.empty(160, 3, 2, 14, 14)
    cosine_init_(weight)
    flat = weight.flatten(1)
    gram = flat @ flat.T
    torch.testing.assert_close(gram, torch.eye(160) * gram[0, 0], atol=1e-5, rtol=0)


def test_answers_follow_from_the_severities():
    """Catches kinds that are mixed up, and a state word at the wrong end of the scale."""
    severity = np.zeros(KINDS)
    severity[3] = 0.9
    rng = np.random.default_rng(0)
    answers = dict(questions(severity, np.array([1, 1, 0, 0, 1]), rng))
    assert "is bad." in next(a for q, a in answers.items() if "nose" in q)
    assert "is excellent." in next(a for q, a in answers.items() if "eyes" in q)
    assert answers["How many things are wrong in this video?"] == "There are one distortions."
    assert answers["Name one distortion in this video."] == f"One distortion is {DISTORTIONS[3]}."
    assert answers["Does the person wear glasses?"] == "Yes."


def test_only_answers_are_learnt(base):
    """Decodes the labelled tokens of a two-turn dialogue. Catches questions or media that are
    learnt, and answers that are cut."""
    tokenizer = AutoProcessor.from_pretrained(TINY_BASE).tokenizer
    turns = [("How is the hair in this video?", "The state of the hair is poor."), ("And?", "No.")]
    for media_first in (True, False):
        dialogue = conversation(DialogueEncoder(tokenizer), turns, media_first).expand("video", 64)
        ids, labels = dialogue.input_ids, dialogue.labels
        learnt = [token for token, label in zip(ids, labels, strict=True) if label != -100]
        assert tokenizer.decode(learnt) == "The state of the hair is poor.<|im_end|>No.<|im_end|>"
        assert all(label in (token, -100) for token, label in zip(ids, labels, strict=True))
        assert dialogue.marker == base.config.video_token_id
        assert ids.count(dialogue.marker) == 64
        before = ids[: ids.index(dialogue.marker)]
        assert ("hair" in tokenizer.decode(before)) != media_first


@torch.no_grad()
def test_batches_hold_the_dialogues_and_the_clips_tokens(base, pool):
    """The losses that train against the stock class, a dialogue at a time. Catches answers that are
    left out or learnt at other places, and visual tokens of other frames than the dialogue's.
    """
    tokenizer = AutoProcessor.from_pretrained(TINY_BASE).tokenizer
    model = LMME3DHF.from_pretrained(TINY_BASE, dtype=torch.float32).eval()
    clips = np.arange(6)
    tokens = encode_pool(base.model.visual, pool, clips)
    batches = language_batches(tokenizer, tokens, pool, clips, 3, np.random.default_rng(0))
    seen = set()
    for batch in islice(batches, 6):
        losses = model(**batch).token_losses
        groups = int(batch["video_grid_thw"][0, 0])
        stored = (tokens[:, -3:] if groups == 3 else tokens[:, :4]).float().flatten(1, 2)
        expected = []
        for row, video in enumerate(batch["video_embeds"].split(groups * 16)):
            # The noise is a twentieth of the tokens' spread.
            assert (stored - video).std((1, 2)).min() < 0.1 * video.std()
            ids = batch["input_ids"][row, : batch["seen_until"][row, 0]][None]
            places = ids == base.config.video_token_id
            embeds = base.get_input_embeddings()(ids).masked_scatter(places[..., None], video)
            positions, _ = base.model.get_rope_index(
                ids,
                mm_token_type_ids=2 * places,
                video_grid_thw=torch.tensor([[groups, 8, 8]]),
                second_per_grid_ts=torch.ones(1),
            )
            logits = base(inputs_embeds=embeds, position_ids=positions).logits[0]
            text = tokenizer.decode(ids[0])
            replies = re.findall(r"<\|im_start\|>assistant\n(.*?)(?:<\|im_end\|>|$)", text)
            assert len(replies) == 4
            said = tokenizer.encode("".join(f"{reply}<|im_end|>" for reply in replies))
            mine = batch["learnt"] // batch["reads"].shape[1] == row
            assert batch["targets"][mine].tolist() == said
            reads = batch["reads"].flatten()[batch["learnt"][mine]]
            expected.append(
                torch.nn.functional.cross_entropy(
                    logits[reads], torch.tensor(said), reduction="none"
                )
            )
            # What is read is what stands before: the next token is the one that is learnt.
            assert ids[0, reads[:-1] + 1].tolist() == said[:-1]
            seen.add((groups, "user\n<|vision_start|>" in text))
        torch.testing.assert_close(losses, torch.cat(expected), atol=1e-4, rtol=1e-4)
    assert len(seen) == 4  # the clip and its stills, before and after the text


def test_one_process_averages_nothing():
    """Without other processes gradients stay as they are."""
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.tensor([1.0, 2.0, 3.0])
    average_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0, 3.0]


def test_the_shipped_base_is_an_ordinary_small_folder(base):
    """At most 10 MB, the real architecture, level words as single tokens after "is"."""
    files = [path for path in TINY_BASE.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10 * 2**20
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja", ".txt", ".md"}
    vision = base.config.vision_config
    assert set(vision.fullatt_block_indexes) < set(range(vision.depth))
    assert vision.spatial_merge_size == 2
    tokenizer = AutoProcessor.from_pretrained(TINY_BASE).tokenizer
    for word in LEVELS:
        assert len(tokenizer.encode(f"is {word}")) == len(tokenizer.encode("is")) + 1


def test_the_shipped_base_sees(base, pool):
    """A random tower's tokens hardly differ between a sharp and a blurred picture beyond chance;
    the pretrained one says so in words. Catches weights that were lost on the way."""
    tokenizer = AutoProcessor.from_pretrained(TINY_BASE).tokenizer
    sharp = torch.from_numpy(pool[0].images[0][:CLIP_FRAMES].copy())
    blurred = torch.nn.functional.avg_pool2d(
        sharp.permute(0, 3, 1, 2).float(), 9, stride=1, padding=4, count_include_pad=False
    )
    states = []
    for frames in (sharp.permute(0, 3, 1, 2), blurred.to(torch.uint8)):
        pairs = frames.permute(0, 2, 3, 1).reshape(CLIP_FRAMES // 2, 2, 112, 112, 3)
        dialogue = conversation(
            DialogueEncoder(tokenizer),
            [
                (
                    "How is the picture sharpness in this video?",
                    "The state of the picture sharpness is",
                )
            ],
            True,
        ).expand("video", CLIP_FRAMES // 2 * 16)
        ids = torch.tensor([dialogue.input_ids[:-1]])  # without the end of the message
        with torch.no_grad():
            logits = base(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=2 * (ids == dialogue.marker),
                pixel_values_videos=patchify(pairs).flatten(0, 1),
                video_grid_thw=torch.tensor([[CLIP_FRAMES // 2, 8, 8]]),
                second_per_grid_ts=torch.ones(1),
            ).logits[0, -1]
        tokens = [tokenizer.encode(f" {word}")[0] for word in LEVELS]
        probabilities = torch.softmax(logits[tokens], -1)
        states.append(float((probabilities * torch.arange(5)).sum()))
    assert states[0] > states[1] + 1


@pytest.mark.slow
def test_the_command_rebuilds_a_base(tmp_path, capfd):
    """The README's command, with a few clips and steps: it says how long it will take and ends with
    a folder that loads. Other settings do not go on in its folder, the same ones do not train
    again."""
    few = ["--clips", "64", "--held_out", "16", "--language_steps", "2", "--processes", "2"]
    folder = main(["--out", str(tmp_path), *few, "--tower_steps", "2"])
    Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    assert AutoProcessor.from_pretrained(folder).tokenizer.chat_template
    told = capfd.readouterr().out
    assert "tower: step 2 of 2, loss" in told
    assert "language: step 2 of 2, loss" in told
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), *few, "--tower_steps", "3"])
    assert "other settings" in capfd.readouterr().err
    main(["--out", str(tmp_path), *few, "--tower_steps", "2"])
    assert len((tmp_path / "tower.jsonl").read_text().splitlines()) == 1
