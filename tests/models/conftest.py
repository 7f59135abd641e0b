"""The tiny model in both classes, and dialogues about made-up clips."""

import copy
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from safetensors.torch import load_file, save_file
from transformers import ProcessorMixin, Qwen2_5_VLForConditionalGeneration

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.collation import FACTS, Collator, Media, Question, packed_item
from lmme3dhf.data.dialogue import IGNORED, DialogueEncoder, with_tokens
from lmme3dhf.data.gen3dhf import PROMPTS
from lmme3dhf.data.pixels import clip_pixels
from lmme3dhf.models.backbone import MEDIA
from lmme3dhf.models.modeling import LMME3DHF
from tests.conftest import random_frames
from tests.models.fake_model_hub import ModelHub, serving

PREFIX = "The quality of the human face in this video is"
# Frames, height, width: several grids, those of the second and third have as many tokens.
SHAPES = ((4, 84, 112), (2, 56, 84), (2, 84, 56), (8, 56, 140))


@dataclass(frozen=True)
class Case:
    """A clip and the questions on it: an item of a batch."""

    media: Media
    questions: tuple[Question, ...]


def load_with_head(folder: Path, **options) -> LMME3DHF:
    """A model whose score head is drawn wide, so that its scores differ clearly."""
    torch.manual_seed(0)
    model = LMME3DHF.from_pretrained(folder, **options).eval()
    with torch.no_grad():
        for layer in model.heads["score"].layers:
            layer.weight.normal_(0, (2 / layer.in_features) ** 0.5)
    return model


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[ModelHub]:
    """A hub that this process is sent to, with an empty cache and nobody's token."""
    with serving() as running:
        for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        # What the library read at its import.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", os.devnull)
        # The server speaks plain HTTP, as a mirror does.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        # Pauses between tries.
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        close_session()
        yield running
    close_session()


@pytest.fixture(scope="session")
def model(tiny_folder: Path, processor: ProcessorMixin) -> LMME3DHF:
    """Ours, with level tokens; shared, so no test may change it."""
    model = load_with_head(tiny_folder)
    aspects = with_tokens(model.metric.aspects, processor.tokenizer)
    model.config.set_metric(model.metric.replace(aspects=aspects))
    return model


@pytest.fixture(scope="session")
def stock(tiny_folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    """The library's class on the same folder; shared, so no test may change it."""
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_folder).eval()


def enlivened(model: Qwen2_5_VLForConditionalGeneration) -> Qwen2_5_VLForConditionalGeneration:
    """A copy of the random model with attention and outputs far from even, so that a token seen,
    hidden or moved by mistake changes a probability by much more than rounding.
    """
    lively = copy.deepcopy(model)
    with torch.no_grad():
        for layer in lively.model.language_model.layers:
            layer.self_attn.q_proj.weight *= 4
            layer.self_attn.k_proj.weight *= 4
            layer.self_attn.o_proj.weight *= 4
        lively.model.language_model.norm.weight *= 3
    return lively


@pytest.fixture(scope="session")
def lively(model: LMME3DHF) -> LMME3DHF:
    """Ours, enlivened; shared, so no test may change it."""
    return enlivened(model)


@pytest.fixture(scope="session")
def lively_stock(
    stock: Qwen2_5_VLForConditionalGeneration,
) -> Qwen2_5_VLForConditionalGeneration:
    """The library's class with the same weights as `lively`; shared likewise."""
    return enlivened(stock)


def asked(
    processor: ProcessorMixin,
    *,
    prompt: str = PROMPTS["quality"],
    reply: str | None = None,
    prefix: str | None = PREFIX,
    media_first: bool = True,
    name: str = "",
    mos: float | None = None,
) -> Question:
    """A question, by default one that is scored."""
    encoder = DialogueEncoder(processor.tokenizer)
    encoded = encoder.encode(prompt, reply=reply, prefix=prefix, media_first=media_first)
    values = {} if mos is None else {"quality": mos}
    return Question(name=name, encoded=encoded, aspect="quality", values=values)


def noise(
    processor: ProcessorMixin,
    seed: int,
    shape: tuple[int, int, int] = SHAPES[0],
    *,
    model: LMME3DHF | None = None,
) -> Media:
    """A clip of noise, as pixels or, given a model, as its visual tokens."""
    values, grid = clip_pixels(random_frames(seed, *shape), processor.video_processor)
    media = {"pixel_values": values}
    if model is not None:
        with torch.no_grad():
            media = {"video_embeds": model.encode_video(values, torch.tensor([grid]))}
    tokens = grid[0] * grid[1] * grid[2] // 4
    return Media(grid_thw=grid, second_per_grid=0.5, tokens=tokens, **media)


def made_case(
    processor: ProcessorMixin,
    seed: int,
    shape: tuple[int, int, int] = SHAPES[0],
    *,
    model: LMME3DHF | None = None,
    **question,
) -> Case:
    """One question (see `asked`) on a clip of noise (see `noise`)."""
    return Case(noise(processor, seed, shape, model=model), (asked(processor, **question),))


def batch_of(processor: ProcessorMixin, *cases: Case, pad_to: int = 1) -> dict[str, torch.Tensor]:
    """What a forward pass takes, each case an item of its own."""
    items = [packed_item(case.questions, case.media) for case in cases]
    batch = Collator(processor.tokenizer.pad_token_id, pad_to)(items)
    return {name: value for name, value in batch.items() if name not in FACTS}


def stock_batch(
    processor: ProcessorMixin, *cases: Case, side: str = "right"
) -> dict[str, torch.Tensor]:
    """The same for the library's class: each question is a whole dialogue on its own copy of the
    clip's pixels, a row padded at one side, with the labels.
    """
    rows = [(question.encoded, case.media) for case in cases for question in case.questions]
    dialogues = [encoded.expand("video", media.tokens) for encoded, media in rows]
    length = max(len(dialogue.input_ids) for dialogue in dialogues)

    def padded(row: tuple[int, ...], fill: int) -> list[int]:
        pad = [fill] * (length - len(row))
        return [*pad, *row] if side == "left" else [*row, *pad]

    pad_token = processor.tokenizer.pad_token_id
    input_ids = torch.tensor([padded(dialogue.input_ids, pad_token) for dialogue in dialogues])
    return {
        "input_ids": input_ids,
        "attention_mask": torch.tensor(
            [padded((1,) * len(dialogue.input_ids), 0) for dialogue in dialogues]
        ),
        "labels": torch.tensor([padded(dialogue.labels, IGNORED) for dialogue in dialogues]),
        "mm_token_type_ids": (input_ids == dialogues[0].marker) * MEDIA["video"].token_type,
        "pixel_values_videos": torch.cat([media.pixel_values for _, media in rows]),
        "video_grid_thw": torch.tensor([media.grid_thw for _, media in rows]),
        "second_per_grid_ts": torch.tensor([media.second_per_grid for _, media in rows]),
    }


def hidden_of(model: LMME3DHF, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Hidden states (batch, R, hidden) of a batch, with pixels or visual tokens."""
    batch = {k: v for k, v in batch.items() if k not in ("learnt", "targets", "scored")}
    if "video_embeds" not in batch:
        pixels = batch.pop("pixel_values_videos")
        batch["video_embeds"] = model.encode_video(pixels, batch["video_grid_thw"])
    return model.hidden_at(**batch)


def levels_of(model: LMME3DHF, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Level logits (scored reads, 5) of a batch."""
    return model.level_logits(hidden_of(model, batch).flatten(0, 1)[batch["scored"]], "quality")


def rewritten(folder: Path, target: Path, change: Callable[[dict], dict], name: str) -> Path:
    """A copy of a folder with the tensors of one safetensors file changed."""
    shutil.copytree(folder, target)
    tensors = change(load_file(target / name))
    save_file(tensors, target / name, metadata={"format": "pt"})
    return target


SECRET, HOME = "hf_" + "a1B2" * 6, "/" + "home/somebody/logs"
TRAINED = {"quality": (20.0, 40.0, 60.0), "authenticity": (30.0, 31.0, 50.0)}
TESTED = (10.0, 20.0, 30.0, 40.0, 50.0)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set's lists and split, without clips: three training and five test videos, of which
    one face is on both sides.
    """
    from lmme3dhf.data.gen3dhf import level_reply, write_list
    from lmme3dhf.data.samples import Sample
    from lmme3dhf.data.splits import write_split

    root = tmp_path_factory.mktemp("data") / "Faces | `of` <b>mine"
    split = {
        "train": ["seed0000", "seed0001", "seed0200"],
        "eval": ["seed0002", "seed0003", "seed0004", "seed0005", "seed0201"],
    }
    for part, videos in split.items():
        for dimension in ("quality", "authenticity"):
            scores = TRAINED[dimension] if part == "train" else TESTED
            write_list(
                root / "numerical" / f"{part}_{dimension}.json",
                [
                    Sample(
                        video=video,
                        path=root / "video_RGB" / f"{video}.mp4",
                        task=dimension,
                        prompt=PROMPTS[dimension],
                        reply=level_reply(GEN3DHF[dimension], "fair", score),
                    )
                    for video, score in zip(videos, scores, strict=True)
                ],
            )
    write_split(root / "splits.json", split, protocol="own", latents_shared=True)
    return root


@pytest.fixture(scope="session")
def stage_config(data_root: Path, tiny_folder: Path):
    """Settings of stage 2, with a token and a home folder that nobody else should see."""
    from lmme3dhf.config import Config, DataSettings, FrameSettings, ScoreSettings

    trainer = {"hub_token": SECRET, "deepspeed": HOME, "run_name": f"see {HOME}"}
    return Config(
        model=str(tiny_folder),
        dtype="float32",
        frames=FrameSettings(frames=4, min_pixels=56 * 56, max_pixels=56 * 56),
        data=DataSettings(root=data_root),
        score=ScoreSettings(trainer=trainer),
    )


@pytest.fixture(scope="session")
def stage_run(
    stage_config, tiny_folder: Path, processor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run of stage 2 that trained the head alone (its head is drawn, not trained)."""
    from lmme3dhf.stages import run as runs
    from lmme3dhf.stages.score import scored_samples, with_edges

    run = tmp_path_factory.mktemp("runs") / "stage2"
    aspects = with_edges(GEN3DHF, stage_config.data.root, scored_samples(stage_config)[0])
    metric = runs.metric_of(tiny_folder, processor, stage_config, aspects)
    runs.open_run(run, "score", stage_config, tiny_folder, {"metric": metric.to_dict()})
    heads = load_with_head(tiny_folder).heads
    runs.save_probe(run, [batch_of(processor, made_case(processor, 0))])
    runs.finish_part(run, heads, runs.HEAD)
    return run


@pytest.fixture(scope="session")
def published(stage_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run as a merged folder; shared, so no test may change it."""
    from lmme3dhf.stages.run import merge_run

    out = tmp_path_factory.mktemp("merged") / "model"
    merge_run(stage_run, out)
    return out
