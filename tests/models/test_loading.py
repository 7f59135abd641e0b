"""Loading for training: kernels, types and quantisation; and what a training step then does: which
tensors carry gradients, checkpointing, mixed precision, compilation.
"""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import ProcessorMixin

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.collation import Collator, Item, packed_item
from lmme3dhf.data.dialogue import with_tokens
from lmme3dhf.models import loading
from lmme3dhf.models.configuration import MetricConfig
from lmme3dhf.models.folder import ModelError, check_folder
from lmme3dhf.models.loading import (
    flash_attention_problem,
    load_model,
    loading_options,
)
from lmme3dhf.models.lora import add_adapters
from lmme3dhf.models.merge import merge_adapter
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.stages.score import ScoreLoss
from lmme3dhf.training import train
from tests.models.conftest import PREFIX, asked, noise

CPU = torch.device("cpu")
REPLY = f"{PREFIX} excellent."
LABELS = ("values", "asked", "learnt", "targets")


# Loading


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((None, "auto"), ("auto", "none")),
        ((None, "float32"), ("float32", "none")),
        (("bf16", "auto"), ("bfloat16", "none")),
        (("bf16", "bfloat16"), ("bfloat16", "none")),
        (("8bit", "auto"), ("auto", "8bit")),
        (("4bit", "float16"), ("float16", "4bit")),
    ],
)
def test_one_word_says_how_a_model_is_loaded(words, expected):
    """Catches bits that are asked for and not taken, and a type that is lost beside them."""
    assert loading_options(*words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bf16", "float32"), "load='bf16' means bfloat16, and dtype is float32; give one"),
        (("2bit", "auto"), "load='2bit', expected bf16, 8bit, 4bit, or None"),
        ((None, "bf16"), "dtype='bf16', expected one of auto, float32"),
    ],
)
def test_words_that_contradict_each_other_are_refused(words, message):
    """Catches scores of another precision than the user believes, and torch's own traceback."""
    with pytest.raises(ModelError, match=message):
        loading_options(*words)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["adapter_config.json"], r"a LoRA adapter.*lmme3dhf merge RUN"),
        (["run.json", "adapter/adapter_config.json"], r"not merged; lmme3dhf merge \S*place makes"),
        (["run.json", "merged/config.json"], r"give \S*place/merged$"),
        (["summary.json", "model/config.json"], r"give \S*place/model$"),
    ],
)
def test_what_is_not_a_model_tells_where_it_is(tmp_path, files, message):
    """Catches a library's message about some missing file in a folder that training wrote."""
    folder = tmp_path / "place"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    with pytest.raises(ModelError, match=message):
        check_folder(folder)


def test_the_tower_takes_sdpa_where_flash_attention_cannot_be(tiny_folder):
    """Catches a kernel that is set for the language model too, which needs any mask, and a setting
    that is silently replaced.
    """
    model = load_model(tiny_folder)
    assert model.model.visual.config._attn_implementation == "sdpa"
    assert model.model.language_model.config._attn_implementation == "sdpa"
    with pytest.raises(ModelError, match=r"flash_attention_2: .* NVIDIA GPU.* give auto or sdpa"):
        load_model(tiny_folder, attn_implementation="flash_attention_2", device="cpu")


def test_flash_attention_is_tried_not_believed(monkeypatch):
    """Catches a package that is there and does not work: the run would end at its first clip."""
    gpu = torch.device("cuda")
    assert "bfloat16 or float16" in flash_attention_problem(gpu, torch.float32)

    class Broken:
        @staticmethod
        def flash_attn_varlen_func(*args):
            raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(__import__("sys").modules, "flash_attn", Broken)
    monkeypatch.setattr(loading.torch, "zeros", lambda *args, **options: None)
    monkeypatch.setattr(loading.torch, "tensor", lambda *args, **options: None)
    problem = flash_attention_problem(gpu, torch.bfloat16)
    assert problem == "flash_attn does not work: no kernel image is available"


def test_types_and_parts_are_those_asked_for(tiny_folder):
    """Catches a head in bfloat16, a stored type that is lost, and a tower that is loaded for
    nothing.
    """
    model = load_model(tiny_folder, dtype="bfloat16", tower=False)
    assert model.model.visual is None
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert {p.dtype for p in model.heads["score"].parameters()} == {torch.float32}
    assert not model.training
    assert load_model(tiny_folder).lm_head.weight.dtype == torch.float32


def test_a_wrong_device_is_one_sentence(tiny_folder):
    """Catches a traceback of torch."""
    with pytest.raises(ModelError, match=r"device nowhere: .*; give auto or cpu"):
        load_model(tiny_folder, device="nowhere")


def test_quantisation_without_its_library_is_one_sentence(tiny_folder, monkeypatch):
    """Catches the library's ImportError, and a model that is loaded without quantisation."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"4bit needs bitsandbytes.*pip install 'lmme3dhf\[quant"):
        load_model(tiny_folder, quantization="4bit")


# A training step


class Steps(list):
    """Items as a data set."""


def items(processor: ProcessorMixin, count: int = 4) -> Steps:
    """Clips of noise with a scored question and its reply; they differ in length."""
    shapes = ((4, 84, 112), (2, 56, 84))
    return Steps(
        packed_item(
            (asked(processor, reply=REPLY, name=f"noise{seed}", mos=0.2 * seed),),
            noise(processor, seed, shapes[seed % 2]),
        )
        for seed in range(count)
    )


def adapted_model(folder: Path, **options) -> nn.Module:
    """The tiny model with adapters that start from one seed."""
    torch.manual_seed(0)
    model = load_model(folder, device="cpu", **options)
    return add_adapters(
        model, rank=4, alpha=8, dropout=0.0, language=True, vision=False, heads=("score",)
    )


def run_steps(
    model: nn.Module, data: list[Item], processor: ProcessorMixin, run: Path, **settings
) -> list[float]:
    """Trains for one epoch, two clips a step, and gives the losses."""
    train(
        name="tiny",
        model=model,
        loss=ScoreLoss({"l1": 1.0}, MetricConfig(), 0.5),
        dataset=data,
        collator=Collator(processor.tokenizer.pad_token_id, 64, tuple(GEN3DHF)),
        settings={
            "num_train_epochs": 1,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "save_strategy": "no",
            **settings,
        },
        run=run,
        seed=0,
    )
    return [json.loads(line)["loss"] for line in (run / "losses.jsonl").read_text().splitlines()]


def test_checkpointing_changes_nothing_and_leaves_the_tower_without_a_graph(
    tiny_folder, processor, tmp_path
):
    """The library hooks the embeddings' output, and the vision tower's, to require gradients.
    Catches a backward pass through the frozen tower (1.67 times the work), a checkpoint that loses
    gradients, and one that is not taken.
    """
    data, seen, models, curves = items(processor), [], [], []
    for name, settings in (("off", {}), ("on", {"gradient_checkpointing": True})):
        model = adapted_model(tiny_folder)
        base = model.get_base_model()
        base.model.visual.register_forward_hook(
            lambda module, inputs, output: seen.append(output.pooler_output.requires_grad)
        )
        curves.append(run_steps(model, data, processor, tmp_path / name, **settings))
        models.append(model.state_dict())
    assert base.model.language_model.layers[0].gradient_checkpointing
    assert seen == [False] * 8  # four clips in each run
    assert curves[0] == curves[1]
    assert all(torch.equal(models[0][name], tensor) for name, tensor in models[1].items())


def test_under_autocast_adapters_are_float32_and_the_head_computes_in_it(
    tiny_folder, processor, tmp_path
):
    """Catches adapters that are stored in bfloat16, whose steps are rounded away, and a head that
    autocast takes along: it would round a MOS to steps of 0.2.
    """
    model = adapted_model(tiny_folder, dtype="bfloat16")
    kinds = {p.requires_grad: set() for p in model.parameters()}
    for name, parameter in model.named_parameters():
        if "heads.score" not in name:
            kinds[parameter.requires_grad].add(parameter.dtype)
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}
    heads, adapters = [], []
    head = model.get_base_model().heads["score"]
    head.register_forward_hook(
        lambda module, args, output: heads.append((args[0], output["score"]))
    )
    layer = model.get_base_model().model.language_model.layers[0].self_attn.q_proj
    layer.lora_A["default"].register_forward_hook(
        lambda module, args, output: adapters.append(output.dtype)
    )
    # The head must not change between its call and the comparison.
    run_steps(model, items(processor, 2), processor, tmp_path, bf16=True, learning_rate=0.0)
    (hidden, score), *_ = heads
    assert set(adapters) == {torch.bfloat16}
    assert score.dtype == torch.float32
    assert torch.equal(head(hidden)["score"], score)


def test_compiled_layers_learn_the_same_from_three_graphs(tiny_folder, processor, tmp_path):
    """Four layers, clips of two lengths, padded to one shape. Catches a graph for each layer, and
    positions (computed in Python) that break one; the kernels themselves are left to torch.
    """
    from torch._dynamo.utils import counters

    data = items(processor)
    plain = run_steps(adapted_model(tiny_folder), data, processor, tmp_path / "plain")
    torch._dynamo.reset()
    counters.clear()
    compiled = run_steps(
        adapted_model(tiny_folder),
        data,
        processor,
        tmp_path / "compiled",
        torch_compile=True,
        torch_compile_backend="eager",
    )
    assert compiled == pytest.approx(plain, rel=1e-5)
    assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]
    assert not any("_orig_mod" in name for name in adapted_model(tiny_folder).state_dict())


# Quantised


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_a_quantised_model_trains_and_is_merged_into_the_whole_one(
    tiny_folder, processor, tmp_path, kind
):
    """Catches a tower or head that is quantised, adapters that learn nothing, and adapters that fit
    the quantised model alone.
    """
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = adapted_model(tiny_folder, dtype="bfloat16", quantization=kind)
    base = model.get_base_model()
    quantised = {"4bit": bitsandbytes.nn.Linear4bit, "8bit": bitsandbytes.nn.Linear8bitLt}[kind]
    named = [name for name, module in base.named_modules() if isinstance(module, quantised)]
    assert len(named) == 7 * 4
    assert all("language_model.layers" in name for name in named)
    data = items(processor)
    run_steps(model, data, processor, tmp_path / "run", bf16=True, gradient_checkpointing=True)
    moved = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert moved
    assert all(p.abs().max() > 0 for p in moved)
    model.save_pretrained(tmp_path / "adapter")
    probe = Collator(processor.tokenizer.pad_token_id, aspects=tuple(GEN3DHF))(data[:2])
    tensors = {k: v for k, v in probe.items() if isinstance(v, torch.Tensor) and k not in LABELS}
    aspects = with_tokens(base.metric.aspects, processor.tokenizer)
    merge_adapter(
        tiny_folder,
        tmp_path / "adapter",
        tmp_path / "merged",
        base.metric.replace(aspects=aspects),
        [tensors],
        torch.bfloat16,
    )
    merged = LMME3DHF.from_pretrained(tmp_path / "merged")
    assert merged.missing_parts == []
    assert merged.model.language_model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert "quantization_config" not in json.loads((tmp_path / "merged/config.json").read_text())
