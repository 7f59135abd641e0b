"""The model: Qwen2.5-VL that also returns a score, the level distribution, and saliency maps.

A subclass of the stock class: weights, attention kernels, generation, device maps and quantised
loading are the library's. What is added is read from hidden states of the ordinary forward pass, so
a plain Qwen2.5-VL folder loads here with only the new parts missing, and a folder of ours loads in
the stock class with only the new parts left over.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLDecoderLayer
from transformers.utils import GENERATION_CONFIG_NAME, ModelOutput

from lmme3dhf.models.backbone import positions
from lmme3dhf.models.configuration import (
    HeadConfig,
    LMME3DHFConfig,
    MetricConfig,
    ModelError,
    SaliencyConfig,
    reading,
)
from lmme3dhf.models.folder import ADAPTER
from lmme3dhf.models.grid import to_raster
from lmme3dhf.models.heads import HEADS
from lmme3dhf.models.hub import model_folder
from lmme3dhf.models.saliency_decoder import SaliencyDecoder
from lmme3dhf.models.tower import multiply_patches
from lmme3dhf.models.weights import (
    KEY_MAPPING,
    NEW_PARTS,
    Weights,
    base_name,
    keep_adapter,
    kept_adapter,
    part_of,
    save_adapter,
)


def load_configuration(folder: str | Path) -> LMME3DHFConfig:
    """Reads the configuration of a model folder, or of a model of the hub.

    Raises:
        ModelError: It is missing or damaged, or see `folder.check_folder`.
    """
    folder = model_folder(folder)
    with reading(folder):
        config = LMME3DHFConfig.from_pretrained(folder)
    if not isinstance(config.dtype, torch.dtype | None):
        raise ModelError(
            f"{folder}/config.json: dtype is {config.dtype!r}, expected a type such as bfloat16"
        )
    return config


def load_processor(folder: str | Path) -> ProcessorMixin:
    """Loads the tokenizer and the picture and video processors of a model folder, or of a model of
    the hub.

    Raises:
        ModelError: A file is missing or damaged, or see `folder.check_folder`.
    """
    folder = model_folder(folder)
    config = load_configuration(folder)
    with reading(folder):
        # With the configuration, or the library would read the file with its unknown keys.
        processor = Qwen2_5_VLProcessor.from_pretrained(
            folder, config=config, trust_remote_code=False
        )
    if not processor.tokenizer.chat_template:
        # That of chat_template.json or processor_config.json.
        processor.tokenizer.chat_template = processor.chat_template
    if processor.tokenizer.pad_token_id is None:
        raise ModelError(
            f"{folder / 'tokenizer_config.json'}: names no pad_token that the tokenizer has; a "
            "Qwen2.5-VL has <|endoftext|> there; fetch the file again"
        )
    return processor


def _folded(folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a folder's weights with its kept adapter folded in."""
    config = load_configuration(folder)
    config.set_metric(config.get_metric().replace(adapter=False))
    dtype = options.get("dtype")
    dtype = dtype if isinstance(dtype, torch.dtype) else config.dtype or torch.float32
    weights = Weights(folder, fold=True)
    names = [n for n in weights.keys if options.get("tower", True) or ".visual." not in n]
    return {"config": config, "state_dict": {name: weights.read(name, dtype) for name in names}}


@dataclass
class LMME3DHFOutput(ModelOutput):
    """Output of `LMME3DHF.forward`.

    Attributes:
        token_losses: (learnt tokens,) float32, the cross-entropy of each.
        heads: Head -> output -> (scored reads,) float32, in unit values.
    """

    token_losses: torch.Tensor | None = None
    heads: dict[str, dict[str, torch.Tensor]] | None = None


def tree_attention(seen_until: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the tokens of a packed sequence see, and how far their positions are off.

    Args:
        seen_until: (batch, length), see `data.packing`; a padding token is seen by itself alone.

    Returns:
        Mask (batch, 1, length, length), True where the row's token sees the column's; and
        (batch, length), how many tokens before each one it does not see: by so much its position in
        the sequence exceeds the one on its own path.
    """
    index = torch.arange(seen_until.shape[1], device=seen_until.device)
    row, column = index[:, None], index[None, :]
    sees = (column <= row) & (row < seen_until[:, None, :])
    return sees[:, None], index + 1 - sees.sum(-1)


def equal_grid(video_grid_thw: torch.Tensor) -> list[int]:
    """The one grid of clips that are to be stacked: temporal patches, patch rows, patch columns.

    Raises:
        ValueError: Grids differ.
    """
    if len(video_grid_thw.unique(dim=0)) != 1:
        raise ValueError(f"clips of one batch need equal grids, got {video_grid_thw.tolist()}")
    return video_grid_thw[0].tolist()


def encode_clips(
    tower: nn.Module, pixel_values_videos: torch.Tensor, video_grid_thw: torch.Tensor
) -> torch.Tensor:
    """`LMME3DHF.encode_video` with a tower (and its merger) that stands alone."""
    # A frozen tower keeps no graph unless it is for the pixels, also where gradient checkpointing
    # hooks its input.
    wanted = pixel_values_videos.requires_grad or any(
        parameter.requires_grad for parameter in tower.parameters()
    )
    clips = pixel_values_videos.to(tower.dtype).split(video_grid_thw.prod(1).tolist())
    with torch.set_grad_enabled(torch.is_grad_enabled() and wanted):
        return torch.cat(
            [
                tower(clip, grid_thw=grid[None]).pooler_output
                for clip, grid in zip(clips, video_grid_thw, strict=True)
            ]
        )


@torch.no_grad()
def encode_views(
    tower: nn.Module,
    taps: Sequence[int],
    pixel_values_videos: torch.Tensor,
    video_grid_thw: torch.Tensor,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What stage 3 needs of a frozen tower for clips with equal grids.

    Args:
        tower: The vision tower with its merger.
        taps: Blocks whose outputs are wanted.
        pixel_values_videos: Patches of the views; each view is one temporal patch.
        video_grid_thw: (batch, 3), all rows equal: (views, patch rows, patch columns).

    Returns:
        Visual tokens as of `encode_clips`, and for each tap a tensor (batch, views, 2h, 2w, vision
        width), raster order.

    Raises:
        ValueError: Grids differ.
    """
    equal_grid(video_grid_thw)
    outputs: dict[int, list[torch.Tensor]] = {tap: [] for tap in taps}

    def keep(tap: int):
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            outputs[tap].append(output)

        return hook

    handles = [tower.blocks[tap].register_forward_hook(keep(tap)) for tap in taps]
    try:
        tokens = encode_clips(tower, pixel_values_videos, video_grid_thw)
    finally:
        for handle in handles:
            handle.remove()
    config = tower.config
    rasters = [
        to_raster(
            torch.cat(outputs[tap]),
            video_grid_thw,
            merge=config.spatial_merge_size,
            window_px=config.window_size,
            patch_px=config.patch_size,
        )
        for tap in taps
    ]
    return tokens, [torch.stack(raster) for raster in rasters]


class ReadingLayer(Qwen2_5_VLDecoderLayer):
    """The last layer: its MLP, most of its work, runs only where something is read.

    The weights and their names are those of the library's layer.
    """

    def forward(
        self, hidden_states: torch.Tensor, *, reads: torch.Tensor | None = None, **kwargs
    ) -> torch.Tensor:
        """As the library's; with `reads` (batch, R) the output is (batch, R, hidden) at these
        positions.
        """
        if reads is None:
            return super().forward(hidden_states, **kwargs)
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        rows = torch.arange(len(reads), device=reads.device)[:, None]
        hidden_states = (hidden_states + attended)[rows, reads]
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class LMME3DHF(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with heads and, when configured, a saliency decoder; all in float32 whatever the
    backbone's type.
    """

    config_class = LMME3DHFConfig
    # The libraries compare class names where layers may not be split over devices.
    _no_split_modules = (
        *Qwen2_5_VLForConditionalGeneration._no_split_modules,
        ReadingLayer.__name__,
    )
    _keep_in_fp32_modules_strict = NEW_PARTS

    def __init__(self, config: LMME3DHFConfig, *, tower: bool = True) -> None:
        super().__init__(config)
        if tower:
            multiply_patches(self.model.visual)
        else:
            # from_pretrained builds on the meta device and fills what has a place: the tower's
            # weights are neither allocated nor read.
            self.model.visual = None
            self._keys_to_ignore_on_load_unexpected = [r"(^|\.)visual\."]
        layers = self.model.language_model.layers
        layers[-1] = ReadingLayer(config.text_config, len(layers) - 1)
        metric = config.get_metric()
        if max(metric.level_tokens or (0,)) >= config.text_config.vocab_size:
            raise ModelError(
                f"config.json, metric.aspects: level tokens {metric.level_tokens}, expected tokens "
                f"below vocab_size {config.text_config.vocab_size}"
            )
        self.heads = nn.ModuleDict({name: self._head(name, metric.heads) for name in metric.heads})
        self.saliency_decoder = None
        # New parts that the loaded folder did not have.
        self.missing_parts: list[str] = []
        if metric.saliency is not None:
            self.add_saliency_decoder(metric.saliency)
        self.post_init()
        # The library's own initialisation does not know the new parts.
        self.reset_parts(NEW_PARTS)

    def _head(self, name: str, heads: Mapping[str, HeadConfig]) -> nn.Module:
        head = heads[name]
        if head.kind not in HEADS:
            raise ModelError(
                f"heads.{name}: kind {head.kind!r} is not one of {', '.join(sorted(HEADS))}; "
                "--plugin MODULE adds others"
            )
        width = sum(len(heads[below].outputs) for below in head.over)
        width = width or self.config.text_config.hidden_size
        try:
            return HEADS[head.kind](hidden_size=width, outputs=head.outputs, **head.options)
        except (TypeError, ValueError) as error:
            raise ModelError(f"heads.{name}, kind {head.kind}: {error}") from error

    def set_heads(self, heads: Mapping[str, HeadConfig]) -> None:
        """Takes these heads, also into the configuration: one that the model has with the same
        settings keeps its weights, the others start from torch's random state.
        """
        known = self.metric.heads
        for name in self.heads.keys() - heads.keys():
            del self.heads[name]
        for name, head in heads.items():
            if name not in self.heads or replace(known[name], read=head.read) != head:
                self.heads[name] = self._head(name, heads).float()
                self.missing_parts = sorted({*self.missing_parts, f"heads.{name}"})
        there = {f"heads.{name}" for name in self.heads}
        self.missing_parts = [
            part for part in self.missing_parts if part in there or not part.startswith("heads.")
        ]
        self.config.set_metric(self.metric.replace(heads=dict(heads)))

    def head_values(
        self, hidden_by_read: Mapping[str, torch.Tensor]
    ) -> dict[str, dict[str, torch.Tensor]]:
        """What the heads say: head -> output -> (reads,) float32, in unit values.

        Args:
            hidden_by_read: One of `configuration.READS` -> hidden states (reads, hidden). Heads
                that read elsewhere are left out.
        """
        found: dict[str, dict[str, torch.Tensor]] = {}
        for name, head in self.metric.heads.items():
            if head.over:
                if set(head.over) <= set(found):
                    below = [value for other in head.over for value in found[other].values()]
                    found[name] = self.heads[name](torch.stack(below, dim=-1))
            elif head.read in hidden_by_read:
                found[name] = self.heads[name](hidden_by_read[head.read])
        return found

    def scores(self, hidden: torch.Tensor, aspect: str) -> dict[str, torch.Tensor]:
        """What each head says of an aspect: head -> (reads,) float32, in unit values; heads that do
        not score it are left out (see `HeadConfig`).

        Args:
            hidden: (reads, hidden), read where this aspect is asked.
            aspect: Its name.

        Raises:
            ModelError: No head scores it.
        """
        found = {}
        for head, outputs in self.head_values({self.metric.read: hidden}).items():
            name = aspect if aspect in outputs else "score"
            if name in outputs:
                found[head] = outputs[name]
        if not found:
            raise ModelError(f"{self.name_or_path}: no head scores {aspect}; train one")
        return found

    def add_saliency_decoder(self, saliency: SaliencyConfig) -> None:
        """Adds a fresh decoder of the given geometry, and writes the geometry into the
        configuration.
        """
        vision, hidden_size = self.config.vision_config, self.config.text_config.hidden_size
        saliency = saliency.resolved(vision.depth, hidden_size)
        self.config.set_metric(self.metric.replace(saliency=saliency))
        self.saliency_decoder = SaliencyDecoder(
            vision_width=vision.hidden_size,
            text_width=hidden_size,
            width=saliency.width,
            branches=saliency.branches,
        )

    @property
    def metric(self) -> MetricConfig:
        """The metric's section of the configuration."""
        return self.config.get_metric()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *args, **kwargs
    ) -> "LMME3DHF":
        """Loads plain Qwen2.5-VL weights, the output of any stage, or the finished all-in-one
        folder.

        Takes what the stock `from_pretrained` takes, and `tower`: False leaves the vision tower out
        (`model.visual` is None), for what is done on stored features. What is on the hub is fetched
        by `hub.model_folder`. No code and no pickled weights are loaded. Of the weights only the
        new parts may be missing (and are then initialised from torch's random state); the attribute
        `missing_parts` says which.

        A folder may keep its adapter beside the weights (see `models.weights`): the model then
        computes with both. With `fold_adapter` True it is folded into the weights, which training
        another adapter starts from.

        Raises:
            ModelError: A file is missing or damaged, or other weights are missing or left over: the
                folder belongs to another architecture; or see `folder.check_folder`.
        """
        folder = model_folder(pretrained_model_name_or_path, kwargs.pop("revision", None))
        if subfolder := kwargs.pop("subfolder", ""):
            folder = model_folder(folder / subfolder)
        kwargs |= {"trust_remote_code": False, "use_safetensors": True}
        # Not the folder's choice: without flash_attn the library fetches kernels in its place.
        kwargs.setdefault("attn_implementation", "sdpa")
        kwargs.setdefault("key_mapping", KEY_MAPPING)
        wanted_info = kwargs.pop("output_loading_info", False)
        # Weights of other shapes are reported like missing ones, below.
        kwargs["ignore_mismatched_sizes"] = True
        source: Path | None = folder
        with reading(folder):
            kept = kept_adapter(folder)
            if kwargs.pop("fold_adapter", False) and kept:
                kwargs |= _folded(folder, kwargs)
                source = None
            model, info = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
            model.name_or_path = str(folder)
        missing = set(info["missing_keys"])
        other_shape = sorted(entry[0] for entry in info["mismatched_keys"])
        parts = {part for key in missing if (part := part_of(key))}
        whole = {key for key in model.state_dict() if part_of(key) in parts}
        # A model without a decoder may be loaded from a folder with one.
        left = [key for key in info["unexpected_keys"] if not key.startswith("saliency_decoder.")]
        foreign = sorted(missing ^ whole)
        if foreign or left or other_shape:
            raise ModelError(
                f"{folder}: these weights are not a Qwen2.5-VL of the "
                f"geometry in config.json (missing {foreign[:3]}, left over {sorted(left)[:3]}, of "
                f"another shape {other_shape[:3]}); check that config.json and the weights belong "
                "together"
            )
        model.reset_parts(sorted(parts))
        for part in NEW_PARTS:
            if getattr(model, part) is not None:
                getattr(model, part).float()
        model.missing_parts = sorted(parts)
        if source is None:
            if (folder / GENERATION_CONFIG_NAME).is_file():
                with reading(folder):
                    model.generation_config = GenerationConfig.from_pretrained(folder)
        elif kept:
            keep_adapter(model, kept)
        return (model, info) if wanted_info else model

    def save_pretrained(self, save_directory: str | Path, *args, **kwargs) -> None:
        """As the stock method; a kept adapter goes beside the weights, as it was loaded."""
        if self.metric.adapter and kwargs.get("state_dict") is None:
            named = ((base_name(key), tensor) for key, tensor in self.state_dict().items())
            kwargs["state_dict"] = {name: tensor for name, tensor in named if name is not None}
        super().save_pretrained(save_directory, *args, **kwargs)
        if self.metric.adapter and kwargs.get("is_main_process", True):
            save_adapter(self, Path(save_directory) / ADAPTER)

    def reset_parts(self, parts: Iterable[str]) -> None:
        """Starts new parts ("heads", "heads.NAME", "saliency_decoder") afresh from torch's random
        state.
        """
        for part in parts:
            if part == "heads":
                self.reset_parts(f"heads.{name}" for name in self.heads)
            elif part.startswith("heads."):
                self.get_submodule(part).reset_parameters()
            elif getattr(self, part) is not None:
                getattr(self, part).reset_parameters()

    def encode_video(
        self, pixel_values_videos: torch.Tensor, video_grid_thw: torch.Tensor
    ) -> torch.Tensor:
        """Runs the vision tower and its merger.

        The clips go through one by one: what the tower makes of a clip does not depend on its
        neighbours, to the last bit.

        Args:
            pixel_values_videos: (patches of all videos, 1176), as the processor makes them.
            video_grid_thw: (videos, 3).

        Returns:
            (visual tokens of all videos, hidden), raster order.
        """
        return encode_clips(self.model.visual, pixel_values_videos, video_grid_thw)

    def embed(self, input_ids: torch.Tensor, video_embeds: torch.Tensor) -> torch.Tensor:
        """Token embeddings (batch, length, hidden) with the visual tokens in the places of the
        placeholders.
        """
        embeds = self.get_input_embeddings()(input_ids)
        visual = (input_ids == self.config.video_token_id) | (
            input_ids == self.config.image_token_id
        )
        places = visual.unsqueeze(-1)
        if int(places.sum()) != video_embeds.shape[0]:
            raise ValueError(
                f"{int(places.sum())} placeholders, but {video_embeds.shape[0]} visual tokens"
            )
        return embeds.masked_scatter(places, video_embeds.to(embeds.dtype))

    def hidden_at(
        self,
        *,
        input_ids: torch.Tensor,
        seen_until: torch.Tensor,
        mm_token_type_ids: torch.Tensor,
        video_grid_thw: torch.Tensor,
        second_per_grid_ts: torch.Tensor,
        video_embeds: torch.Tensor,
        reads: torch.Tensor,
    ) -> torch.Tensor:
        """Last hidden states (after the final norm) where they are read, (batch, R, hidden).

        Args:
            input_ids: (batch, length), each row a pack of dialogues on one clip.
            seen_until: (batch, length), see `tree_attention`.
            mm_token_type_ids: (batch, length), see `backbone.MediaKind`.
            video_grid_thw: (batch, 3), a row's video or image.
            second_per_grid_ts: (batch,) seconds between temporal patches; of no meaning for images.
            video_embeds: (visual tokens of all videos, hidden) from `encode_video`.
            reads: (batch, R) positions.

        Raises:
            ModelError: The attention kernel takes no mask of its own.
        """
        kernel = self.model.language_model.config._attn_implementation
        if kernel != "sdpa":
            raise ModelError(
                f"{self.name_or_path}: packed dialogues need an attention kernel that takes any "
                f"mask, and {kernel} is set for the language model; load it with "
                "attn_implementation sdpa"
            )
        position_ids = positions(
            self.model, input_ids, mm_token_type_ids, video_grid_thw, second_per_grid_ts
        )
        sees, unseen = tree_attention(seen_until)
        return self.model.language_model(
            inputs_embeds=self.embed(input_ids, video_embeds),
            attention_mask=sees,
            position_ids=position_ids - unseen,
            use_cache=False,
            reads=reads,
        ).last_hidden_state

    def level_logits(self, hidden: torch.Tensor, aspect: str) -> torch.Tensor:
        """Logits (..., levels) of an aspect's level words, lowest first, in float32; `hidden`
        (..., hidden) was read where the level word is predicted.
        """
        rows = self.lm_head.weight[list(self.metric.aspects[aspect].scale.tokens)]
        return nn.functional.linear(hidden.to(rows.dtype), rows).float()

    # `generate` reads the argument names off the signature, and they change between versions of the
    # library; `wraps` shows it the stock signature, whichever that is.
    @wraps(Qwen2_5_VLForConditionalGeneration.forward, assigned=(), updated=())
    def forward(
        self,
        *args,
        reads: torch.Tensor | None = None,
        learnt: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        scored: torch.Tensor | None = None,
        **kwargs,
    ):
        """The metric's forward pass on packed dialogues about clips, or the stock one.

        Args:
            *args: Positional arguments of the stock class, when there are no `reads`.
            reads: (batch, R) positions that are read; without them this is the stock forward pass.
            learnt: (learnt tokens,) read that predicts each, index into the flattened `reads`.
            targets: (learnt tokens,) the tokens.
            scored: (scored reads,) reads that are scored, index into the flattened `reads`.
            **kwargs: Without `reads` whatever the stock class takes. With them the arguments of
                `hidden_at`, where `pixel_values_videos` (patches of all videos, 1176) may stand in
                place of `video_embeds`: the tower then runs here.

        Returns:
            `LMME3DHFOutput` when reads are given; otherwise the stock class's output.
        """
        if reads is None:
            return super().forward(*args, **kwargs)
        pixels = kwargs.pop("pixel_values_videos", None)
        if kwargs.get("video_embeds") is None:
            kwargs["video_embeds"] = self.encode_video(pixels, kwargs["video_grid_thw"])
        hidden = self.hidden_at(reads=reads, **kwargs).flatten(0, 1)
        output = LMME3DHFOutput()
        if learnt is not None:
            # Logits only where a token is learnt: at 7B the rest would cost 3 GB a sample for
            # nothing.
            logits = self.lm_head(hidden[learnt]).float()
            output.token_losses = nn.functional.cross_entropy(logits, targets, reduction="none")
        if scored is not None:
            output.heads = self.head_values({self.metric.read: hidden[scored]})
        return output

    def encode_views(
        self, pixel_values_videos: torch.Tensor, video_grid_thw: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What the saliency decoder needs of the tower (see the function `encode_views`), with the
        taps of this model's decoder.

        Raises:
            ModelError: The model has no decoder.
        """
        saliency = self.metric.saliency
        if saliency is None:
            raise ModelError("this model has no saliency decoder; train stage 3 and merge it")
        return encode_views(self.model.visual, saliency.taps, pixel_values_videos, video_grid_thw)

    @torch.no_grad()
    def view_states(self, **batch: torch.Tensor) -> torch.Tensor:
        """The language model's last hidden states at the visual tokens of views.

        Args:
            **batch: Arguments of `hidden_at` for clips with equal grids, read at all visual tokens;
                the prompt stands before the views, so that it can matter.

        Returns:
            (batch, views, h, w, hidden), raster order.

        Raises:
            ValueError: Grids differ.
        """
        grid = equal_grid(batch["video_grid_thw"])
        merge = self.config.vision_config.spatial_merge_size
        hidden = self.hidden_at(**batch)
        return hidden.view(len(hidden), grid[0], grid[1] // merge, grid[2] // merge, -1)
