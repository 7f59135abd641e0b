"""What a model folder may hold: folders from strangers, of other architectures, and with damage."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmme3dhf import Scorer
from lmme3dhf import files as files_module
from lmme3dhf.cli import main
from lmme3dhf.config import Config
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.samples import DataError
from lmme3dhf.files import MANIFEST
from lmme3dhf.models import configuration
from lmme3dhf.models.configuration import MetricConfig
from lmme3dhf.models.folder import (
    REPORT,
    ModelError,
    check_folder,
    model_damage,
    model_hash,
    verify_folder,
)
from lmme3dhf.models.hub import model_folder, push_to_hub
from lmme3dhf.models.loading import load_model
from lmme3dhf.models.lora import add_adapters
from lmme3dhf.models.merge import merge_adapter
from lmme3dhf.models.modeling import LMME3DHF, load_configuration, load_processor
from lmme3dhf.models.tower import load_tower
from lmme3dhf.stages.prepare import fill_stores
from lmme3dhf.stages.run import finish_run, merge_run
from lmme3dhf.stages.saliency import train_saliency
from lmme3dhf.stages.score import train_score
from lmme3dhf.stages.text import train_text
from lmme3dhf.training import TrainingError
from tests.models.conftest import batch_of, load_with_head, made_case
from tests.models.fake_model_hub import NAME, contents

CONFIG = "config.json"
# A module that leaves a mark where it is imported.
CODE = "from pathlib import Path\nPath({mark!r}).touch()\nclass Made: pass\n"
DOORS: dict[str, Callable[[Path], object]] = {
    "configuration": load_configuration,
    "processor": load_processor,
    "model": LMME3DHF.from_pretrained,
    "tower": lambda folder: load_tower(folder, torch.float32, "sdpa"),
    "scorer": lambda folder: Scorer.from_pretrained(folder, verify=False),
    "hub": model_folder,
}


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


@pytest.fixture
def plain(tiny_folder, tmp_path) -> Path:
    """A plain Qwen2.5-VL folder that a test may spoil."""
    return copied(tiny_folder, tmp_path / "plain")


@pytest.fixture
def merged(published, tmp_path) -> Path:
    """A merged folder that a test may spoil."""
    return copied(published, tmp_path / "merged")


@pytest.fixture
def read(monkeypatch, tmp_path) -> list[str]:
    """Names of the files that are hashed, with an empty memory that keeps the youngest file too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files_module, "_SETTLED_NS", -(10**12))
    names = []
    file_hash = files_module.file_hash
    monkeypatch.setattr(files_module, "file_hash", lambda p: names.append(p.name) or file_hash(p))
    return names


def changed(path: Path, *keys: str | int, value: object) -> None:
    """Sets a value in a JSON file, which is made where it is absent."""
    content = json.loads(path.read_text()) if path.exists() else {}
    place = content
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def nested(depth: int) -> object:
    """Lists in lists."""
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


# Code and kernels

AUTO_MAP = {
    "AutoConfig": "evil.Made",
    "AutoModel": "evil.Made",
    "AutoProcessor": "evil.Made",
    "AutoTokenizer": ["evil.Made", "evil.Made"],
    "AutoImageProcessor": "evil.Made",
    "AutoVideoProcessor": "evil.Made",
}
KERNEL = "kernels-community/flash-attn"
HOSTILE = [
    (CONFIG, ("auto_map",), AUTO_MAP),
    (CONFIG, ("text_config", "auto_map"), AUTO_MAP),
    (CONFIG, ("vision_config", "auto_map"), AUTO_MAP),
    ("processor_config.json", ("auto_map",), AUTO_MAP),
    ("processor_config.json", ("image_processor", "auto_map"), AUTO_MAP),
    ("processor_config.json", ("video_processor", "auto_map"), AUTO_MAP),
    ("preprocessor_config.json", ("auto_map",), AUTO_MAP),
    ("video_preprocessor_config.json", ("auto_map",), AUTO_MAP),
    ("tokenizer_config.json", ("auto_map",), ["evil.Made", None]),
    ("tokenizer_config.json", ("auto_map",), AUTO_MAP),
    ("special_tokens_map.json", ("auto_map",), AUTO_MAP),
    ("generation_config.json", ("custom_generate",), "owner/repository"),
    (CONFIG, ("custom_pipelines",), {"x": {"impl": "evil.Made"}}),
    (CONFIG, ("trust_remote_code",), True),
    (CONFIG, ("_attn_implementation",), KERNEL),
    (CONFIG, ("attn_implementation",), KERNEL),
    (CONFIG, ("_attn_implementation_internal",), KERNEL),
    (CONFIG, ("text_config", "_attn_implementation"), KERNEL),
    (CONFIG, ("vision_config", "_attn_implementation"), KERNEL),
    (CONFIG, ("_attn_implementation",), {"text_config": "sdpa", "vision_config": KERNEL}),
    (CONFIG, ("_attn_implementation",), "paged|flash_attention_2"),
    (CONFIG, ("_attn_implementation",), "flash_attention_3"),
    (CONFIG, ("_experts_implementation",), KERNEL),
    (CONFIG, ("use_kernels",), True),
    (CONFIG, ("kernel_config",), {"RMSNorm": "owner/kernel:RMSNorm"}),
    (CONFIG, ("quantization_config",), {"quant_method": "fp8"}),
    (CONFIG, ("text_config", "quantization_config"), {"quant_method": "gptq"}),
    ("processor_config.json", ("processor_class",), "LlavaProcessor"),
    ("tokenizer_config.json", ("tokenizer_class",), "EvilTokenizer"),
    ("processor_config.json", ("image_processor", "image_processor_type"), "EvilProcessor"),
    (
        "processor_config.json",
        ("audio_tokenizer",),
        {"audio_tokenizer_class": "DacModel", "audio_tokenizer_name_or_path": "owner/model"},
    ),
    (CONFIG, ("configuration_files",), ["config.4.0.0.json"]),
    (CONFIG, ("transformers_weights",), "other.safetensors"),
    ("tokenizer_config.json", ("fast_tokenizer_files",), ["tokenizer.4.0.0.json"]),
    ("tokenizer_config.json", ("tokenizer_file",), "/elsewhere/tokenizer.json"),
    ("tokenizer_config.json", ("vocab_file",), "/elsewhere/vocab.json"),
    ("tokenizer_config.json", ("merges_file",), "/elsewhere/merges.txt"),
    ("tokenizer_config.json", ("vocab",), "/elsewhere/vocab.json"),
    ("tokenizer_config.json", ("merges",), "/elsewhere/merges.txt"),
    ("tokenizer_config.json", ("init_inputs",), ["/elsewhere/vocab.json", "/elsewhere/m.txt"]),
    ("processor_config.json", ("tokenizer", "tokenizer_file"), "/elsewhere/tokenizer.json"),
    ("special_tokens_map.json", ("tokenizer_file",), "/elsewhere/tokenizer.json"),
    ("adapter/adapter_config.json", ("megatron_config",), {"tensor_model_parallel_size": 1}),
    ("adapter/adapter_config.json", ("megatron_core",), "evil"),
    ("adapter/adapter_config.json", ("auto_mapping",), {"parent_library": "evil"}),
    ("adapter/adapter_config.json", ("peft_type",), "PREFIX_TUNING"),
]


@pytest.fixture
def evil(plain, tmp_path, monkeypatch) -> Path:
    """A plain folder with modules that leave a mark, at every place where a library looks."""
    for name in ("evil.py", "custom_generate.py", "modeling.py"):
        (plain / name).write_text(CODE.format(mark=str(tmp_path / "ran")))
    monkeypatch.syspath_prepend(str(plain))  # the worst case: importable by its name
    # A question is answered with yes.
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    yield plain
    assert not (tmp_path / "ran").exists()
    assert sys.stdin.tell() == 0


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    HOSTILE,
    ids=[f"{f}:{'.'.join(k)}-{n}" for n, (f, k, _) in enumerate(HOSTILE)],
)
def test_a_folder_that_chooses_code_or_kernels_is_refused(evil, file, keys, value):
    """By every door, with file and key. Catches `auto_map`, for which the library asks "run the
    custom code? [y/N]" on the terminal, kernels of the hub, and what leads to other files.
    """
    changed(evil / file, *keys, value=value)
    for name, door in DOORS.items():
        with pytest.raises(ModelError) as error:
            door(evil)
        assert f"{evil / file}: {'.'.join(keys)}" in str(error.value), name
        assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("custom_generate/generate.py", "custom_generate/generate.py"),
        ("adapter_config.json", "adapter_config.json"),
        ("audio_tokenizer_config.json", "audio_tokenizer_config.json"),
        ("shard-00001-model-00001-of-00001.safetensors", "shard-00001"),
        ("adapter/adapter_model.bin", "adapter_model.bin"),
        ("tekken.json", "tekken.json"),
        ("tokenizer.model", "tokenizer.model"),
    ],
)
def test_a_file_that_a_library_takes_in_place_of_the_usual_ones_is_refused(evil, name, named):
    """Catches code of a name that the library knows, and weights that no check has seen."""
    (evil / name).parent.mkdir(exist_ok=True)
    (evil / name).write_text("{}" if name.endswith(".json") else "import evil")
    with pytest.raises(ModelError, match=named):
        LMME3DHF.from_pretrained(evil)


@pytest.mark.parametrize("key", ["tokenizer_object", "chat_template", "name_or_path", "backend"])
def test_a_map_of_special_tokens_holds_nothing_else(plain, key):
    """Catches an argument of the tokenizer that comes by a file which is for tokens."""
    changed(plain / "special_tokens_map.json", key, value="odd")
    with pytest.raises(ModelError, match=rf"special_tokens_map\.json: '{key}'"):
        load_processor(plain)


class Touching:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("indexed", [False, True])
def test_pickled_weights_are_never_read(evil, tmp_path, indexed):
    """Alone, or named by an index of safetensors. Catches `pytorch_model.bin`, which the library
    takes where there is nothing else.
    """
    (evil / "model.safetensors").unlink()
    torch.save({"a": Touching(tmp_path / "ran")}, evil / "pytorch_model.bin")
    if indexed:
        index = {"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model.bin"}}
        (evil / "model.safetensors.index.json").write_text(json.dumps(index))
    for door in DOORS.values():
        with pytest.raises(ModelError, match=r"pytorch_model\.bin.*safetensors"):
            door(evil)


@pytest.mark.parametrize(
    "name", ["../plain.safetensors", "/tmp/x.safetensors", "a/b.safetensors", 3]
)
def test_an_index_names_files_beside_it(plain, name):
    """Catches weights that are read from anywhere on the disk."""
    (plain / "model.safetensors").rename(plain.parent / "plain.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
    (plain / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"index\.json: names"):
        LMME3DHF.from_pretrained(plain)


@pytest.mark.parametrize(
    "content",
    [
        b"[1]",
        b"3",
        b"",
        b"{",
        b"\xff\xfe{\x00}\x00",
        b'{"a": "\xff"}',
        b"[" * 10**5,
        b'{"a":' * 10**5,
    ],
    ids=range(8),
)
@pytest.mark.parametrize("name", [CONFIG, "processor_config.json", "tokenizer_config.json"])
def test_odd_json_is_a_sentence(plain, name, content):
    """Catches a traceback of the JSON parser, or of whoever expects an object."""
    (plain / name).write_bytes(content)
    for door in (load_configuration, load_processor, LMME3DHF.from_pretrained):
        with pytest.raises(ModelError, match=name):
            door(plain)


def test_a_huge_configuration_is_not_read(plain):
    """Sparse: 40 GB on no disk. Catches a machine that runs out of memory before any message."""
    with (plain / CONFIG).open("r+b") as file:
        file.truncate(40 * 10**9)
    with pytest.raises(ModelError, match="40000000000 bytes"):
        load_configuration(plain)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("text_config",), [1]),
        (("text_config", "hidden_size"), "wide"),
        (("vision_config", "depth"), {}),
        (("text_config", "rope_parameters"), 3),
        (("id2label",), 3),
        (("metric",), 3),
        (("metric", "level_edges"), 3),
        (("metric", "saliency"), {"taps": 3}),
        (("metric", "level_token_ids"), [-1, 1, 2, 3, 4]),
        (("metric", "answer_prefix"), "{"),
        (("metric", "answer_prefix"), "{}"),
        (("metric", "answer_prefix"), "{dimension!r}"),
        (("metric", "answer_prefix"), "{dimension:>1000000000}"),
        (("metric", "answer_prefix"), "{dimension.__class__.__mro__}"),
        (("dtype",), [1]),
        (("dtype",), "evil"),
        (("dtype",), "nn"),
        (("odd",), nested(900)),
    ],
)
def test_a_value_of_another_type_is_a_sentence(plain, keys, value):
    """Catches the library's own errors, of which it has many."""
    changed(plain / CONFIG, *keys, value=value)
    with pytest.raises(ModelError):
        load_configuration(plain).get_metric()


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        (CONFIG, ("text_config", "hidden_act"), "evil/kernel"),
        (CONFIG, ("vision_config", "hidden_act"), "evil/kernel"),
        (CONFIG, ("text_config", "rope_parameters", "rope_type"), "evil"),
        (CONFIG, ("text_config", "vocab_size"), -4),
        (CONFIG, ("metric", "saliency"), {"width": -1}),
        (CONFIG, ("metric", "level_token_ids"), [10**9, 1, 2, 3, 4]),
        (CONFIG, ("metric", "head_widths"), [-1]),
        (CONFIG, ("metric", "head_widths"), ["x"]),
        (CONFIG, ("metric", "head_widths"), 3),
        (CONFIG, ("metric", "frames"), [1]),
        (CONFIG, ("metric", "frames"), {"fps": -1}),
        ("generation_config.json", ("pad_token_id",), "evil"),
        ("tokenizer.json", ("model",), {}),
    ],
)
def test_what_a_model_cannot_be_built_from_is_a_sentence(plain, file, keys, value):
    """Catches errors that the library has only when it builds the layers, the tokenizer or the
    scorer.
    """
    changed(plain / file, *keys, value=value)
    with pytest.raises(ModelError):
        Scorer.from_pretrained(plain)


def test_a_tower_that_cannot_be_built_is_a_sentence(plain):
    """Catches a door of its own."""
    changed(plain / CONFIG, "vision_config", "hidden_act", value="evil/kernel")
    with pytest.raises(ModelError, match="evil/kernel"):
        load_tower(plain, torch.float32, "sdpa")


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (("text_config",), "hidden_size.*language model"),
        (("text_config", "num_hidden_layers"), "num_hidden_layers.*language model"),
        (("vision_config",), "hidden_size.*vision tower"),
        ((), "regular file"),
    ],
)
def test_a_geometry_is_never_the_librarys_default(plain, keys, named):
    """Which is that of the 72B. Catches a machine that runs out of memory before any message."""
    content = json.loads((plain / CONFIG).read_text())
    if keys == ():
        (plain / CONFIG).unlink()
        os.mkfifo(plain / CONFIG)
    else:
        place = content
        for key in keys[:-1]:
            place = place[key]
        place.pop(keys[-1])
        content.setdefault(keys[0], {})
        (plain / CONFIG).write_text(json.dumps(content))
    for name in DOORS.keys() - {"hub"}:
        with pytest.raises(ModelError, match=named):
            DOORS[name](plain)


def test_the_hubs_snapshot_is_looked_at_too(hub, evil):
    """By each door that takes a name. Catches a check of local folders alone."""
    changed(evil / CONFIG, "auto_map", value=AUTO_MAP)
    hub.holds(NAME, {k: v for k, v in contents(evil).items() if not k.endswith(".py")})
    for door in (load_configuration, load_processor, LMME3DHF.from_pretrained, model_folder):
        with pytest.raises(ModelError, match=r"config\.json: auto_map"):
            door(NAME)


def test_an_adapter_beside_its_base_comes_from_the_hub(hub, evil):
    """Its two files and no other subfolder's. Catches a model without its adapter, and one that
    brings code with it.
    """
    files = {k: v for k, v in contents(evil).items() if not k.endswith(".py")}
    good = json.dumps({"peft_type": "LORA", "auto_mapping": None, "megatron_core": "megatron.core"})
    below = {
        "adapter/adapter_config.json": good.encode(),
        "adapter/adapter_model.safetensors": b"x",
        "checkpoint-5/adapter_model.safetensors": b"x",
        "adapter/optimizer.safetensors": b"x",
        "other/model.safetensors": b"x",
    }
    hub.holds(NAME, {**files, **below})
    folder = model_folder(NAME)
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {*files, "adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    bad = json.dumps({"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "evil"})
    hub.holds(NAME, {**files, **below, "adapter/adapter_config.json": bad.encode()})
    with pytest.raises(ModelError, match=r"adapter_config\.json: megatron_"):
        model_folder(NAME)


# Ordinary fine-tunes


@pytest.fixture
def fine_tune(plain, monkeypatch) -> Path:
    """With what ms-swift, LLaMA-Factory and unsloth add, and what the published one holds."""
    monkeypatch.setattr(configuration, "_name_ignored", configuration._name_ignored.__wrapped__)
    more = {
        "unsloth_version": "2025.9.1",
        "unsloth_fixed": True,
        "use_cache": False,
        "sliding_window": 32768,
        "torch_dtype": "float32",
        "vision_token_id": 151654,
        "_attn_implementation_autoset": True,
        "attn_implementation": None,
        "quantization_config": None,
        "keys_to_ignore_at_inference": ["past_key_values"],
        "pad_token_id": 0,
        "temperature": 0.1,
    }
    for key, value in more.items():
        changed(plain / CONFIG, key, value=value)
    changed(plain / CONFIG, "vision_config", "in_chans", value=3)
    changed(plain / CONFIG, "vision_config", "spatial_patch_size", value=14)
    changed(plain / CONFIG, "text_config", "_name_or_path", value="somewhere")
    changed(plain / CONFIG, "text_config", "odd_key", value=1)
    changed(plain / "tokenizer_config.json", "auto_map", value={})
    # What earlier versions of the library wrote.
    changed(plain / "tokenizer_config.json", "tokenizer_file", value=None)
    changed(plain / "tokenizer_config.json", "special_tokens_map_file", value="/old/map.json")
    changed(plain / "tokenizer_config.json", "name_or_path", value="/old/model")
    changed(plain / "tokenizer_config.json", "init_inputs", value=[])
    pad = {"content": "<|endoftext|>", "lstrip": False, "normalized": False, "rstrip": False}
    changed(plain / "special_tokens_map.json", "pad_token", value={**pad, "single_word": False})
    changed(plain / "special_tokens_map.json", "additional_special_tokens", value=["<|im_start|>"])
    changed(plain / "generation_config.json", "attn_implementation", value="flash_attention_2")
    (plain / "training_args.bin").write_bytes(b"pickle")
    (plain / "trainer_state.json").write_text("{}")
    (plain / "train.py").write_text("raise SystemExit")
    return plain


def test_a_fine_tune_with_keys_of_its_own_loads(fine_tune, tiny_folder, capsys):
    """With the weights of the base. Its unknown keys are named on one line, and only those.
    Catches a refusal of harmless keys, and one that replaces a method.
    """
    model = LMME3DHF.from_pretrained(fine_tune)
    assert load_processor(fine_tune).tokenizer.pad_token_id is not None
    base = LMME3DHF.from_pretrained(tiny_folder).model.state_dict()
    state = model.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.items())
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("config.json: ")]
    assert len(set(lines)) == 1
    named = lines[0].removeprefix("config.json: ").split(" unknown")[0].split(", ")
    assert sorted(named) == [
        "keys_to_ignore_at_inference",
        "text_config.odd_key",
        "unsloth_fixed",
        "unsloth_version",
    ]


def test_a_key_with_the_name_of_a_method_replaces_none(plain):
    """Catches a configuration that cannot be saved any more, with a traceback."""
    for name in ("to_dict", "get_metric", "__class__", "__init__"):
        changed(plain / CONFIG, name, value="no method")
    assert load_configuration(plain).to_dict()["model_type"] == "qwen2_5_vl"
    assert load_processor(plain).tokenizer.vocab_size


def test_unknown_keys_are_shown_without_controls(plain, capsys, monkeypatch):
    """Catches a folder that writes to the terminal what it likes."""
    monkeypatch.setattr(configuration, "_name_ignored", configuration._name_ignored.__wrapped__)
    changed(plain / CONFIG, "odd\x1b[2J\nlmme3dhf: done", value=1)
    load_configuration(plain)
    text = capsys.readouterr().err
    assert "odd⟨U+001B⟩" in text
    assert "\x1b" not in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "key", "value", "named"),
    [
        (CONFIG, "quantization_config", {"quant_method": "awq"}, "quantised weights"),
        (
            "preprocessor_config.json",
            "image_processor_type",
            "Qwen2_5_VLImageProcessor",
            "write Qwen2VLImageProcessor",
        ),
    ],
)
def test_a_refusal_names_what_helps(plain, file, key, value, named):
    """Catches the advice to delete what the model needs."""
    changed(plain / file, key, value=value)
    with pytest.raises(ModelError, match=named):
        check_folder(plain)


def test_a_model_without_a_manifest_is_not_compared(plain, capsys):
    """Catches its weights and settings taken for clips that cannot be decoded."""
    assert main(["verify", str(plain)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_configuration_of_ours_has_no_unknown_keys(published, tiny_folder, capsys, monkeypatch):
    """Catches a line at every start."""
    monkeypatch.setattr(configuration, "_name_ignored", configuration._name_ignored.__wrapped__)
    root = Path(__file__).resolve().parents[2]
    for folder in (published, tiny_folder, root / "lmme3dhf" / "models" / "tiny_base"):
        load_configuration(folder)
    assert "unknown" not in capsys.readouterr().err


TEMPLATE = "chat_template.jinja"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        (TEMPLATE, None),
        (TEMPLATE, "{% for"),
        (TEMPLATE, "{{ ''.__class__.__mro__ }}"),
        (TEMPLATE, "{{ 1 / 0 }}"),
        (TEMPLATE, "no question"),
        (TEMPLATE, "<|im_start|>{{ messages[0].content[1].text }}<|im_end|>"),
    ],
)
def test_a_tokenizer_that_encodes_no_question_is_a_sentence(merged, name, content):
    """Before the first clip. Catches a traceback of Jinja, or about replies, while scoring."""
    (merged / name).unlink()
    if content is not None:
        (merged / name).write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json and chat_template\.jinja"):
        Scorer.from_pretrained(merged, verify=False)


def test_a_template_of_the_processor_alone_is_taken(plain):
    """As early fine-tunes have it. Catches a folder that cannot be asked anything."""
    first = DialogueEncoder(load_processor(plain).tokenizer).encode("How good?")
    template = (plain / TEMPLATE).read_text()
    (plain / TEMPLATE).unlink()
    changed(plain / "chat_template.json", "chat_template", value=template)
    assert DialogueEncoder(load_processor(plain).tokenizer).encode("How good?") == first


# Other architectures


@pytest.mark.parametrize(
    "model_type", ["qwen2_vl", "qwen3_vl", "llava", "qwen2_5_vl_text", "qwen2", None, 3, ""]
)
def test_another_architecture_is_refused_before_its_weights(plain, tmp_path, model_type):
    """At every door, by its name. The weights are no weights, so whoever reads them says something
    else. Catches a page of missing and left-over tensors after minutes.
    """
    changed(plain / CONFIG, "model_type", value=model_type)
    (plain / "model.safetensors").write_bytes(b"no weights")
    doors = dict(DOORS)
    for name, door in doors.items():
        with pytest.raises(ModelError, match=r"model_type.*Qwen2\.5-VL") as error:
            door(plain)
        assert not model_type or repr(model_type) in str(error.value), name


@pytest.mark.parametrize(
    "words",
    [
        ["score", "clip.mp4", "--out", "scores.csv"],
        ["predict", "--data", "LIST", "--out", "p.jsonl"],
        ["train", "text", "--out", "run"],
        ["train", "score", "--out", "run"],
        ["train", "saliency", "--out", "run"],
        ["data", "features"],
    ],
)
def test_every_command_refuses_another_architecture(
    plain, tmp_path, data_root, monkeypatch, capsys, words
):
    """With status 1 and a sentence. Catches a command with a door of its own."""
    changed(plain / CONFIG, "model_type", value="llava")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    listed = str(data_root / "numerical" / "eval_quality.json")
    words = [listed if word == "LIST" else word for word in words]
    assert main([*words, "--model", str(plain)]) == 1
    text = capsys.readouterr().err
    assert "model_type 'llava'" in text
    assert "Traceback" not in text


def test_doctor_names_another_architecture(plain, capsys):
    """Catches a folder that is called good and refused at its first use."""
    changed(plain / CONFIG, "model_type", value="llava")
    main(["doctor", "--model", str(plain)])
    assert "model_type 'llava'" in capsys.readouterr().out


# Damage


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def appended(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def exchanged(path: Path) -> None:
    """Another good file of its kind in its place."""
    others = [p for p in path.parent.iterdir() if p.suffix == path.suffix and p != path]
    other = others[0].read_bytes() if others else path.read_bytes()[::-1]
    path.write_bytes(other)


def features(config: Config, run: Path) -> None:
    """`lmme3dhf data features`."""
    fill_stores(config, verify=False)


def test_every_damage_of_a_model_folder_is_seen(merged):
    """Every file, in five ways; by its name. 77 of 110 such folders were scored with. Catches a
    file that is in no manifest, and a damage that only sizes would show.
    """
    looked_at = 0
    listed = json.loads((merged / MANIFEST).read_text())["files"]
    for path in (merged / name for name in listed):
        whole = path.read_bytes()
        for spoil in (flipped, truncated, appended, exchanged, Path.unlink):
            spoil(path)
            wrong = model_damage(merged)
            assert wrong, (path.name, spoil)
            assert path.name in wrong
            path.write_bytes(whole)
            looked_at += 1
        assert model_damage(merged) is None
    assert looked_at >= 50
    whole = (merged / MANIFEST).read_bytes()
    for content in (
        whole[: len(whole) // 2],
        whole.replace(b'"sha256": "', b'"sha256": "0'),
        b"{}",
    ):
        (merged / MANIFEST).write_bytes(content)
        assert model_damage(merged)
    (merged / MANIFEST).unlink()
    assert "manifest" in model_damage(merged)
    (merged / MANIFEST).mkdir()
    assert "manifest" in model_damage(merged)


@pytest.fixture(scope="module")
def kept(tiny_folder, processor, tmp_path_factory) -> Path:
    """A merged folder whose adapter stays beside the weights; shared."""
    root = tmp_path_factory.mktemp("kept")
    adapted = add_adapters(
        load_with_head(tiny_folder),
        rank=4,
        alpha=8,
        dropout=0.0,
        language=True,
        vision=False,
        heads=("score",),
    )
    adapted.save_pretrained(root / "run")
    probe = batch_of(processor, made_case(processor, 0))
    metric = MetricConfig.from_dict({"level_token_ids": [5, 4, 3, 2, 1]})
    merge_adapter(
        tiny_folder, root / "run", root / "model", metric, [probe], torch.float32, form="adapter"
    )
    return root / "model"


def test_the_adapter_beside_the_weights_is_part_of_the_model(kept, hub, tmp_path):
    """Its files are in the manifest and the key, and go to the hub and back. Catches a check that
    stops at the top of the folder, and half a model from the hub.
    """
    folder = copied(kept, tmp_path / "model")
    first = model_hash(folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        for spoil in (flipped, truncated, appended, Path.unlink):
            whole = (folder / "adapter" / name).read_bytes()
            spoil(folder / "adapter" / name)
            assert f"adapter/{name}" in model_damage(folder)
            assert model_hash(folder) != first
            with pytest.raises(ModelError, match=name):
                Scorer.from_pretrained(folder)
            (folder / "adapter" / name).write_bytes(whole)
    assert model_damage(folder) is None
    push_to_hub(folder, NAME)
    fetched = model_folder(NAME)
    assert fetched != folder
    assert model_damage(fetched) is None
    assert model_hash(fetched) == first


@pytest.mark.parametrize(
    "name",
    [
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.json",
        "additional_chat_templates/tool.jinja",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    ],
)
def test_a_file_that_was_added_and_would_be_read_is_damage(merged, name):
    """Catches other weights, tokens or templates beside a manifest that is kept."""
    (merged / name).parent.mkdir(exist_ok=True)
    (merged / name).write_text("{}")
    assert f"{name} was not there" in model_damage(merged)


def test_a_manifest_without_the_configuration_hides_no_added_file(merged):
    """Catches a model that is taken for a run, whose other files nobody reads."""
    content = json.loads((merged / MANIFEST).read_text())
    del content["files"][CONFIG]
    (merged / MANIFEST).write_text(json.dumps(content))
    assert f"{CONFIG} was not there" in model_damage(merged)


def test_an_edited_text_stops_no_model(merged, capsys):
    """Nor does one that is gone; the command `verify` names it. Catches a page whose author cannot
    add a sentence.
    """
    appended(merged / "README.md")
    verify_folder(merged)
    assert "README.md" in model_damage(merged)
    assert main(["verify", str(merged)]) == 3
    assert "README.md" in capsys.readouterr().out
    (merged / "README.md").unlink()
    verify_folder(merged)
    appended(merged / "metric.json")
    with pytest.raises(ModelError, match=r"metric\.json"):
        verify_folder(merged)


def test_a_file_that_nobody_reads_is_no_damage(merged, plain):
    """Notes, pictures, results. And a plain base has no manifest to compare it with."""
    (merged / "notes.txt").write_text("mine")
    (merged / "results").mkdir()
    (merged / "results" / "scores.json").write_text("{}")
    assert model_damage(merged) is None
    assert model_damage(plain) is None
    flipped(plain / "model.safetensors")
    assert model_damage(plain) is None


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("model.safetensors", flipped),
        ("processor_config.json", appended),
        ("tokenizer.json", flipped),
        ("chat_template.jinja", truncated),
        ("generation_config.json", Path.unlink),
        (MANIFEST, Path.unlink),
    ],
)
def test_a_damaged_model_scores_nothing(merged, tmp_path, capsys, monkeypatch, name, spoil):
    """By the API and the command; unless the check is skipped, where the loader takes it. Catches
    other scores under the same name.
    """
    spoil(merged / name)
    with pytest.raises(
        ModelError, match=name.replace(".", r"\.") if name != MANIFEST else "manifest"
    ):
        Scorer.from_pretrained(merged)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    words = ["score", "clip.mp4", "--out", "scores.csv", "--model", str(merged)]
    assert main(words) == 1
    assert "verify" in capsys.readouterr().err
    if name != "tokenizer.json":
        Scorer.from_pretrained(merged, verify=False)
        assert main([*words, "--verify", "false"]) == 3  # the clip is empty


@pytest.mark.parametrize("start", [train_text, train_score, train_saliency, features])
@pytest.mark.parametrize("verify", [True, False])
def test_no_stage_starts_from_a_damaged_model(merged, stage_config, tmp_path, start, verify):
    """One bit of the weights. Without the check the stage goes on to its data, which lacks lists or
    clips. Catches a stage that trains on, and merges with status 0.
    """
    flipped(merged / "model.safetensors")
    config = replace(stage_config, model=str(merged), verify=verify)
    with pytest.raises(ModelError if verify else DataError) as error:
        start(config, tmp_path / "run")
    assert ("model.safetensors" in str(error.value)) == verify
    assert not verify or not (tmp_path / "run").exists()


def permuted(folder: Path) -> None:
    """Exchanges the ids of two words of the tokenizer."""
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    one, two = list(vocabulary)[5:7]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def test_a_base_whose_tokenizer_changed_is_not_merged_into(stage_run, plain, tmp_path):
    """Between training and merging. Catches a "verified" model that reads other words."""
    run = copied(stage_run, tmp_path / "run")
    changed(run / "run.json", "model", value=str(plain))
    finish_run(run)
    assert merge_run(run, tmp_path / "first")["already"] is False
    permuted(plain)
    for verify in (True, False):
        with pytest.raises(TrainingError, match="not the model that was trained on"):
            merge_run(run, tmp_path / "second", verify=verify)
    assert not (tmp_path / "second").exists()


def test_a_run_of_an_earlier_version_is_merged_when_asked_to(stage_run, tmp_path):
    """Its recorded hash of the base is of another kind. Catches a finished run that nothing can
    make a model of, and a base that is taken without a word.
    """
    run = copied(stage_run, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["model_sha256"] = "0" * 64
    del record["model_key"]
    (run / "run.json").write_text(json.dumps(record))
    finish_run(run)
    with pytest.raises(TrainingError, match="--verify false"):
        merge_run(run, tmp_path / "out")
    assert merge_run(run, tmp_path / "out", verify=False)["already"] is False
    with pytest.raises(TrainingError, match="its run"):
        merge_run(tmp_path / "out")


def test_a_damaged_base_is_not_merged_into(stage_run, published, tmp_path):
    """Also where no score depends on the file. Catches damage that a merge hands on as whole."""
    base, run = copied(published, tmp_path / "base"), copied(stage_run, tmp_path / "run")
    changed(run / "run.json", "model", value=str(base))
    changed(run / "run.json", "model_key", value=model_hash(base))
    finish_run(run)
    appended(base / "generation_config.json")
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        merge_run(run, tmp_path / "out")
    merge_run(run, tmp_path / "out", verify=False)


def test_a_base_that_was_moved_is_given(stage_run, plain, published, tmp_path):
    """Catches a finished run that cannot be merged on another machine, and one that is merged into
    any folder that is given.
    """
    run = copied(stage_run, tmp_path / "run")
    changed(run / "run.json", "model", value=str(tmp_path / "gone"))
    finish_run(run)
    for base in (None, published):
        with pytest.raises(TrainingError, match="--base"):
            merge_run(run, tmp_path / "out", base=base)
    assert main(["merge", str(run), "--out", str(tmp_path / "out"), "--base", str(plain)]) == 0


def test_an_adapter_that_chooses_code_is_not_merged(stage_run, tmp_path):
    """peft imports the module that `megatron_core` names. Catches a run folder from a stranger."""
    run = copied(stage_run, tmp_path / "run")
    changed(run / "adapter" / "adapter_config.json", "megatron_core", value="evil")
    finish_run(run)
    with pytest.raises(ModelError, match="megatron_core"):
        merge_run(run, tmp_path / "out")


def test_a_second_start_reads_nothing(merged, read):
    """The weights of a 7B are 16 GB. Catches a start that hashes them each time, and a check and a
    key that hash them twice.
    """
    verify_folder(merged)
    model_hash(merged)
    listed = json.loads((merged / MANIFEST).read_text())["files"]
    assert sorted(read) == sorted(listed.keys() - {"README.md"})
    verify_folder(merged)
    model_hash(merged)
    assert len(read) == len(set(read))


# The key


def test_the_key_is_that_of_the_files_that_decide_a_score(merged, read):
    """Catches a hash of names, and one that leaves out the processor (another `image_mean` is
    another score), the tokenizer, a template or an adapter.
    """
    first, seen = model_hash(merged), set()
    for name in (
        CONFIG,
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ):
        whole = (merged / name).read_bytes()
        appended(merged / name)
        seen.add(model_hash(merged))
        (merged / name).write_bytes(whole)
    assert len(seen | {first}) == 7
    assert model_hash(merged) == first
    for name in (
        "preprocessor_config.json",
        "added_tokens.json",
        "vocab.json",
        "chat_template.json",
    ):
        (merged / name).write_text("{}")
        seen.add(model_hash(merged))
        (merged / name).unlink()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (merged / "adapter").mkdir(exist_ok=True)
        (merged / "adapter" / name).write_text("{}")
        seen.add(model_hash(merged))
    assert len(seen | {first}) == 13


def test_the_key_does_not_depend_on_how_a_folder_came(merged, tmp_path):
    """Without card, manifest and report, with notes, and with weights that no loader reads. Catches
    a model that becomes another one when it is fetched from elsewhere: a run would refuse it.
    """
    first = model_hash(merged)
    for name in (
        "README.md",
        "card.json",
        "metric.json",
        REPORT,
        MANIFEST,
        "generation_config.json",
    ):
        (merged / name).unlink()
        assert model_hash(merged) == first
    (merged / "notes.txt").write_text("mine")
    (merged / "consolidated.safetensors").write_bytes(b"x")
    (merged / "README.md").write_text("another page")
    assert model_hash(merged) == first
    assert model_hash(copied(merged, tmp_path / "elsewhere")) == first


def test_the_key_of_shards_is_that_of_the_shards(merged):
    """Catches weights in several files of which one is left out."""
    tensors = load_file(merged / "model.safetensors")
    names = sorted(tensors)
    (merged / "model.safetensors").unlink()
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for part, own in parts.items():
        save_file({n: tensors[n] for n in own}, merged / part, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: part for part, own in parts.items() for n in own}}
    (merged / "model.safetensors.index.json").write_text(json.dumps(index))
    assert model_damage(merged)
    first = model_hash(merged)
    flipped(merged / "two.safetensors")
    assert model_hash(merged) != first


@pytest.mark.parametrize("section", [(), ("text_config",), ("vision_config",)])
@pytest.mark.parametrize(
    "key", ["_attn_implementation", "attn_implementation", "_attn_implementation_internal"]
)
def test_the_folders_attention_has_no_effect(plain, section, key):
    """At the doors that build something, with what the library itself writes. Catches a refusal of
    fine-tunes, and a kernel that is imported or fetched since the folder names it.
    """
    names = ("flash_attention_2", {"": "flash_attention_2"}, ["eager"])
    for name in names if not section else names[:1]:
        changed(plain / CONFIG, *section, key, value=name)
        for config in (
            load_model(plain, device="cpu").config,
            LMME3DHF.from_pretrained(plain).config,
            load_tower(plain, torch.float32, "sdpa").config,
        ):
            assert config._attn_implementation == "sdpa"
            for nested in config.sub_configs:
                assert getattr(config, nested)._attn_implementation == "sdpa"


def test_a_folder_is_looked_at_without_torch():
    """Catches a refusal that takes the seconds of an import."""
    heavy = "[m for m in ('torch', 'transformers') if m in sys.modules]"
    code = f"import sys, lmme3dhf.models.folder; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
