"""The feature store: a feature is found again only where everything it depends on is the same."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from lmme3dhf.data.samples import DataError
from lmme3dhf.data.video import FrameChoice
from lmme3dhf.features import FeatureStore, recipe, weights_hash
from tests.data.test_video import noise, write_clip

SMALL = FrameChoice(min_pixels=28 * 28)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three clips with different pictures."""
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(folder / f"seed{n}.mp4", noise(6 + n, 56, 56)) for n in range(3)]


def layer(value: float = 1.0, dtype: torch.dtype = torch.float32) -> nn.Linear:
    made = nn.Linear(3, 2).to(dtype)
    nn.init.constant_(made.weight, value)
    nn.init.zeros_(made.bias)
    return made


class Counting:
    """A stand-in for the model: the mean of a clip's patches, and how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixels) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"mean": pixels.values.mean(0), "grid_thw": torch.tensor(pixels.grid_thw)}


def fill(store, clips, compute, processor, **changes) -> None:
    how = {"choice": SMALL, "views": False, "workers": 0, "name": "features"} | changes
    store.fill(clips, compute, processor=processor.video_processor, **how)


def made_recipe(processor, *, choice=SMALL, value=1.0, dtype=torch.float32, **more) -> dict:
    return recipe(choice, processor.video_processor, [layer(value)], dtype, **more)


@pytest.mark.parametrize(
    "change",
    [
        {"choice": replace(SMALL, fps=4.0)},
        {"choice": replace(SMALL, frames=8)},
        {"choice": replace(SMALL, max_pixels=56 * 56)},
        {"value": 1.0 + 2**-23},  # the last bit of a float32
        {"dtype": torch.bfloat16},
        {"kind": "saliency"},
        {"kind": "tokens", "prompt": "What is it?"},
    ],
)
def test_key_changes_with_everything_that_matters(processor, tmp_path, clips, change):
    """Catches a stale feature: of other frames, another size, other weights, another type, another
    prompt.
    """
    plain = FeatureStore(tmp_path, made_recipe(processor))
    same = FeatureStore(tmp_path, made_recipe(processor))
    other = FeatureStore(tmp_path, made_recipe(processor, **change))
    assert same.path(clips[0]) == plain.path(clips[0])
    assert other.path(clips[0]) != plain.path(clips[0])


def test_key_changes_with_the_prompt_and_the_processor(processor, tmp_path, clips, monkeypatch):
    """Catches two prompts, or two normalisations, that share their features."""

    def path(**more):
        return FeatureStore(tmp_path, made_recipe(processor, **more)).path(clips[0])

    before = path(prompt="one")
    assert path(prompt="two") != before
    monkeypatch.setattr(processor.video_processor, "image_mean", [0.5, 0.5, 0.5])
    assert path(prompt="one") != before


def test_key_follows_the_clips_bytes_and_not_its_name(processor, tmp_path, clips):
    """Catches another clip under an old name that meets the old clip's features, and a moved data
    set that is computed again.
    """
    store = FeatureStore(tmp_path, made_recipe(processor))
    moved = tmp_path / "elsewhere" / "other_name.mp4"
    moved.parent.mkdir()
    shutil.copy(clips[0], moved)
    assert store.path(moved) == store.path(clips[0])
    assert store.path(clips[1]) != store.path(clips[0])


def test_weights_hash():
    """Catches a hash that overlooks values, names, shapes or types, and one that depends on the
    object.
    """
    assert weights_hash([layer()]) == weights_hash([layer()])
    assert weights_hash([layer(dtype=torch.bfloat16)]) == weights_hash(
        [layer(dtype=torch.bfloat16)]
    )
    swapped = nn.ModuleDict({"a": layer(1), "b": layer(2)})
    hashes = [
        weights_hash(modules)
        for modules in (
            [layer()],
            [layer(2.0)],
            [layer(dtype=torch.bfloat16)],
            [layer(dtype=torch.float64)],
            [nn.ModuleDict({"a": layer(2), "b": layer(1)})],
            [swapped],
            [layer(), layer()],
            [],
        )
    ]
    assert len(set(hashes)) == len(hashes)


def test_key_changes_with_the_towers_geometry(processor, tiny_folder):
    """The same weights with larger attention windows give other features. Catches a changed
    config.json that meets the old ones.
    """
    from transformers import Qwen2_5_VLForConditionalGeneration

    towers = [
        Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_folder).model.visual
        for _ in range(2)
    ]
    towers[1].window_size = towers[1].config.window_size = 112
    pixels, grid = torch.randn(96, 1176), torch.tensor([[1, 8, 12]])
    with torch.no_grad():
        made = [tower(pixels, grid_thw=grid).pooler_output for tower in towers]
    assert not torch.equal(*made)
    recipes = [recipe(SMALL, processor.video_processor, [t], torch.float32) for t in towers]
    assert recipes[0] != recipes[1]


def test_features_come_back_bit_for_bit(processor, tmp_path, clips):
    """Catches rounding, a changed type, values that json or NumPy would not keep, and a tensor that
    is stored in another order than it is seen.
    """
    tensors = {
        "float32": torch.tensor([1 / 3, float("nan"), float("inf"), -0.0, 1e-45]),
        "bfloat16": torch.randn(3, 5).bfloat16(),
        "float64": torch.tensor(1 / 3, dtype=torch.float64),
        "int64": torch.tensor([2**62 + 1, -3]),
        "transposed": torch.arange(6.0).view(2, 3).T,
        "part": torch.arange(10.0)[3:7],
        "empty": torch.zeros(0, 4),
    }
    store = FeatureStore(tmp_path, made_recipe(processor))
    store.write(clips[0], tensors)
    back = FeatureStore(tmp_path, made_recipe(processor)).read(clips[0])
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        raw = [t.contiguous().view(-1).view(torch.uint8) for t in (back[name], tensor)]
        assert torch.equal(*raw), name


def test_what_is_there_is_not_computed_again(processor, tmp_path, clips):
    """Catches a store that never hits, one that computes a clip once a question, and one that gives
    another clip's features.
    """
    compute = Counting()
    fill(FeatureStore(tmp_path, made_recipe(processor)), [*clips[:2], clips[0]], compute, processor)
    assert compute.calls == 2
    store = FeatureStore(tmp_path, made_recipe(processor))
    fill(store, clips, compute, processor)
    assert compute.calls == 3
    features = [store.read(clip)["mean"] for clip in clips]
    assert not torch.equal(features[0], features[1])
    fill(store, clips, compute, processor, choice=replace(SMALL, frames=2))
    assert compute.calls == 3  # the recipe is the key, and it was not changed
    fill(FeatureStore(tmp_path, made_recipe(processor, value=2.0)), clips, compute, processor)
    assert compute.calls == 6
    assert not list(tmp_path.rglob("*.tmp"))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 6


def test_a_rewritten_clip_is_computed_again(processor, tmp_path):
    """Catches features of a clip that was rendered anew under its old name."""
    clip, compute = tmp_path / "seed0000.mp4", Counting()
    means = []
    for pictures in (noise(6, 56, 56), noise(6, 56, 56)[::-1]):
        write_clip(clip, pictures)
        store = FeatureStore(tmp_path / "store", made_recipe(processor))
        fill(store, [clip], compute, processor)
        means.append(store.read(clip)["mean"])
    assert compute.calls == 2
    assert not torch.equal(*means)


def test_all_broken_clips_are_named_at_once(processor, tmp_path, clips):
    """Catches a run that trains on the rest, and one that tells of one broken clip an hour."""
    broken = [tmp_path / f"broken{n}.mp4" for n in range(2)]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(clips[0].read_bytes()[: clips[0].stat().st_size // 2])
    compute = Counting()
    store = FeatureStore(tmp_path / "store", made_recipe(processor))
    with pytest.raises(DataError, match="2 of 4 clips cannot be read") as error:
        fill(store, [broken[0], clips[0], broken[1], clips[1]], compute, processor)
    for clip in broken:
        assert str(clip) in str(error.value)
        assert not store.path(clip).exists()
    assert "(empty)" in str(error.value)
    assert "(truncated)" in str(error.value)
    # What could be computed is kept; still the next run does not go on without the others.
    assert compute.calls == 2
    with pytest.raises(DataError, match="2 of 4 clips"):
        fill(store, [broken[0], clips[0], broken[1], clips[1]], compute, processor)
    assert compute.calls == 2


def test_missing_clips_are_told_before_anything_is_computed(processor, tmp_path, clips):
    """Catches a wrong video root that shows after an hour of features."""
    compute = Counting()
    absent = tmp_path / "nowhere" / "seed0001.mp4"
    store = FeatureStore(tmp_path / "store", made_recipe(processor))
    with pytest.raises(DataError, match=r"1 of 3 clips are missing.*seed0001.*video_root"):
        fill(store, [clips[0], absent, clips[1]], compute, processor)
    assert compute.calls == 0


def test_a_failure_leaves_no_half_feature(processor, tmp_path, clips):
    """Catches a file that is written before its tensors are known, and finished ones that are lost
    with it.
    """

    def compute(pixels):
        if pixels.grid_thw[0] == 4:  # the third clip has 8 pictures
            raise MemoryError
        return {"mean": pixels.values.mean(0)}

    store = FeatureStore(tmp_path / "store", made_recipe(processor))
    every = replace(SMALL, fps=30.0)
    with pytest.raises(MemoryError):
        fill(store, clips, compute, processor, choice=every)
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    assert sorted(files) == sorted(store.path(clip) for clip in clips[:2])
