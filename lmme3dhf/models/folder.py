"""What a model folder may hold: nothing that runs code, one architecture, and every file as it was
written. Looked at before any library reads the folder; runs without torch.

Also here: which files of a folder are read, and the one hash of those that decide a score.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.errors import UserError
from lmme3dhf.files import MANIFEST, Hashes, damage

CONFIGURATION, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIGURATION, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER = "adapter"  # subfolder of a folder whose adapter stays beside its base
REPORT = "merge_report.json"  # in every folder that a merge wrote
MODEL_TYPE = "qwen2_5_vl"

_GENERATION = "generation_config.json"
_TOKENS = "special_tokens_map.json"
_JSON = (
    CONFIGURATION,
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer_config.json",
    _TOKENS,
    "added_tokens.json",
    "chat_template.json",
)
# Files that the libraries read by their names; `*` stands for the additional templates.
_READ = (
    *_JSON,
    f"{ADAPTER}/{ADAPTER_CONFIGURATION}",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)
# Files that a library takes in place of the usual ones, or runs.
_UNEXPECTED = (
    *("shard-*.safetensors", "audio_tokenizer_config.json", "custom_generate/generate.py"),
    *("tekken.json", "tokenizer.model*", "tiktoken.model"),
)
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_TEXTS = ("README.md", "LICENSE*")  # decide nothing
_MOST_BYTES = 32 * 10**6  # of a configuration; real ones have some 10 kB

_ATTENTION = ("eager", "sdpa", "flash_attention_2")
_IMAGES = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil")
# Key -> values that are let through. None, false and what is empty always are: they choose nothing.
_ALLOWED: dict[str, tuple[str, ...]] = {
    # Another module of the folder, or of some repository.
    "auto_map": (),
    "custom_generate": (),
    "custom_pipelines": (),
    "trust_remote_code": (),
    "auto_mapping": ("LMME3DHF", "lmme3dhf.models.modeling"),  # as peft writes for our class
    "megatron_config": (),
    "megatron_core": ("megatron.core",),
    "peft_type": ("LORA",),
    # Kernels, which are fetched and loaded.
    "attn_implementation": _ATTENTION,
    "_attn_implementation": _ATTENTION,
    "_attn_implementation_internal": _ATTENTION,
    "experts_implementation": ("eager",),
    "_experts_implementation": ("eager",),
    "_experts_implementation_internal": ("eager",),
    "use_kernels": (),
    "_use_kernels": (),
    "kernel_config": (),
    "quantization_config": (),
    "compression_config": (),
    # Classes of the library that load further models or formats.
    "processor_class": ("Qwen2_5_VLProcessor", "Qwen2VLProcessor"),
    "tokenizer_class": (
        "Qwen2Tokenizer",
        "Qwen2TokenizerFast",
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
    ),
    "image_processor_type": _IMAGES,
    "feature_extractor_type": _IMAGES,
    "video_processor_type": ("Qwen2VLVideoProcessor",),
    "audio_tokenizer": (),
    # Other files in place of the usual ones.
    "configuration_files": (),
    "fast_tokenizer_files": (),
    "transformers_weights": (),
    "gguf_file": (),
    "tokenizer_file": (),
    "vocab_file": (),
    "merges_file": (),
    "spm_file": (),
    "vocab": (),
    "merges": (),
    "init_inputs": (),  # a tokenizer's arguments, such as those two
}
_IMAGES_FIX = f"write {_IMAGES[0]} there, which a Qwen2.5-VL has"
# Key -> what helps where deleting it does not.
_WAYS_ON = {
    "quantization_config": "quantised weights are not read: give the folder of the unquantised "
    "model (--load 4bit or 8bit quantises it)",
    "image_processor_type": _IMAGES_FIX,
    "feature_extractor_type": _IMAGES_FIX,
}


class ModelError(UserError, ValueError):
    """A model folder or configuration that cannot be used."""


def check_folder(folder: Path) -> None:
    """Refuses a folder that could run code or choose kernels, or is of another architecture.

    Reads its small JSON files and the names of the others, no weights. What is missing is left to
    the loader's own message.

    Raises:
        ModelError: With file, key, and what to do.
    """
    _refuse_unmerged(folder)
    for name in (*_JSON, _GENERATION):
        if (folder / name).is_file():
            content = _read_object(folder / name)
            _check_keys(folder / name, content)
            if name == CONFIGURATION:
                _check_architecture(folder, content)
            if name == _TOKENS:
                _check_tokens(folder / name, content)
    _check_files(folder)
    _check_pickled(folder, weight_files(folder))
    check_adapter(folder / ADAPTER)


def check_texts(folder: Path) -> None:
    """Refuses a tokenizer or chat template that is damaged: for a library's errors, which name no
    file.

    Raises:
        ModelError: With the file.
    """
    for path in _files(folder, ("tokenizer.json", "vocab.json")):
        _read_object(path)
    for path in _files(folder, ("merges.txt", "*.jinja")):
        try:
            path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(f"{path}: not UTF-8 ({error.reason}); fetch it again") from error


def check_adapter(folder: Path) -> None:
    """Refuses an adapter's folder that could run code, before peft reads it.

    Raises:
        ModelError: With file, key, and what to do.
    """
    path = folder / ADAPTER_CONFIGURATION
    if path.is_file():
        _check_keys(path, _read_object(path))
    _check_pickled(folder, [ADAPTER_WEIGHTS])


def weight_files(folder: Path) -> list[str]:
    """Names of the weights that the library reads: `model.safetensors`, or else the shards of its
    index; empty where there is neither.

    Raises:
        ModelError: The index is damaged, or names something other than safetensors beside it.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [WEIGHTS] if (folder / WEIGHTS).is_file() else []
    places = _read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{index}: not an index of weights (no weight_map); fetch it again")
    for name in places.values():
        plain = isinstance(name, str) and Path(name).name == name and "\\" not in name
        if not plain or not name.endswith(".safetensors"):
            raise ModelError(
                f"{index}: names {_shown(name)}, expected safetensors files beside it; only those "
                "are read. Fetch the folder again from its source"
            )
    return sorted(set(places.values()))


def model_hash(folder: Path) -> str:
    """One hash for all of a model folder that decides a score: its configuration, weights, adapter,
    processors, tokenizer and chat templates, each by name and SHA-256.

    Other files (card, manifest, generation settings) do not matter. Of the generation settings
    `eos_token_id` ends replies that are written, so these may differ under one key; scores do not.
    Hashes of the files are remembered between runs, see `files.Hashes`.

    Raises:
        ModelError: There is no `config.json`, or the index of the weights is damaged.
        OSError: A file cannot be read.
    """
    if not (folder / CONFIGURATION).is_file():
        raise ModelError(f"{folder}: no {CONFIGURATION}; give a model folder")
    names = {path.relative_to(folder).as_posix() for path in _files(folder, _READ)}
    weights = (*weight_files(folder), f"{ADAPTER}/{ADAPTER_WEIGHTS}")
    names |= {name for name in weights if (folder / name).is_file()}
    hashes = Hashes().of(folder / name for name in sorted(names))
    lines = [f"{path.relative_to(folder).as_posix()} {sha256}\n" for path, sha256 in hashes.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def model_damage(
    folder: Path, hashes: Hashes | None = None, *, ignored: Sequence[str] = ()
) -> str | None:
    """What is wrong with a model folder that a merge wrote, or None: every file is as its manifest
    says, and a library would read no other.

    Args:
        folder: The folder. One that nothing marks as merged has no manifest, so nothing is known of
            it and nothing is wrong.
        hashes: As in `files.damage`.
        ignored: Likewise.
    """
    if not (folder / MANIFEST).exists() and not (folder / REPORT).is_file():
        return None
    if wrong := damage(folder, hashes, ignored=ignored):
        return wrong
    listed = json.loads((folder / MANIFEST).read_bytes())["files"]
    if not (folder / CONFIGURATION).is_file():
        return None  # a run, not a model
    readable = (*_READ, _GENERATION, INDEX, "*.safetensors", f"{ADAPTER}/*")
    for path in _files(folder, readable):
        name = path.relative_to(folder).as_posix()
        if name not in listed:
            return f"{name} was not there when it was written, and would be read"
    return None


def verify_folder(folder: Path) -> None:
    """Compares a model folder with its manifest; a folder without one passes. Hashes of files that
    have not changed since they were last read are remembered (see `files.Hashes`). Texts for
    readers (README.md, LICENSE) may be edited.

    Raises:
        ModelError: Naming the first file that is not as it was written.
    """
    if wrong := model_damage(folder, Hashes(), ignored=_TEXTS):
        raise ModelError(
            f"{folder}: not as it was written: {wrong}; copy or fetch it again, or merge its run "
            "again (--verify false, or verify=False, takes it as it is)"
        )


def _refuse_unmerged(folder: Path) -> None:
    """Says what to give in place of an adapter, an unmerged run, or a folder around the model."""
    if (folder / CONFIGURATION).is_file():
        return
    if (folder / ADAPTER_CONFIGURATION).is_file():
        raise ModelError(
            f"{folder}: a LoRA adapter, which is no model alone; merge its training run (lmme3dhf "
            "merge RUN) and give the folder merged/ in it"
        )
    for finished in ("merged", "model"):
        if (folder / finished / CONFIGURATION).is_file():
            raise ModelError(
                f"{folder}: the model lies in a folder in it; give {folder / finished}"
            )
    if (folder / "run.json").is_file():
        raise ModelError(
            f"{folder}: a training run that is not merged; lmme3dhf merge {folder} makes the model "
            f"{folder / 'merged'}"
        )


def _files(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(path for path in folder.glob(pattern) if path.is_file())


def _read_object(path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise ModelError(
            f"{path}: {size} bytes, expected a configuration of at most {_MOST_BYTES}; fetch it "
            "again"
        )
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: not JSON in UTF-8 ({reason}); fetch it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, got {_shown(content)}; fetch it again")
    return content


def _check_architecture(folder: Path, configuration: dict[str, Any]) -> None:
    found = configuration.get("model_type")
    if found != MODEL_TYPE:
        says = f"says model_type {_shown(found)}" if found else "has no model_type"
        raise ModelError(
            f"{folder / CONFIGURATION}: {says}, expected {MODEL_TYPE}: only a Qwen2.5-VL can be "
            "loaded, such as Qwen/Qwen2.5-VL-7B-Instruct, or a model of this project"
        )


def _check_tokens(path: Path, content: dict[str, Any]) -> None:
    """Refuses all but tokens: the library takes every key for an argument of the tokenizer."""
    for key in content:
        if not key.endswith(("_token", "_special_tokens")):
            raise ModelError(
                f"{path}: {_shown(key)} is no special token, and would be an argument of the "
                "tokenizer; delete it there"
            )


def _check_keys(path: Path, content: dict[str, Any]) -> None:
    """Refuses what chooses code, kernels or other files, at any depth."""
    for place, key, value in _entries(content):
        allowed = _ALLOWED.get(key)
        chosen = [] if allowed is None else [v for v in _leaves(value) if v not in allowed]
        if not chosen:
            continue
        instead = f"only {', '.join(allowed)} can be" if allowed else "nothing is"
        way_on = _WAYS_ON.get(
            key, f"delete {key} there if the model needs no such thing, or take another model"
        )
        raise ModelError(
            f"{path}: {place} ({_shown(chosen[0])}) chooses code, kernels or files to load, and "
            f"{instead} chosen by a model folder; {way_on}"
        )


def _entries(content: Any) -> Iterator[tuple[str, Any, Any]]:
    """Place ("text_config.dtype"), key and value of everything in nested JSON."""
    waiting = [("", content)]
    while waiting:
        where, container = waiting.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            place = f"{where}.{key}" if where else str(key)
            yield place, key, value
            if isinstance(value, dict | list):
                waiting.append((place, value))


def _leaves(value: Any) -> list[Any]:
    """What a value chooses, wherever it is in it: everything but null, false and the empty."""
    if isinstance(value, dict | list):
        found = [leaf for _, _, leaf in _entries(value) if not isinstance(leaf, dict | list)]
    else:
        found = [value]
    return [leaf for leaf in found if leaf not in (None, False, "")]


def _check_files(folder: Path) -> None:
    """Refuses files that a library would load or run though no Qwen2.5-VL has them."""
    if (folder / CONFIGURATION).is_file() and (folder / ADAPTER_CONFIGURATION).exists():
        raise ModelError(
            f"{folder / ADAPTER_CONFIGURATION}: a LoRA adapter at the top of a model folder would "
            f"be loaded with it, unverified; move its files away (those of a folder of ours lie in "
            f"{ADAPTER}/)"
        )
    unexpected = [path for pattern in _UNEXPECTED for path in sorted(folder.glob(pattern))]
    if unexpected:
        raise ModelError(
            f"{unexpected[0]}: no file of a Qwen2.5-VL, and a library would load it in place of "
            "the usual ones; delete it if the model needs no such thing, or take another"
        )


def _check_pickled(folder: Path, weights: list[str]) -> None:
    """Refuses a folder with pickled weights and no others."""
    found = sorted(path.name for path in folder.glob("*") if path.suffix in _PICKLED)
    pickled = [name for name in found if name != "training_args.bin"]
    if pickled and not any((folder / name).is_file() for name in weights):
        raise ModelError(pickled_refusal(str(folder), pickled[0]))


def pickled_refusal(what: str, name: str | None) -> str:
    """The sentence for a folder or repository without safetensors.

    Args:
        what: The folder or repository.
        name: Its pickled weights; None where there are no weights at all.
    """
    found = f"its weights are {name}, and" if name else "it has no weights;"
    return (
        f"{what}: {found} only safetensors are read (other files may run code); convert it with "
        "transformers (from_pretrained, then save_pretrained) into a local folder and give that"
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def current_section(section: dict[str, Any]) -> dict[str, Any]:
    """The section `metric` of a config.json as this version writes it, from that of any version:
    earlier ones had one head and Gen3DHF's two aspects, in keys of their own. Aspects and heads
    come as mappings, in the order of the file.
    """
    values = dict(section)
    for key in ("aspects", "heads"):
        if isinstance(given := values.get(key), list):
            named = [dict(entry) for entry in given]
            values[key] = {str(entry.pop("name", None)): entry for entry in named}
    old = {
        key: values.pop(key)
        for key in ("head", "head_widths", "read", "answer_prefix", "level_token_ids")
        if key in values
    }
    edges = values.pop("level_edges", None) or {}
    if not old and not edges:
        return values
    prefix, aspects = old.get("answer_prefix"), {}
    for name, aspect in GEN3DHF.items():
        aspects[name] = aspect.to_dict()
        if prefix is not None:
            aspects[name]["answer_prefix"] = prefix.replace("{dimension", "{aspect")
        aspects[name]["scale"] |= {"edges": edges.get(name), "tokens": old.get("level_token_ids")}
    head = {"kind": old.get("head", "mlp"), "read": old.get("read", "answer")}
    widths = old.get("head_widths")
    return {
        "aspects": aspects,
        "heads": {"score": head if widths is None else head | {"widths": widths}},
    } | values
