"""Configuration of the metric: an ordinary Qwen2.5-VL configuration with one more section.

The section `metric` in `config.json` holds all that turns the language model into a metric: the
head, where it reads, the level scale, the saliency decoder, and how a clip becomes frames. A plain
Qwen2.5-VL folder has no such section and gets the defaults.
"""

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Qwen2_5_VLConfig

from lmme3dhf.aspects import GEN3DHF, Aspects, aspects_from
from lmme3dhf.distributed import is_main
from lmme3dhf.escaping import visible
from lmme3dhf.models.folder import ModelError, check_texts, current_section

# Keys of every section of a config.json that are no arguments of the library's classes, and what
# the published Qwen2.5-VL holds that no class reads.
_COMMON_KEYS = frozenset(
    (
        *("model_type", "name_or_path", "_name_or_path", "torch_dtype", "num_labels"),
        *("rope_scaling", "rope_theta", "tie_word_embeddings", "pruned_heads", "torchscript"),
        *("in_chans", "spatial_patch_size", "vision_token_id"),
    )
)
# The attention kernel is the caller's choice, never the folder's.
_DROPPED_KEYS = frozenset(
    (
        *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
        "_attn_implementation_autoset",
    )
)
BRANCHES = ("both", "visual", "multimodal")  # of the saliency decoder
READS = ("answer", "question", "label")  # where a head reads


@contextmanager
def reading(folder: str | Path) -> Iterator[None]:
    """Gives the libraries' many errors about a folder's files one type and one sentence.

    Raises:
        ModelError: In place of any of them.
    """
    try:
        yield
    # A missing package and a full device are not the folder's faults.
    except (ModelError, ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the libraries check few types, and tokenizers raises Exception
        check_texts(Path(folder))
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ModelError(
            f"{folder}: not a whole model folder ({reason}); expected config.json, safetensors and "
            "the processor's files, as merging or save_pretrained writes them"
        ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaliencyConfig:
    """Geometry of the saliency decoder (Section 4.1; DESIGN of this project, 3.7).

    Attributes:
        taps: Indices of the vision blocks whose outputs the visual branch reads, deepest first.
            None takes the last block, the middle one and one at a fifth of the depth.
        width: Channels at the patch grid. None takes a fourteenth of the language model's hidden
            size, at least 32.
        branches: One of `BRANCHES`; the paper's is "both", the others are Table 4's ablations.
        prompt: The question before the views; None for the usual one.
    """

    taps: tuple[int, ...] | None = None
    width: int | None = None
    branches: str = "both"
    prompt: str | None = None

    def __post_init__(self) -> None:
        if self.branches not in BRANCHES:
            raise ModelError(
                f"saliency.branches: one of {', '.join(BRANCHES)} is expected, got {self.branches}"
            )

    def resolved(self, vision_depth: int, hidden_size: int) -> "SaliencyConfig":
        """The same with every None decided for a backbone."""
        taps = self.taps or (vision_depth - 1, vision_depth // 2, vision_depth // 5)
        if len(taps) != 3 or not all(0 <= tap < vision_depth for tap in taps):
            raise ModelError(
                f"saliency.taps: three block indices below {vision_depth} (the tower's depth) are "
                f"expected, got {taps}"
            )
        width = self.width or max(32, hidden_size // 14)
        return dataclasses.replace(self, taps=tuple(taps), width=width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """One head of a model.

    Attributes:
        kind: A key of `models.heads.HEADS`.
        read: One of `READS`. "answer" is the last token of the answer's prefix, the one that
            predicts the level word; nothing after it can reach the score. The others are ablations:
            "question" is the end of the question, "label" the ground-truth level word, as in the
            released code; a model that reads there cannot score a video whose label is not known.
        outputs: Names of its values: "score" belongs to the aspect that is asked, an aspect's name
            to this aspect; other outputs have no target.
        over: Names of earlier heads whose outputs it reads in place of hidden states.
        options: Arguments of the kind.
    """

    kind: str = "mlp"
    read: str = "answer"
    outputs: tuple[str, ...] = ("score",)
    over: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("outputs", "over"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.read not in READS:
            raise ModelError(f"heads: read is one of {', '.join(READS)}, got {self.read!r}")
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise ModelError(f"heads: different outputs are expected, got {list(self.outputs)}")


def heads_from(settings: dict[str, dict[str, Any]], **changes: Any) -> dict[str, HeadConfig]:
    """Heads from what YAML or JSON hold: name -> `kind`, `read`, `outputs`, `over`, and the kind's
    options beside them or in `options`; `changes` replace fields of each.
    """
    known = {field.name for field in dataclasses.fields(HeadConfig)} - {"options"}
    found: dict[str, HeadConfig] = {}
    for name, given in settings.items():
        options = {key: value for key, value in given.items() if key not in known | {"options"}}
        fields = {key: value for key, value in given.items() if key in known} | changes
        head = HeadConfig(**fields, options=given.get("options", {}) | options)
        if not name.isidentifier() or not set(head.over) <= set(found):
            raise ModelError(
                f"heads.{name}: expected a plain name, and `over` heads before it, got "
                f"{list(head.over)}; there are {', '.join(found) or 'none'}"
            )
        found[name] = head
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricConfig:
    """What makes a Qwen2.5-VL a metric.

    Attributes:
        aspects: What is rated, by name, with the questions, where the answer is read, and the
            scales; their `tokens` are None until a tokenizer has been seen, `edges` until they are
            fitted.
        heads: The heads by name, voters after what they are over.
        saliency: Geometry of the saliency decoder; None for a model without one.
        adapter: Whether the folder keeps the last stage's adapter beside its weights (see
            `models.weights`), and not folded into them.
        frames: How a clip becomes frames (`data.video.FrameChoice` as a dictionary); a score
            belongs to this choice.
    """

    aspects: Aspects = dataclasses.field(default_factory=lambda: dict(GEN3DHF))
    heads: dict[str, HeadConfig] = dataclasses.field(
        default_factory=lambda: {"score": HeadConfig()}
    )
    saliency: SaliencyConfig | None = None
    frames: dict[str, Any] | None = None
    adapter: bool = False

    @property
    def read(self) -> str:
        """Where the first head reads."""
        return next(iter(self.heads.values())).read

    @property
    def level_tokens(self) -> tuple[int, ...]:
        """The tokens of all aspects' level words, each once."""
        scales = (aspect.scale for aspect in self.aspects.values())
        return tuple(dict.fromkeys(token for scale in scales for token in scale.tokens or ()))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MetricConfig":
        """Reads the section of `config.json`, also one of an earlier version; an unknown key is an
        error, since it would silently change nothing.
        """
        values = current_section(values)
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - known:
            raise ModelError(
                f"config.json, section metric: unknown {sorted(unknown)}; known are {sorted(known)}"
            )
        if "aspects" in values:
            values["aspects"] = aspects_from(values["aspects"])
        if "heads" in values:
            values["heads"] = heads_from(values["heads"])
        if isinstance(values.get("saliency"), dict):
            saliency = dict(values["saliency"])
            known = {field.name for field in dataclasses.fields(SaliencyConfig)}
            if unknown := set(saliency) - known:
                raise ModelError(f"config.json, metric.saliency: unknown {sorted(unknown)}")
            if saliency.get("taps") is not None:
                saliency["taps"] = tuple(saliency["taps"])
            values["saliency"] = SaliencyConfig(**saliency)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """JSON form of the section. `adapter` only where it is true. Aspects and heads are lists,
        since the library sorts keys, and their order counts.
        """
        values = {
            "aspects": [{"name": n, **aspect.to_dict()} for n, aspect in self.aspects.items()],
            "heads": [{"name": n, **dataclasses.asdict(head)} for n, head in self.heads.items()],
            "saliency": self.saliency and dataclasses.asdict(self.saliency),
            "frames": self.frames,
        }
        return values | ({"adapter": True} if self.adapter else {})

    def replace(self, **changes: Any) -> "MetricConfig":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


class LMME3DHFConfig(Qwen2_5_VLConfig):
    """Qwen2.5-VL's configuration plus the section `metric` (see `MetricConfig`).

    The model type stays `qwen2_5_vl`: stock classes, processors and servers read our folders as the
    Qwen2.5-VL that they are.
    """

    metric: dict | None = None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "LMME3DHFConfig":
        """As the library's, without the keys that no class of the configuration knows (those of
        training tools, say), which are named once on standard error. The library would set them as
        attributes, in place of methods too. The folder's attention kernel is dropped silently.

        Raises:
            ValueError: A section has no geometry.
        """
        _check_geometry(config_dict)
        known, ignored = _known_keys(config_dict)
        if ignored:
            _name_ignored(tuple(ignored))
        return super().from_dict(known, **kwargs)

    def get_metric(self) -> MetricConfig:
        """The section as a record; defaults when the folder is a plain Qwen2.5-VL.

        Raises:
            ModelError: A key is unknown, or a value is of another type than expected.
        """
        try:
            return MetricConfig.from_dict(self.metric or {})
        except ModelError:
            raise
        except (TypeError, AttributeError, ValueError) as error:
            raise ModelError(
                f"config.json, section metric: a value of another kind than expected ({error}); "
                "restore the folder, or merge its run again"
            ) from error

    def set_metric(self, metric: MetricConfig) -> None:
        """Replaces the section."""
        self.metric = metric.to_dict()


def _check_geometry(content: dict[str, Any]) -> None:
    """Refuses what the library would complete with the geometry of the 72B, which fills the memory;
    it reads a pipe in place of a config.json as an empty one.
    """
    # Published configurations hold the language model's keys at the top.
    text = content.get("text_config")
    text = content if text is None else text
    for part, section, keys in (
        ("language model", text, ("hidden_size", "num_hidden_layers")),
        ("vision tower", content.get("vision_config"), ("hidden_size",)),
    ):
        for key in keys:
            if not isinstance(section, dict) or key not in section:
                raise ValueError(f"config.json is no regular file, or has no {key} of the {part}")


def _known_keys(content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The content of a config.json that a class knows, and the places of the rest."""
    common = _COMMON_KEYS | set(GenerationConfig().to_dict())
    common |= set(inspect.signature(LMME3DHFConfig).parameters)
    own = {
        name: common | set(inspect.signature(section).parameters) | set(section.attribute_map)
        for name, section in LMME3DHFConfig.sub_configs.items()
    }
    # Published configurations hold the language model's keys at the top.
    kept, ignored = _split_keys(content, own["text_config"])
    for name, known in own.items():
        if isinstance(section := kept.get(name), dict):
            kept[name], unknown = _split_keys(section, known)
            ignored += [f"{name}.{key}" for key in unknown]
    return kept, ignored


def _split_keys(section: dict[str, Any], known: set[str]) -> tuple[dict[str, Any], list[str]]:
    """The known part of a section, and the other keys that have a value."""
    kept = {key: section[key] for key in section if key in known - _DROPPED_KEYS}
    unknown = [key for key in section if key not in known | _DROPPED_KEYS]
    return kept, [key for key in unknown if section[key] is not None]


@cache  # a folder's configuration is read several times
def _name_ignored(places: tuple[str, ...]) -> None:
    if is_main():
        more = f" and {len(places) - 8} more" if len(places) > 8 else ""
        names = ", ".join(visible(place, 60) for place in places[:8])
        print(f"config.json: {names}{more} unknown, ignored", file=sys.stderr)
