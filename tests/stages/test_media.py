"""Stages on stored features: the same numbers as from the clips, bit for bit, and nothing is loaded
or computed twice.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.cli import main
from lmme3dhf.config import (
    Config,
    DataSettings,
    FrameSettings,
    LoraSettings,
    SaliencySettings,
    TextSettings,
)
from lmme3dhf.data.collation import view_batch
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply
from lmme3dhf.data.pixels import read_pixels
from lmme3dhf.features import recipe
from lmme3dhf.models import loading
from lmme3dhf.models.modeling import LMME3DHF, encode_views, load_configuration
from lmme3dhf.stages import media
from lmme3dhf.stages.media import (
    clip_media,
    frame_choice,
    hidden_store,
    pixel_media,
    view_features,
    view_store,
    visual_store,
)
from lmme3dhf.stages.saliency import saliency_geometry, train_saliency
from lmme3dhf.stages.text import train_text
from lmme3dhf.vocabulary import LEVELS
from tests.conftest import DIMENSIONS
from tests.data.test_video import noise, write_clip

NAMES = ("seed0000", "seed0001", "seed0002", "seed0003")
STEPS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "save_strategy": "no",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Four clips of 56 x 56, their levels and their maps, laid out as the release."""
    root = tmp_path_factory.mktemp("data")
    for folder in ("video_RGB", "text", "saliency_map"):
        (root / folder).mkdir()
    rng = np.random.default_rng(0)
    for index, name in enumerate(NAMES):
        pictures = [np.roll(picture, 9 * index, axis=0) for picture in noise(8, 56, 56)]
        write_clip(root / "video_RGB" / f"{name}.mp4", pictures)
        blot = (255 * rng.random((56, 168)) ** 4).astype(np.uint8)
        Image.fromarray(blot).save(root / "saliency_map" / f"{name}.png")
    for dimension in DIMENSIONS:
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"<video>{PROMPTS[dimension]}"},
                    {
                        "role": "assistant",
                        "content": level_reply(GEN3DHF[dimension], LEVELS[index]),
                    },
                ],
                "videos": [f"{name}.mp4"],
            }
            for index, name in enumerate(NAMES)
        ]
        (root / "text" / f"train_{dimension}.json").write_text(json.dumps(rows))
    return root


def settings(data: Path, folder: Path, store: Path | None, **changes) -> Config:
    """Settings of a short run; without a store the tower runs in each step."""
    lists = tuple(f"text/train_{dimension}.json" for dimension in DIMENSIONS)
    config = Config(
        model=str(folder),
        dtype="float32",
        frames=FrameSettings(frames=4, min_pixels=28 * 28, max_pixels=56 * 56),
        data=DataSettings(root=data, features=store, workers=0, store=store is not None),
        text=TextSettings(lists=lists, trainer=STEPS),
        saliency=SaliencySettings(lists=lists[:1], trainer=STEPS),
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture
def clips(data) -> list[Path]:
    return sorted((data / "video_RGB").iterdir())


def trained(run: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and weights of a finished run."""
    losses = [json.loads(line)["loss"] for line in (run / "losses.jsonl").open()]
    weights = {}
    for path in (*run.glob("decoder.safetensors"), *run.glob("adapter/*.safetensors")):
        weights |= load_file(path)
    return losses, weights


@pytest.mark.parametrize("train", [train_text, train_saliency])
def test_training_from_the_store_equals_training_from_pixels(train, data, tiny_folder, tmp_path):
    """Losses and weights, bit for bit. Catches stored features that were rounded, reordered, of
    another clip, or made by a tower with other kernels than the model's.
    """
    runs = [
        train(settings(data, tiny_folder, store), tmp_path / name)
        for name, store in (("stored", tmp_path / "store"), ("pixels", None))
    ]
    (losses, weights), (other_losses, other_weights) = map(trained, runs)
    assert len(losses) == 4
    assert len(set(losses)) == 4  # it learns
    assert losses == other_losses
    assert weights.keys() == other_weights.keys()
    assert len(weights) > 20
    for name, tensor in weights.items():
        assert torch.equal(tensor, other_weights[name]), name
    kinds = {path.name.split("-")[0] for path in (tmp_path / "store").iterdir()} - {"clips.json"}
    assert kinds == ({"tokens"} if train is train_text else {"views", "hidden"})


def test_stored_frames_are_the_clips_own_pixels(data, tiny_folder, processor, clips, tmp_path):
    """For runs whose tower trains. Catches frames that lose a bit, and times of another rate."""
    vision = LoraSettings(vision=True)
    stored = settings(data, tiny_folder, tmp_path / "store", lora=vision)
    plain = settings(data, tiny_folder, None, lora=vision)
    read, decode = (
        clip_media(config, tiny_folder, processor, clips, "test") for config in (stored, plain)
    )
    for clip in clips:
        one, other = read(clip), decode(clip)
        assert one.video_embeds is None
        assert torch.equal(one.pixel_values, other.pixel_values)
        for name in ("grid_thw", "second_per_grid", "tokens"):
            assert getattr(one, name) == getattr(other, name)
    assert [path.name for path in (tmp_path / "store").glob("tokens*")] == []


def test_what_is_stored_is_neither_decoded_nor_loaded_again(
    data, tiny_folder, processor, clips, tmp_path, monkeypatch
):
    """Catches a tower, a language model or a decoder that runs although everything is there; and a
    clip whose features depend on what it was computed with.
    """
    config = settings(data, tiny_folder, tmp_path / "store")
    geometry = saliency_geometry(config, load_configuration(tiny_folder))
    alone = view_features(config, tiny_folder, processor, geometry, clips[2:3], "test")(clips[2])
    view_features(config, tiny_folder, processor, geometry, clips, "test")
    clip_media(config, tiny_folder, processor, clips, "test")

    def loads(*args, **kwargs):
        raise AssertionError("this was computed before")

    for module, name in ((media, "load_tower"), (loading, "load_model"), (media, "decoded")):
        monkeypatch.setattr(module, name, loads)
    read = view_features(config, tiny_folder, processor, geometry, clips, "test")
    assert torch.equal(read(clips[2]).hidden, alone.hidden)
    assert all(map(torch.equal, read(clips[2]).taps, alone.taps))
    assert not torch.equal(read(clips[1]).hidden, alone.hidden)
    tokens = clip_media(config, tiny_folder, processor, clips, "test")(clips[0]).video_embeds
    assert tokens.shape == (2 * 2 * 2, 128)  # two pairs of frames, 56 x 56 pixels


def test_stored_features_are_the_whole_models(data, tiny_folder, processor, clips, tmp_path):
    """What the store holds against one pass of the whole model on the clip's pixels. Catches views
    in another order, taps of another block, and a prompt that does not reach the features.
    """
    config = settings(data, tiny_folder, tmp_path, saliency=SaliencySettings(prompt="Where?"))
    geometry = saliency_geometry(config, load_configuration(tiny_folder))
    stored = view_features(config, tiny_folder, processor, geometry, clips, "test")(clips[1])
    tokens = clip_media(config, tiny_folder, processor, clips, "test")(clips[1]).video_embeds
    model = LMME3DHF.from_pretrained(tiny_folder, attn_implementation="sdpa").eval()
    choice, video = frame_choice(config.frames), processor.video_processor
    frames = read_pixels(clips[1], choice, video, views=False)
    with torch.no_grad():
        assert torch.equal(
            tokens, model.encode_video(frames.values, torch.tensor([frames.grid_thw]))
        )
    views = read_pixels(clips[1], choice, video, views=True)
    batch = view_batch(DialogueEncoder(processor.tokenizer), [pixel_media(views)], "Where?")
    embeds, taps = encode_views(
        model.model.visual, geometry.taps, batch.pop("pixel_values_videos"), batch["video_grid_thw"]
    )
    hidden = model.view_states(**batch, video_embeds=embeds)
    assert torch.equal(stored.hidden, hidden[0])
    assert stored.hidden.shape == (3, 2, 2, 128)
    assert not torch.equal(hidden[0, 0], hidden[0, 1])
    for one, other in zip(stored.taps, taps, strict=True):
        assert torch.equal(one, other[0])


def keys(config: Config, folder: Path, processor) -> dict[str, str]:
    """Folders of the stores that a run would use."""
    geometry = saliency_geometry(config, load_configuration(folder))
    views = view_store(config, folder, processor, geometry, [], "test")
    encoder = DialogueEncoder(processor.tokenizer)
    stores = (
        visual_store(config, folder, processor, [], "test"),
        views,
        hidden_store(config, folder, encoder, geometry, views, [], "test"),
    )
    return {store.recipe["kind"]: store.folder.name for store in stores}


ALL = {"tokens", "views", "hidden"}


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        ({}, set()),
        ({"seed": 7, "batch_size": 1, "lora": LoraSettings(rank=2), "packed": False}, set()),
        ({"frames": FrameSettings(frames=6, min_pixels=784, max_pixels=3136)}, {"tokens"}),
        ({"frames": FrameSettings(frames=4, min_pixels=784, max_pixels=784)}, ALL),
        ({"dtype": "bfloat16"}, ALL),
        ({"saliency": SaliencySettings(taps=(5, 4, 1))}, {"views", "hidden"}),
        ({"saliency": SaliencySettings(prompt="")}, {"hidden"}),
        ({"saliency": SaliencySettings(width=48, branches="multimodal")}, set()),
        ({"quantization": "8bit"}, {"hidden"}),
    ],
)
def test_keys_change_with_every_setting_that_matters(
    data, tiny_folder, processor, tmp_path, changes, others
):
    """And with no other. Catches a stale feature, and features that are computed again for
    nothing.
    """
    plain = keys(settings(data, tiny_folder, tmp_path), tiny_folder, processor)
    changed = keys(settings(data, tiny_folder, tmp_path, **changes), tiny_folder, processor)
    assert {kind for kind in plain if plain[kind] != changed[kind]} == others


def test_keys_change_with_weights_kernel_decoder_and_processor(
    data, tiny_folder, processor, tmp_path, monkeypatch
):
    """Catches features of another tower, another kernel, another reader of clips or another
    normalisation; and the tower's features thrown away after the language model was trained.
    """
    config = settings(data, tiny_folder, tmp_path / "store")
    plain = keys(config, tiny_folder, processor)

    def changed(folder: Path = tiny_folder) -> set[str]:
        now = keys(config, folder, processor)
        return {kind for kind in plain if plain[kind] != now[kind]}

    for part, others in (("visual.blocks.0", ALL), ("layers.2.mlp", {"hidden"})):
        folder = Path(shutil.copytree(tiny_folder, tmp_path / part))
        tensors = load_file(folder / "model.safetensors")
        tensors[next(name for name in tensors if part in name)].view(-1)[0] += 1e-3
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        assert changed(folder) == others
    with monkeypatch.context() as patched:
        patched.setattr(loading, "tower_attention", lambda *args: "flash_attention_2")
        assert changed() == ALL
    with monkeypatch.context() as patched:
        patched.setattr(recipe, "DECODER", "another")
        assert changed() == ALL
    with monkeypatch.context() as patched:
        patched.setattr(processor.video_processor, "image_mean", [0.5, 0.5, 0.5])
        assert changed() == ALL
    assert changed() == set()


def test_the_verb_fills_and_verifies(data, tiny_folder, tmp_path, capsys):
    """Catches a separate pass whose features the stages do not find, and damage that it lets
    through.
    """
    words = ["data", "features", "--model", str(tiny_folder), "--dtype", "float32"]
    words += ["--data.root", str(data), "--data.features", str(tmp_path), "--data.workers", "0"]
    words += ["--frames.frames", "4", "--frames.min_pixels", "784", "--frames.max_pixels", "3136"]
    lists = '["text/train_quality.json"]'
    words += ["--text.lists", lists, "--score.lists", lists, "--saliency.lists", lists]
    assert main(words) == 0
    assert capsys.readouterr().out.count("4 clips, about") == 2
    shards = sorted(tmp_path.glob("*/*.safetensors"))
    assert [path.parent.name.split("-")[0] for path in shards] == ["tokens", "views"]
    before = [load_file(path) for path in shards]
    content = bytearray(shards[0].read_bytes())
    content[-9] ^= 1
    shards[0].unlink()  # what was loaded above is a map of it
    shards[0].write_bytes(content)
    assert main([*words, "--verify_store", "true"]) == 0
    told = capsys.readouterr()
    assert f"{shards[0]}: tensor" in told.err
    assert "1 damaged" in told.out
    assert told.out.count("4 clips, about") == 1
    for path, tensors in zip(shards, before, strict=True):
        after = load_file(path)
        assert after.keys() == tensors.keys()
        assert all(torch.equal(after[name], tensors[name]) for name in tensors)
    # The stage finds them.
    train_text(settings(data, tiny_folder, tmp_path), tmp_path / "run")
    assert "clips, about" not in capsys.readouterr().out
    assert main([*words, "--data.store", "false"]) == 1
    assert "data.store is false" in capsys.readouterr().err
