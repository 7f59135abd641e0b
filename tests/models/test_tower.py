"""The vision tower alone: the same output as within the model, and hashes that follow values."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from lmme3dhf.models.configuration import LMME3DHFConfig, ModelError
from lmme3dhf.models.modeling import LMME3DHF, encode_clips
from lmme3dhf.models.tower import geometry, language_hash, load_tower, tower_hash

GRIDS = torch.tensor([[4, 6, 8], [1, 8, 4]])


@pytest.fixture(scope="module")
def patches() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(int(GRIDS.prod(1).sum()), 1176)


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def change(folder: Path, name: str, by: float = 1e-3) -> None:
    """Changes one value of a tensor, in place."""
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[3] += by
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lone_tower_equals_the_models_bit_for_bit(tiny_folder, patches, dtype):
    """Stored features and those of a step must not differ. Catches a patch embedding of another
    kind, weights of another type, and rotary positions that were left empty.
    """
    tower = load_tower(tiny_folder, dtype, "sdpa")
    model = LMME3DHF.from_pretrained(tiny_folder, dtype=dtype)
    assert tower.dtype == dtype
    own = model.model.visual.state_dict()
    assert tower.state_dict().keys() == own.keys()
    with torch.no_grad():
        within = model.encode_video(patches, GRIDS)
    assert torch.equal(encode_clips(tower, patches, GRIDS), within)


def test_lone_tower_equals_the_librarys(tiny_folder, patches):
    """The library embeds patches by a 3D convolution. Catches a product over another order of
    colours, frames, rows and columns.
    """
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_folder).model.visual
    tower = load_tower(tiny_folder, torch.float32, "sdpa")
    with torch.no_grad():
        theirs, ours = stock.patch_embed(patches), tower.patch_embed(patches)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=6e-6)
        theirs = stock(patches, grid_thw=GRIDS).pooler_output
        torch.testing.assert_close(
            encode_clips(tower, patches, GRIDS), theirs, rtol=1e-4, atol=2e-5
        )


def test_lone_towers_output_carries_no_gradient(tiny_folder, patches):
    """Also when checkpointing hooks its input, as transformers 5 does. Catches a graph through a
    frozen tower: a fifth more work and its memory.
    """
    tower = load_tower(tiny_folder, torch.float32, "sdpa")
    tower.gradient_checkpointing_enable()
    tower.enable_input_require_grads()
    tower.train()
    assert torch.is_grad_enabled()
    tokens = encode_clips(tower, patches, GRIDS)
    assert not tokens.requires_grad
    assert tokens.grad_fn is None


def test_nothing_else_is_loaded(tiny_folder):
    """Catches a tower that comes with the language model, nine tenths of the whole."""
    tower = load_tower(tiny_folder, torch.float32, "sdpa")
    stored = load_file(tiny_folder / "model.safetensors")
    count = sum(t.numel() for name, t in stored.items() if "visual." in name)
    assert sum(p.numel() for p in tower.parameters()) == count > 0
    assert not any(p.is_meta for p in (*tower.parameters(), *tower.buffers()))
    assert not any(p.requires_grad for p in tower.parameters())


def test_a_folder_without_a_whole_tower_is_refused(folder, tmp_path):
    """Catches a tower with random weights in place of missing ones, and a traceback."""
    tensors = load_file(folder / "model.safetensors")
    part = next(name for name in tensors if "visual.blocks.2" in name)
    left = {name: tensor for name, tensor in tensors.items() if name != part}
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=part.split("visual.")[1]):
        load_tower(folder, torch.float32, "sdpa")
    (folder / "model.safetensors").write_bytes(b"broken")
    for read in (lambda: load_tower(folder, torch.float32, "sdpa"), lambda: hashes(folder)):
        with pytest.raises(ModelError, match="model"):
            read()
    with pytest.raises(ModelError, match="nowhere"):
        load_tower(tmp_path / "nowhere", torch.float32, "sdpa")


def hashes(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    return tower_hash(folder, dtype), language_hash(folder, dtype)


def test_hashes_do_not_depend_on_files_and_names(tiny_folder, folder, tmp_path):
    """Published folders hold `visual.*` in several files, saved ones `model.visual.*`. Catches a
    store that is computed again after each merge.
    """
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_folder)
    stock.save_pretrained(tmp_path / "parts", max_shard_size="500KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    # As the first release names them.
    tensors = load_file(folder / "model.safetensors")
    plain = {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): tensor
        for name, tensor in tensors.items()
    }
    other = {
        name.replace("visual.", "model.visual.")
        if name.startswith("visual.")
        else name.replace("model.", "model.language_model."): tensor
        for name, tensor in plain.items()
    }
    known = hashes(tiny_folder)
    assert hashes(tmp_path / "parts") == known
    for names in (plain, other):
        save_file(names, folder / "model.safetensors", metadata={"format": "pt"})
        assert hashes(folder) == known
    assert plain.keys() != other.keys()


def test_hashes_follow_the_values_of_their_part_alone(tiny_folder, folder):
    """Catches a stale feature after the tower was trained, and one thrown away after the language
    model was.
    """
    tower, language = hashes(tiny_folder)
    names = list(load_file(folder / "model.safetensors"))
    change(folder, next(name for name in names if "visual.merger" in name))
    changed_tower, same_language = hashes(folder)
    assert changed_tower != tower
    assert same_language == language
    change(folder, next(name for name in names if "layers.1.mlp" in name))
    assert hashes(folder)[0] == changed_tower
    assert hashes(folder)[1] != language


def test_hashes_follow_the_type_of_the_computation(tiny_folder, folder):
    """The stored type does not matter where both give the same values. Catches float32 features for
    a bfloat16 run.
    """
    half = hashes(tiny_folder, torch.bfloat16)
    assert half[0] != hashes(tiny_folder)[0]
    assert half[1] != hashes(tiny_folder)[1]
    tensors = load_file(folder / "model.safetensors")
    rounded = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})
    assert hashes(folder, torch.bfloat16) == half


def test_new_parts_do_not_change_the_hashes(tiny_folder, folder):
    """Catches features that are computed again because a head was trained."""
    tensors = load_file(folder / "model.safetensors")
    tensors |= {"heads.score.layers.0.weight": torch.ones(2), "saliency_decoder.x": torch.ones(1)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert hashes(folder) == hashes(tiny_folder)


def test_geometry_holds_what_acts_without_weights(tiny_folder, folder):
    """The same weights with larger attention windows give other features. Catches a changed
    config.json that meets the old ones, and one that changes with the library's version.
    """
    about = json.loads((folder / "config.json").read_text())
    before = geometry(LMME3DHFConfig.from_pretrained(folder).vision_config)
    about["transformers_version"] = "5.0.0"
    (folder / "config.json").write_text(json.dumps(about))
    assert geometry(LMME3DHFConfig.from_pretrained(folder).vision_config) == before
    about["vision_config"]["window_size"] = 112
    (folder / "config.json").write_text(json.dumps(about))
    after = geometry(LMME3DHFConfig.from_pretrained(folder).vision_config)
    assert {name for name in after if after[name] != before[name]} == {"window_size"}
