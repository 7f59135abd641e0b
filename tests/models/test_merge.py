"""Merging: what comes out is what was trained, and what went wrong leaves nothing behind."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from lmme3dhf.data.collation import view_batch
from lmme3dhf.data.dialogue import IGNORED, DialogueEncoder
from lmme3dhf.files import MANIFEST, damage
from lmme3dhf.models import merge
from lmme3dhf.models.configuration import MetricConfig, ModelError, SaliencyConfig
from lmme3dhf.models.folder import model_damage
from lmme3dhf.models.lora import add_adapters
from lmme3dhf.models.merge import REPORT, MergeError, merge_adapter, merge_decoder, merge_heads
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.models.rounding import (
    LIMITS,
    all_outputs,
    differences,
    in_float32,
    largest_difference,
    saliency_outputs,
    text_outputs,
)
from lmme3dhf.models.tower import language_hash, load_tower, tower_hash
from lmme3dhf.models.weights import Adapter, model_name
from tests.models.conftest import (
    SHAPES,
    batch_of,
    load_with_head,
    made_case,
    noise,
    rewritten,
    stock_batch,
)

ADAPTER = "adapter_model.safetensors"
RANK, ALPHA = 4, 16
METRIC = MetricConfig.from_dict(
    {
        "level_token_ids": [5, 4, 3, 2, 1],
        "level_edges": {"quality": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]},
    }
)


@dataclass(frozen=True)
class Run:
    """What a stage leaves: the trained model in memory, its adapter's folder, a real batch."""

    adapted: PeftModel
    folder: Path
    probe: dict


def nudged(model: torch.nn.Module, scale: float) -> None:
    """Moves what is trained, as training would."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn_like(parameter))


def make_run(base: Path, folder: Path, probe: dict, *, scale: float, heads=()) -> Run:
    adapted = add_adapters(
        load_with_head(base),
        rank=RANK,
        alpha=ALPHA,
        dropout=0.1,
        language=True,
        vision=False,
        heads=heads,
    )
    nudged(adapted, scale)
    if heads:
        adapted.get_base_model().missing_parts = []
    adapted.save_pretrained(folder)
    return Run(adapted.eval(), folder, probe)


@pytest.fixture(scope="module")
def probe(processor) -> dict:
    return batch_of(processor, *(made_case(processor, i, shape) for i, shape in enumerate(SHAPES)))


@pytest.fixture(scope="module")
def run(tiny_folder, tmp_path_factory, probe) -> Run:
    folder = tmp_path_factory.mktemp("run") / "adapter"
    return make_run(tiny_folder, folder, probe, heads=("score",), scale=0.02)


@pytest.fixture(scope="module")
def merged(tiny_folder, tmp_path_factory, run) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("merge") / "merged"
    return out, merge_adapter(tiny_folder, run.folder, out, METRIC, [run.probe], torch.float32)


@torch.no_grad()
def test_outputs_are_those_of_the_stock_class_where_something_is_read(
    tiny_folder, processor, stock
):
    """Of a stage that scores nothing. Catches a comparison of what no training changes, such as the
    padding, and scores of a head that nobody trained.
    """
    cases = [
        made_case(processor, i, shape, reply="Distortions found: Blurriness", prefix=None)
        for i, shape in enumerate(SHAPES)
    ]
    model = LMME3DHF.from_pretrained(tiny_folder).eval()
    batch = batch_of(processor, *cases)
    targets = {name: batch.pop(name) for name in ("learnt", "targets")}
    outputs = text_outputs(model, batch)
    assert set(outputs) == {"logits"}
    arguments = stock_batch(processor, *cases)
    at = (arguments.pop("labels")[:, 1:] != IGNORED).nonzero(as_tuple=True)
    expected = stock(**arguments).logits[at]
    torch.testing.assert_close(outputs["logits"][targets["learnt"]], expected, atol=1e-5, rtol=1e-5)
    assert len(outputs["logits"]) == len(expected)  # the replies are equally long


def assert_nothing_left(out: Path) -> None:
    assert not out.exists()
    assert not list(out.parent.iterdir())


def test_merged_folder_says_what_the_adapted_model_says(run, merged):
    """1e-5 relative in float32. Catches an update that is scaled or added wrongly, and a merged
    model that carries the untrained head.
    """
    out, report = merged
    model = LMME3DHF.from_pretrained(out).eval()
    ours, trained = text_outputs(model, run.probe), text_outputs(run.adapted, run.probe)
    for name in ("logits", "scores"):
        off = (ours[name] - trained[name]).abs().max() / trained[name].abs().max()
        assert off <= 1e-5, name
    assert model.missing_parts == []
    assert model.metric == METRIC
    # The adapter did matter.
    with torch.no_grad(), run.adapted.disable_adapter():
        untrained = text_outputs(run.adapted, run.probe)
    assert largest_difference(untrained, trained) > 1e-2
    assert report["relative_difference"] <= report["limits"]["relative_difference"] == 1e-5
    assert (report["samples"], report["dtype"]) == (4, "float32")


def test_merged_weights_are_base_plus_scaled_product(tiny_folder, run, merged):
    """By hand: W + alpha / rank * B A for every adapted layer, the trained head, and bit-equal base
    weights elsewhere. Catches the adapter's scale left out and layers that are passed over.
    """
    base, out = (load_file(f / "model.safetensors") for f in (tiny_folder, merged[0]))
    adapter = {
        key.removeprefix("base_model.model."): tensor
        for key, tensor in load_file(run.folder / ADAPTER).items()
    }
    changed = 0
    for key, tensor in base.items():
        module = re.sub(r"^model\.", "model.language_model.", key).removesuffix(".weight")
        if f"{module}.lora_A.weight" in adapter:
            a, b = (adapter[f"{module}.lora_{half}.weight"] for half in "AB")
            expected = tensor + ALPHA / RANK * b @ a
            torch.testing.assert_close(out[key], expected, atol=1e-6, rtol=1e-6)
            assert not torch.equal(out[key], tensor), key
            changed += 1
        else:
            assert torch.equal(out[key], tensor), key
    assert changed == 28
    head = {key for key in adapter if key.startswith("heads.score.")}
    assert len(head) == 10
    assert set(out) - set(base) == head
    assert all(torch.equal(out[key], adapter[key]) for key in head)


def test_merged_folder_is_complete(merged, processor):
    """Catches a folder without processor or manifest, and a report that says something else."""
    out, report = merged
    assert damage(out) is None
    assert json.loads((out / REPORT).read_text()) == report
    assert REPORT in json.loads((out / MANIFEST).read_text())["files"]
    again = AutoProcessor.from_pretrained(out)
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert again.chat_template == processor.chat_template
    _, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name]


def old_layout(tensors: dict) -> dict:
    renamed = {
        key.replace("model.language_model.layers", "model.layers"): t for key, t in tensors.items()
    }
    assert renamed.keys() != tensors.keys()
    return renamed


def without_one(tensors: dict) -> dict:
    lost = "base_model.model.model.language_model.layers.2.mlp.up_proj.lora_B.weight"
    assert lost in tensors
    return {key: tensor for key, tensor in tensors.items() if key != lost}


def with_another(tensors: dict) -> dict:
    return tensors | {"base_model.model.model.language_model.extra.lora_A.weight": torch.zeros(2)}


def without_head_layer(tensors: dict) -> dict:
    lost = "base_model.model.heads.score.layers.0.weight"
    assert lost in tensors
    return {key: tensor for key, tensor in tensors.items() if key != lost}


def of_another_rank(tensors: dict) -> dict:
    return {
        key: torch.zeros(8, tensor.shape[1]) if "lora_A" in key else tensor
        for key, tensor in tensors.items()
    }


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize(
    "change",
    [
        old_layout,
        without_one,
        with_another,
        without_head_layer,
        of_another_rank,
    ],
)
def test_adapter_that_does_not_fit_in_every_tensor_is_refused(tiny_folder, tmp_path, run, change):
    """PEFT loads what fits and warns of the rest: an adapter of the old layout is a silent no-op.
    Catches a merge of half an adapter, or of none.
    """
    adapter = rewritten(run.folder, tmp_path / "adapter", change, ADAPTER)
    out = tmp_path / "out" / "merged"
    out.parent.mkdir()
    with pytest.raises(MergeError, match="do not belong together"):
        merge_adapter(tiny_folder, adapter, out, METRIC, [run.probe], torch.float32)
    assert_nothing_left(out)


def nothing_added(monkeypatch) -> None:
    monkeypatch.setattr(Adapter, "update", lambda self, name: None)


def scaled(monkeypatch) -> None:
    right = Adapter.update

    def update(self, name):
        delta = right(self, name)
        return delta if delta is None else 1.01 * delta

    monkeypatch.setattr(Adapter, "update", update)


def tampered(monkeypatch) -> None:
    def save(tensors, path, **options):
        key = "model.layers.1.mlp.down_proj.weight"
        tensors[key] = tensors[key] * (1 + 2**-7)
        save_file(tensors, path, **options)

    monkeypatch.setattr(merge, "save_file", save)


def unseen(monkeypatch) -> None:
    """Without the comparison of tensors."""
    scaled(monkeypatch)
    monkeypatch.setattr(merge, "_wrongly_written", lambda *arguments: [])


@pytest.mark.parametrize(
    ("wrong", "dtype"),
    [
        (nothing_added, torch.float32),
        (scaled, torch.float32),
        (tampered, torch.float32),
        (unseen, torch.float32),
        (nothing_added, torch.bfloat16),
        (scaled, torch.bfloat16),
    ],
)
def test_a_folder_that_is_not_what_was_trained_leaves_nothing(
    tiny_folder, tmp_path, run, monkeypatch, wrong, dtype
):
    """Catches a wrong merge that passes for a rounded one, a verification that compares the merged
    model with itself, and a folder that stays behind and looks finished.
    """
    wrong(monkeypatch)
    monkeypatch.setitem(LIMITS, torch.bfloat16, {"relative_difference": 1.0})
    out = tmp_path / "merged"
    with pytest.raises(MergeError, match="not kept"):
        merge_adapter(tiny_folder, run.folder, out, METRIC, [run.probe], dtype)
    assert_nothing_left(out)


def test_a_merge_that_cannot_be_finished_leaves_nothing(tiny_folder, tmp_path, run):
    """Catches 15 GB of hidden leftovers, here of a base without processor files."""
    base, out = tmp_path / "base", tmp_path / "out" / "merged"
    base.mkdir()
    out.parent.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_folder / name, base)
    with pytest.raises(ModelError):
        merge_adapter(base, run.folder, out, METRIC, [run.probe], torch.float32)
    assert_nothing_left(out)


@pytest.mark.parametrize("content", ["thesis.txt", None])
def test_a_foreign_folder_is_never_overwritten(tiny_folder, tmp_path, run, content):
    """Catches a merge that deletes what it did not write, an empty folder included."""
    out = tmp_path / "mine"
    out.mkdir()
    if content:
        (out / content).write_text("years of work")
    with pytest.raises(MergeError, match="was not written by a merge"):
        merge_adapter(tiny_folder, run.folder, out, METRIC, [run.probe], torch.float32)
    assert [path.name for path in out.iterdir()] == ([content] if content else [])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_own_folder_is_replaced_only_by_a_merge_that_succeeds(
    tiny_folder, tmp_path, run, merged, monkeypatch
):
    """Catches a second merge that is refused, one that mixes old and new files, and one that fails
    and takes the good folder with it.
    """
    out = shutil.copytree(merged[0], tmp_path / "merged")
    (out / "stale.txt").write_text("of an older version")
    merge_adapter(tiny_folder, run.folder, out, METRIC, [run.probe], torch.float32)
    assert not (out / "stale.txt").exists()
    nothing_added(monkeypatch)
    with pytest.raises(MergeError, match="not kept"):
        merge_adapter(tiny_folder, run.folder, out, METRIC, [run.probe], torch.float32)
    assert damage(out) is None
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_a_half_precision_merge_keeps_the_head_in_float32(tiny_folder, tmp_path, run):
    """Catches a trained head that is rounded with the backbone."""
    out = tmp_path / "merged"
    report = merge_adapter(tiny_folder, run.folder, out, METRIC, [run.probe], torch.float16)
    assert report["dtype"] == "float16"
    model = LMME3DHF.from_pretrained(out, dtype="auto")
    assert model.model.dtype == torch.float16
    head = load_file(run.folder / ADAPTER)
    for key, tensor in model.heads["score"].state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, head[f"base_model.model.heads.score.{key}"])


def test_a_bfloat16_merge_of_an_adapter_that_changes_nothing_succeeds(tiny_folder, tmp_path, probe):
    """Catches a limit that no merge in the published type can keep."""
    run = make_run(tiny_folder, tmp_path / "adapter", probe, heads=("score",), scale=0.0)
    merge_adapter(tiny_folder, run.folder, tmp_path / "out", METRIC, [probe], torch.bfloat16)


def test_merging_twice_gives_one_model(tiny_folder, tmp_path, probe):
    """Stage 1 trains no head. Catches a merged folder that depends on torch's random state, so that
    stage 2 starts elsewhere after a restart, and one that claims a head nobody trained.
    """
    run = make_run(tiny_folder, tmp_path / "adapter", probe, scale=0.02)
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        out = tmp_path / f"merged{seed}"
        merge_adapter(tiny_folder, run.folder, out, METRIC, [probe], torch.float32)
        weights.append(load_file(out / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


def test_largest_difference_by_hand():
    """Catches a difference that is relative to each value (large near zero) or to one output's
    scale for all outputs.
    """
    trained = {"logits": torch.tensor([10.0, 0.0]), "scores": torch.tensor([0.5])}
    close = {"logits": torch.tensor([10.0, 0.1]), "scores": torch.tensor([0.5])}
    far = {"logits": torch.tensor([10.0, 0.1]), "scores": torch.tensor([0.6])}
    assert largest_difference(trained, trained) == 0
    assert largest_difference(close, trained) == pytest.approx(0.01)
    assert largest_difference(far, trained) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "broken",
    [
        "logits",
        pytest.param(
            "scores",
        ),
    ],
)
def test_an_output_that_is_no_number_is_a_difference(broken):
    """Catches a verification that a head full of nan passes."""
    trained = {"logits": torch.tensor([1.0, 2.0]), "scores": torch.tensor([0.5])}
    merged = trained | {broken: torch.full_like(trained[broken], float("nan"))}
    assert not largest_difference(merged, trained) <= LIMITS[torch.float32]["relative_difference"]


# The saliency decoder


@pytest.fixture(scope="module")
def decoder_run(tiny_folder, tmp_path_factory, processor):
    """A trained decoder: the model in memory, the decoder's file, its metric, a real batch."""
    model = load_with_head(tiny_folder)
    model.add_saliency_decoder(SaliencyConfig(taps=(4, 2, 0), width=40))
    model.saliency_decoder.requires_grad_(True)
    nudged(model.saliency_decoder, 0.02)
    file = tmp_path_factory.mktemp("decoder") / "decoder.safetensors"
    save_file(model.saliency_decoder.state_dict(), file)
    views = [noise(processor, seed, (6, 84, 112)) for seed in (0, 1)]
    batch = view_batch(DialogueEncoder(processor.tokenizer), views)
    metric = METRIC.replace(saliency=model.metric.saliency)
    return model, file, metric, batch


def test_merged_decoder_draws_the_trained_maps(tiny_folder, tmp_path, decoder_run):
    """Catches a decoder with default taps, one at random weights, and a folder without its
    geometry.
    """
    trained, file, metric, batch = decoder_run
    out = tmp_path / "merged"
    report = merge_decoder(tiny_folder, file, out, metric, [batch], torch.float32)
    model = LMME3DHF.from_pretrained(out).eval()
    assert model.metric == metric
    assert torch.equal(
        saliency_outputs(model, batch)["maps"], saliency_outputs(trained, batch)["maps"]
    )
    assert report["relative_difference"] == 0
    assert report["samples"] == 2
    assert damage(out) is None


def test_merging_a_decoder_keeps_the_trained_head(merged, tmp_path, decoder_run):
    """Stage 3 starts from stage 2's model. Catches an all-in-one folder whose scores are others."""
    _, file, metric, batch = decoder_run
    out = tmp_path / "merged"
    merge_decoder(merged[0], file, out, metric, [batch], torch.float32)
    before, after = (load_file(f / "model.safetensors") for f in (merged[0], out))
    assert len(before)
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


@pytest.mark.parametrize("change", ["lost", "more"])
def test_a_decoder_that_does_not_fit_is_refused(tiny_folder, tmp_path, decoder_run, change):
    """Catches a decoder of which a part stays at random values."""
    _, file, metric, batch = decoder_run
    tensors = load_file(file)
    tensors = (
        dict(list(tensors.items())[1:]) if change == "lost" else tensors | {"x": torch.ones(1)}
    )
    save_file(tensors, tmp_path / "decoder.safetensors")
    out = tmp_path / "out" / "merged"
    out.parent.mkdir()
    with pytest.raises(MergeError, match="its tensors are not those of the decoder"):
        merge_decoder(
            tiny_folder, tmp_path / "decoder.safetensors", out, metric, [batch], torch.float32
        )
    assert_nothing_left(out)


@pytest.fixture(scope="module")
def head_run(tiny_folder, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A head that was trained alone: its file and its weights."""
    torch.manual_seed(3)
    model = LMME3DHF.from_pretrained(tiny_folder)
    model.reset_parts(["heads.score"])
    weights = {name: tensor.clone() for name, tensor in model.heads.state_dict().items()}
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    save_file(weights, path)
    return path, weights


def test_a_merged_head_scores_and_the_backbone_is_the_bases(tiny_folder, tmp_path, probe, head_run):
    """Table 5, row 3. Catches a merge that leaves the folder's head untrained, and one that touches
    anything else.
    """
    path, weights = head_run
    out = tmp_path / "merged"
    merge_heads(tiny_folder, path, out, METRIC, [probe], torch.float32)
    model = LMME3DHF.from_pretrained(out)
    assert model.missing_parts == []
    for name, tensor in model.heads.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    base = LMME3DHF.from_pretrained(tiny_folder).state_dict()
    others = [name for name in base if not name.startswith("heads.score")]
    assert others
    merged = model.state_dict()
    assert all(torch.equal(merged[name], base[name]) for name in others)


def test_a_head_of_another_geometry_is_refused(tiny_folder, tmp_path, probe, head_run):
    """Catches weights that are quietly left out."""
    _, weights = head_run
    fewer = dict(list(weights.items())[1:])
    save_file(fewer, tmp_path / "head.safetensors")
    with pytest.raises(MergeError, match="not those of the run's heads"):
        merge_heads(
            tiny_folder,
            tmp_path / "head.safetensors",
            tmp_path / "out",
            METRIC,
            [probe],
            torch.float32,
        )
    assert not (tmp_path / "out").exists()


# The adapter kept beside the weights

BF16 = torch.bfloat16


def bits(outputs: dict) -> dict:
    return {name: tensor.float().tolist() for name, tensor in outputs.items()}


@dataclass(frozen=True)
class Kept:
    """A run in bfloat16 on both parts of the backbone, and its folder of the second form."""

    run: Run
    folder: Path
    report: dict


@pytest.fixture(scope="module")
def kept(tiny_folder, tmp_path_factory, probe) -> Kept:
    work = tmp_path_factory.mktemp("kept")
    adapted = add_adapters(
        load_with_head(tiny_folder, dtype=BF16),
        rank=RANK,
        alpha=ALPHA,
        dropout=0.1,
        language=True,
        vision=True,
        heads=("score",),
    )
    nudged(adapted, 0.05)
    adapted.get_base_model().missing_parts = []
    adapted.save_pretrained(work / "adapter")
    run = Run(adapted.eval(), work / "adapter", probe | {"levels": probe["scored"]})
    out = work / "merged"
    report = merge_adapter(tiny_folder, run.folder, out, METRIC, [run.probe], BF16)
    return Kept(run, out, report)


def test_an_update_that_rounding_would_lose_is_kept_beside(kept):
    """Catches a finished run that is refused, and one whose folder says something else than the
    trained model did: every output is the same in every bit, in the type of the run.
    """
    assert kept.report["form"] == "adapter"
    assert kept.report["score_points_max"] == kept.report["relative_difference"] == 0
    assert kept.report["folded"]["relative_difference"] > LIMITS[BF16]["relative_difference"]
    assert {"folded", "limits", "level_changes", "swapped_pairs"} <= set(kept.report)
    assert damage(kept.folder) is None
    model = LMME3DHF.from_pretrained(kept.folder, dtype="auto").eval()
    assert model.model.dtype == BF16
    assert model.metric == METRIC.replace(adapter=True)
    tokens = METRIC.level_tokens
    ours, trained = (text_outputs(m, kept.run.probe, tokens) for m in (model, kept.run.adapted))
    assert set(ours) == {"logits", "levels", "scores"}
    assert bits(ours) == bits(trained)


def test_nothing_private_is_in_a_kept_adapter(kept, tiny_folder):
    """Catches the path of the base, which PEFT writes, and a head that is stored twice."""
    text = (kept.folder / "adapter" / "adapter_config.json").read_text()
    assert str(tiny_folder) not in text
    assert json.loads(text)["modules_to_save"] is None
    assert all(".lora_" in key for key in load_file(kept.folder / "adapter" / ADAPTER))
    assert not [p for p in (kept.folder / "adapter").iterdir() if p.suffix == ".md"]


def test_the_stock_class_and_peft_read_a_kept_adapter(kept):
    """Catches a layout of our own: the weights are an ordinary Qwen2.5-VL, the adapter PEFT's."""
    stock, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        kept.folder, dtype=BF16, output_loading_info=True
    )
    assert not info["missing_keys"]
    adapted = PeftModel.from_pretrained(stock, kept.folder / "adapter")
    ours = LMME3DHF.from_pretrained(kept.folder, dtype=BF16)
    layer = "model.language_model.layers.2.mlp.up_proj.lora_B.default.weight"
    theirs = adapted.get_base_model().get_parameter(layer)
    assert torch.equal(theirs.float(), ours.get_parameter(layer).float())


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_a_form_that_is_asked_for_is_taken_or_refused_with_the_way_out(
    tiny_folder, tmp_path, kept, run, form
):
    """Catches an option without effect. Folding in is refused where it rounds too much; keeping
    beside never is.
    """
    out = tmp_path / "out" / "merged"
    out.parent.mkdir()
    if form == "merged":
        with pytest.raises(MergeError, match="--form adapter"):
            merge_adapter(
                tiny_folder, kept.run.folder, out, METRIC, [kept.run.probe], BF16, form=form
            )
        assert_nothing_left(out)
        return
    report = merge_adapter(
        tiny_folder, run.folder, out, METRIC, [run.probe], torch.float32, form=form
    )
    assert report["form"] == "adapter"
    model = LMME3DHF.from_pretrained(out).eval()
    assert bits(text_outputs(model, run.probe)) == bits(text_outputs(run.adapted, run.probe))


@torch.no_grad()
def test_a_model_with_a_kept_adapter_writes_what_the_trained_one_writes(kept, processor):
    """Catches replies without the adapter: they come from the stock forward pass."""
    case = made_case(processor, 0)
    arguments = stock_batch(processor, case, side="left")
    del arguments["labels"]
    model = LMME3DHF.from_pretrained(kept.folder, dtype="auto").eval()
    options = {"max_new_tokens": 6, "do_sample": False}
    ours, trained = (
        m.generate(**arguments, **options) for m in (model, kept.run.adapted.get_base_model())
    )
    assert torch.equal(ours, trained)


def without_adapter(folder: Path) -> None:
    shutil.rmtree(folder / "adapter")


def without_flag(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["metric"]["adapter"]
    (folder / "config.json").write_text(json.dumps(config))


def cut(folder: Path) -> None:
    path = folder / "adapter" / ADAPTER
    path.write_bytes(path.read_bytes()[:-100])


def with_fewer(folder: Path) -> None:
    path = folder / "adapter" / ADAPTER
    save_file(without_one(load_file(path)), path)


def half(folder: Path) -> None:
    (folder / "adapter" / "adapter_config.json").unlink()


def with_setting(name: str, value: object) -> Callable[[Path], None]:
    """An adapter whose configuration changes more than plain LoRA does, or what it means."""

    def change(folder: Path) -> None:
        path = folder / "adapter" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return change


OTHER_ADAPTERS = {
    "init_lora_weights": "pissa",
    "use_rslora": True,
    "use_dora": True,
    "alpha_pattern": {"q_proj": 1},
    "lora_alpha": float("nan"),
    "r": "x",
}


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        *(without_adapter, without_flag, cut, half),
        *(with_setting(*setting) for setting in OTHER_ADAPTERS.items()),
    ],
)
def test_a_kept_adapter_that_is_not_whole_is_an_error(kept, tmp_path, change, fold):
    """Catches other scores in silence."""
    folder = shutil.copytree(kept.folder, tmp_path / "model")
    change(folder)
    with pytest.raises(ModelError, match="adapter"):
        LMME3DHF.from_pretrained(folder, fold_adapter=fold)
    with pytest.raises(ModelError, match="adapter"):
        load_tower(folder, BF16, "sdpa", fold_adapter=fold)
    with pytest.raises(ModelError, match="adapter"):
        tower_hash(folder, BF16, fold_adapter=fold)


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_a_kept_adapter_without_a_tensor_is_an_error(kept, tmp_path):
    """Of which PEFT only warns."""
    folder = shutil.copytree(kept.folder, tmp_path / "model")
    with_fewer(folder)
    for load in (LMME3DHF.from_pretrained, lambda f: LMME3DHF.from_pretrained(f, tower=False)):
        with pytest.raises(ModelError, match="do not belong together"):
            load(folder)


def test_a_model_with_a_kept_adapter_is_saved_as_it_was_loaded(kept, tmp_path):
    """Catches weights under the adapter's names, and an adapter that is lost on the way."""
    model = LMME3DHF.from_pretrained(kept.folder, dtype="auto")
    model.save_pretrained(tmp_path)
    for name in ("model.safetensors", f"adapter/{ADAPTER}"):
        before, after = (load_file(folder / name) for folder in (kept.folder, tmp_path))
        assert before.keys() == after.keys()
        assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    again = LMME3DHF.from_pretrained(tmp_path, dtype="auto").eval()
    assert bits(text_outputs(again, kept.run.probe)) == bits(
        text_outputs(model.eval(), kept.run.probe)
    )


def folded_by_hand(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """(W + alpha / rank * B A) as bfloat16, of a base whose tower and language are adapted."""
    weights, factors = load_file(base / "model.safetensors"), load_file(adapter / ADAPTER)
    for key in weights:
        name = re.sub(r"^model\.", "model.language_model.", key)
        name = re.sub(r"^visual\.", "model.visual.", name).removesuffix(".weight")
        if f"base_model.model.{name}.lora_A.weight" in factors:
            a, b = (factors[f"base_model.model.{name}.lora_{half}.weight"] for half in "AB")
            weights[key] = weights[key].to(BF16).float() + ALPHA / RANK * b @ a
    return {key: tensor.to(BF16) for key, tensor in weights.items()}


def test_training_on_starts_from_the_folded_weights(kept, tiny_folder, tmp_path):
    """Stage 2 after a stage 1 whose adapter is kept. Catches a second adapter on top of the first
    one, which no folder could hold, and a merge that folds otherwise than training did.
    """
    with pytest.raises(ValueError, match="fold_adapter"):
        add_adapters(
            LMME3DHF.from_pretrained(kept.folder),
            rank=2,
            alpha=4,
            dropout=0,
            language=True,
            vision=False,
            heads=("score",),
        )
    start = LMME3DHF.from_pretrained(kept.folder, dtype=BF16, fold_adapter=True).eval()
    expected = folded_by_hand(tiny_folder, kept.run.folder)
    weights = start.state_dict()
    assert all(torch.equal(weights[model_name(key)], tensor) for key, tensor in expected.items())
    assert not start.metric.adapter
    second = add_adapters(
        start, rank=2, alpha=4, dropout=0, language=True, vision=False, heads=("score",)
    )
    nudged(second, 0.02)
    second.save_pretrained(tmp_path / "adapter")
    report = merge_adapter(
        kept.folder,
        tmp_path / "adapter",
        tmp_path / "out",
        METRIC,
        [kept.run.probe],
        BF16,
        form="adapter",
    )
    model = LMME3DHF.from_pretrained(tmp_path / "out", dtype="auto").eval()
    probe = kept.run.probe
    assert report["relative_difference"] == 0
    assert bits(text_outputs(model, probe)) == bits(text_outputs(second.eval(), probe))


def test_features_depend_on_a_kept_adapter(kept, tiny_folder, tmp_path):
    """Catches a store of features that is read for another model, and a tower without its adapter;
    what training starts from has the features of the folded weights.
    """
    model = LMME3DHF.from_pretrained(kept.folder, dtype=BF16).eval()
    arguments = kept.run.probe["pixel_values_videos"], kept.run.probe["video_grid_thw"]
    for fold in (False, True):
        tower = load_tower(kept.folder, BF16, "sdpa", fold_adapter=fold)
        whole = LMME3DHF.from_pretrained(kept.folder, dtype=BF16, fold_adapter=fold).eval()
        alone = [tower(arguments[0].to(BF16), grid_thw=arguments[1]).pooler_output]
        theirs = whole.model.visual(arguments[0].to(BF16), grid_thw=arguments[1]).pooler_output
        assert torch.equal(alone[0], theirs), fold
    LMME3DHF.from_pretrained(kept.folder, dtype=BF16, fold_adapter=True).save_pretrained(
        tmp_path / "folded"
    )
    assert tower_hash(kept.folder, BF16, fold_adapter=True) == tower_hash(tmp_path / "folded", BF16)
    for hashed in (tower_hash, language_hash):
        found = {hashed(folder, BF16) for folder in (kept.folder, tmp_path / "folded", tiny_folder)}
        assert len(found) == 3
    changed = shutil.copytree(kept.folder, tmp_path / "changed")
    config = json.loads((changed / "adapter" / "adapter_config.json").read_text())
    (changed / "adapter" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1}))
    for hashed in (tower_hash, language_hash):
        assert hashed(changed, BF16) != hashed(kept.folder, BF16)
    assert model.metric.adapter


def test_a_model_without_its_tower_keeps_the_rest_of_the_adapter(kept, probe):
    """Catches a language model without its adapter where the features are stored."""
    whole = LMME3DHF.from_pretrained(kept.folder, dtype=BF16).eval()
    bare = LMME3DHF.from_pretrained(kept.folder, dtype=BF16, tower=False).eval()
    batch = dict(probe)
    with torch.no_grad():
        batch["video_embeds"] = whole.encode_video(
            batch.pop("pixel_values_videos"), batch["video_grid_thw"]
        )
    assert bits(text_outputs(bare, batch)) == bits(text_outputs(whole, batch))


def test_later_parts_are_added_to_a_kept_adapter(kept, tmp_path, decoder_run, head_run):
    """Stage 3, or a head alone, after a stage whose adapter is kept. Catches an adapter that is
    lost, or folded in after all.
    """
    _, file, metric, batch = decoder_run
    merge_decoder(kept.folder, file, tmp_path / "decoder", metric, [batch], BF16)
    merge_heads(kept.folder, head_run[0], tmp_path / "head", METRIC, [kept.run.probe], BF16)
    for out in (tmp_path / "decoder", tmp_path / "head"):
        assert json.loads((out / REPORT).read_text())["form"] == "adapter"
        assert LMME3DHF.from_pretrained(out).metric.adapter
        for name in ("model.safetensors", f"adapter/{ADAPTER}"):
            before, after = (load_file(folder / name) for folder in (kept.folder, out))
            shared = [key for key in before if not key.startswith("heads.score")]
            assert all(torch.equal(before[key], after[key]) for key in shared)


# The measure


def test_float32_arithmetic_on_narrow_weights(kept):
    """Catches a module that computes in bfloat16, and weights that stay widened."""
    probe = kept.run.probe
    model = LMME3DHF.from_pretrained(kept.folder, dtype=BF16, fold_adapter=True).eval()
    with in_float32(model):
        ours = text_outputs(model, probe)
    assert model.model.language_model.layers[0].mlp.up_proj.weight.dtype == BF16
    wide = LMME3DHF.from_pretrained(kept.folder, dtype=BF16, fold_adapter=True).eval().float()
    # Pixels take the tower's type on their way in.
    pixels = probe["pixel_values_videos"].to(BF16).float()
    assert bits(ours) == bits(text_outputs(wide, probe | {"pixel_values_videos": pixels}))


def test_the_measured_rounding_is_that_of_the_written_folder(
    tiny_folder, tmp_path, kept, monkeypatch
):
    """Catches a decision on other figures than the folder's."""
    monkeypatch.setitem(LIMITS, BF16, {"relative_difference": 10.0})
    probe = [kept.run.probe]
    report = merge_adapter(tiny_folder, kept.run.folder, tmp_path / "out", METRIC, probe, BF16)
    assert report["form"] == "merged"
    assert {name: report[name] for name in report["folded"]} == report["folded"]
    expected = folded_by_hand(tiny_folder, kept.run.folder)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(written[key], tensor) for key, tensor in expected.items())
    again = all_outputs(kept.run.adapted, probe, text_outputs)
    model = LMME3DHF.from_pretrained(tmp_path / "out", dtype=BF16).eval()
    ours = all_outputs(model, probe, text_outputs)
    assert differences(ours, again)["score_points_max"] == report["score_points_max"] > 0


def test_differences_by_hand():
    """Scores of .2, .4, .6 become .2, .61, .6: 21 points at most, 7 on average, one of three pairs
    changes its order; a tie that breaks is no swap. One of two levels changes.
    """
    trained = {
        "scores": torch.tensor([0.2, 0.4, 0.6]),
        "levels": torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 2.9]]),
    }
    stored = {
        "scores": torch.tensor([0.2, 0.61, 0.6]),
        "levels": torch.tensor([[1.0, 1.9, 0.0], [3.0, 0.0, 3.1]]),
    }
    found = differences(stored, trained)
    assert found["score_points_max"] == pytest.approx(21, abs=1e-4)
    assert found["score_points_mean"] == found["score_points_bias"]
    assert found["score_points_bias"] == pytest.approx(7, abs=1e-4)
    assert (found["swapped_pairs"], found["pairs"], found["scores"]) == (1, 3, 3)
    assert (found["level_changes"], found["level_reads"]) == (1, 2)
    assert found["relative_difference"] == pytest.approx(0.35, abs=1e-6)
    # The second score is of another dimension, so that it changes places with nobody.
    apart = trained | {"aspects": torch.tensor([0, 1, 0])}
    found = differences(stored, apart)
    assert (found["swapped_pairs"], found["pairs"]) == (0, 1)
    tied = {"scores": torch.tensor([0.5, 0.5])}
    assert differences({"scores": torch.tensor([0.5, 0.6])}, tied)["swapped_pairs"] == 0


def test_outputs_that_are_no_numbers_are_refused(tiny_folder, tmp_path, run):
    """Catches a model without use that is kept because folding it in changes nothing."""
    adapter = rewritten(
        run.folder,
        tmp_path / "adapter",
        lambda tensors: {key: tensor * float("nan") for key, tensor in tensors.items()},
        ADAPTER,
    )
    with pytest.raises(MergeError, match=r"do not belong together|not numbers"):
        merge_adapter(tiny_folder, adapter, tmp_path / "out", METRIC, [run.probe], torch.float32)
    assert not (tmp_path / "out").exists()


def test_weights_beyond_a_shard_are_several_files_with_an_index(
    tiny_folder, tmp_path, run, merged, monkeypatch
):
    """Catches a 7B model that is written from one dictionary of all its tensors, and shards that
    the library cannot read.
    """
    monkeypatch.setattr(merge, "SHARD", "1MB")
    out = tmp_path / "out"
    merge_adapter(tiny_folder, run.folder, out, METRIC, [run.probe], torch.float32)
    shards = sorted(out.glob("model-*.safetensors"))
    assert len(shards) > 3
    assert not (out / "model.safetensors").exists()
    whole, parts = load_file(merged[0] / "model.safetensors"), {}
    for shard in shards:
        parts |= load_file(shard)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(tensor, parts[key]) for key, tensor in whole.items())
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(whole)
    model = LMME3DHF.from_pretrained(out).eval()
    assert bits(text_outputs(model, run.probe)) == bits(
        text_outputs(LMME3DHF.from_pretrained(merged[0]).eval(), run.probe)
    )


@pytest.mark.parametrize("when", ["before", "while it is written"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tiny_folder, tmp_path, run, monkeypatch, when
):
    """Catches a traceback of the file library, and half a model."""
    out = tmp_path / "out"
    if when == "before":
        usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
        monkeypatch.setattr(merge.shutil, "disk_usage", lambda path: usage)
    else:

        def full(*arguments, **options):
            raise SafetensorError("No space left on device")

        monkeypatch.setattr(merge, "save_file", full)
    with pytest.raises(MergeError, match="make room"):
        merge_adapter(tiny_folder, run.folder, out, METRIC, [run.probe], torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_killed_merge_is_damaged(tiny_folder, tmp_path, run, monkeypatch):
    """Its weights may all be there. Catches scores of a model that nobody verified."""
    left = tmp_path / "left"

    def killed(trained, folder, kept):
        shutil.copytree(folder, left)
        raise KeyboardInterrupt

    monkeypatch.setattr(merge, "_wrongly_written", killed)
    with pytest.raises(KeyboardInterrupt):
        merge_adapter(tiny_folder, run.folder, tmp_path / "out", METRIC, [run.probe], torch.float32)
    assert (left / "model.safetensors").exists()
    assert "not finished" in model_damage(left)
