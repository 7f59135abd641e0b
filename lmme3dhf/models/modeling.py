"""The model: Qwen2.5-VL that also returns a score, the level distribution, and saliency maps.

A subclass of the stock class: weights, attention kernels, generation, device maps and quantised
loading are the library's. What is added is read from hidden states of the ordinary forward pass, so
a plain Qwen2.5-VL folder loads here with only the new parts missing, and a folder of ours loads in
the stock class with only the new parts left over.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoProcessor,
    Cache,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.utils import ModelOutput

from lmme3dhf.models.configuration import (
    LMME3DHFConfig,
    MetricConfig,
    ModelError,
    SaliencyConfig,
    published_head,
)
from lmme3dhf.models.grid import to_raster
from lmme3dhf.models.heads import HEADS
from lmme3dhf.models.saliency_decoder import SaliencyDecoder

# Checkpoints name their parts `visual.*` and `model.layers.*`; the modules are `model.visual.*` and
# `model.language_model.*`. The library renames for its own classes only.
_KEY_MAPPING = {
    r"^visual": "model.visual",
    r"^model(?!\.(language_model|visual))": "model.language_model",
}
_NEW_PARTS = ("score_head", "saliency_decoder")


@contextmanager
def _reading(folder: str | Path) -> Iterator[None]:
    """Gives the libraries' many errors about a folder's files one type and one sentence."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"{folder}: not a whole model folder ({str(error).splitlines()[0]}); expected "
            "config.json, safetensors and the processor's files, as merging or save_pretrained "
            "writes them"
        ) from error


def load_processor(folder: str | Path) -> ProcessorMixin:
    """Loads the tokenizer and the picture and video processors of a model folder.

    Raises:
        ModelError: A file is missing or damaged.
    """
    with _reading(folder):
        return AutoProcessor.from_pretrained(folder)


@dataclass
class LMME3DHFOutput(ModelOutput):
    """Output of `LMME3DHF.forward`.

    Attributes:
        loss: Mean cross-entropy of the labelled tokens, when labels were given.
        logits: (labelled tokens, vocabulary) with labels; otherwise None.
        score: (batch,) float32, MOS / 100, when a read position was given.
        level_logits: (batch, 5) logits of the level words at the read position, bad to excellent.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    score: torch.Tensor | None = None
    level_logits: torch.Tensor | None = None


class LMME3DHF(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with a score head and, when configured, a saliency decoder; both in float32
    whatever the backbone's type.
    """

    config_class = LMME3DHFConfig
    _keep_in_fp32_modules_strict = ("score_head", "saliency_decoder")

    def __init__(self, config: LMME3DHFConfig) -> None:
        super().__init__(config)
        metric = config.get_metric()
        hidden_size = config.text_config.hidden_size
        if metric.head not in HEADS:
            raise ModelError(
                f"config.json, metric.head: {metric.head!r} is not one of {sorted(HEADS)}"
            )
        self.score_head = HEADS[metric.head](
            hidden_size=hidden_size, widths=metric.head_widths or published_head(hidden_size)
        )
        self.saliency_decoder = None
        # New parts that the loaded folder did not have.
        self.missing_parts: list[str] = []
        if metric.saliency is not None:
            self.add_saliency_decoder(metric.saliency)
        self.post_init()
        # The library's own initialisation does not know the new parts.
        self.reset_parts(_NEW_PARTS)

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

        Takes what the stock `from_pretrained` takes. Of the weights only the new parts may be
        missing (and are then initialised from torch's random state); the attribute `missing_parts`
        says which.

        Raises:
            ModelError: A file is missing or damaged, or other weights are missing or left over: the
                folder belongs to another architecture.
        """
        kwargs.setdefault("key_mapping", _KEY_MAPPING)
        wanted_info = kwargs.pop("output_loading_info", False)
        # Weights of other shapes are reported like missing ones, below.
        kwargs["ignore_mismatched_sizes"] = True
        with _reading(pretrained_model_name_or_path):
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        missing = set(info["missing_keys"])
        other_shape = sorted(entry[0] for entry in info["mismatched_keys"])
        parts = {key.split(".")[0] for key in missing} & set(_NEW_PARTS)
        whole = {key for key in model.state_dict() if key.split(".")[0] in parts}
        # A model without a decoder may be loaded from a folder with one.
        left = [key for key in info["unexpected_keys"] if not key.startswith("saliency_decoder.")]
        foreign = sorted(missing ^ whole)
        if foreign or left or other_shape:
            raise ModelError(
                f"{pretrained_model_name_or_path}: these weights are not a Qwen2.5-VL of the "
                f"geometry in config.json (missing {foreign[:3]}, left over {sorted(left)[:3]}, of "
                f"another shape {other_shape[:3]}); check that config.json and the weights belong "
                "together"
            )
        model.reset_parts(sorted(parts))
        for part in _NEW_PARTS:
            if getattr(model, part) is not None:
                getattr(model, part).float()
        model.missing_parts = sorted(parts)
        return (model, info) if wanted_info else model

    def reset_parts(self, parts: Iterable[str]) -> None:
        """Starts new parts ("score_head", "saliency_decoder") afresh from torch's random state."""
        for part in parts:
            if getattr(self, part) is not None:
                getattr(self, part).reset_parameters()

    def encode_video(
        self, pixel_values_videos: torch.Tensor, video_grid_thw: torch.Tensor
    ) -> torch.Tensor:
        """Runs the vision tower and its merger.

        Args:
            pixel_values_videos: (patches of all videos, 1176), as the processor makes them.
            video_grid_thw: (videos, 3).

        Returns:
            (visual tokens of all videos, hidden), raster order.
        """
        tower = self.model.visual
        # A frozen tower keeps no graph, also where gradient checkpointing hooks its input.
        trained = any(parameter.requires_grad for parameter in tower.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
            return tower(pixel_values_videos.to(tower.dtype), grid_thw=video_grid_thw).pooler_output

    def embed(self, input_ids: torch.Tensor, video_embeds: torch.Tensor) -> torch.Tensor:
        """Token embeddings (batch, length, hidden) with the visual tokens in the places of the
        video placeholders.
        """
        embeds = self.get_input_embeddings()(input_ids)
        places = (input_ids == self.config.video_token_id).unsqueeze(-1)
        if int(places.sum()) != video_embeds.shape[0]:
            raise ValueError(
                f"{int(places.sum())} video placeholders, but {video_embeds.shape[0]} visual tokens"
            )
        return embeds.masked_scatter(places, video_embeds.to(embeds.dtype))

    def hidden_states(
        self,
        *,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        mm_token_type_ids: torch.Tensor,
        video_grid_thw: torch.Tensor,
        second_per_grid_ts: torch.Tensor,
        video_embeds: torch.Tensor,
    ) -> torch.Tensor:
        """Last hidden states (after the final norm), shape (batch, length, hidden).

        Args:
            input_ids: (batch, length), padded at the left.
            attention_mask: (batch, length), 1 for tokens.
            mm_token_type_ids: (batch, length), 2 at video placeholders, 0 elsewhere. Without it the
                library silently falls back to text positions.
            video_grid_thw: (videos, 3).
            second_per_grid_ts: (videos,) seconds between temporal patches.
            video_embeds: (visual tokens of all videos, hidden) from `encode_video`.
        """
        position_ids, _ = self.model.get_rope_index(
            input_ids,
            mm_token_type_ids=mm_token_type_ids,
            video_grid_thw=video_grid_thw,
            second_per_grid_ts=second_per_grid_ts,
            attention_mask=attention_mask,
        )
        return self.model.language_model(
            inputs_embeds=self.embed(input_ids, video_embeds),
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
        ).last_hidden_state

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        *,
        labels: torch.Tensor | None = None,
        read_index: torch.Tensor | None = None,
        video_embeds: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        second_per_grid_ts: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ):
        """The metric's forward pass on dialogues about clips, or the stock one.

        Args:
            input_ids: (batch, length), padded at the left.
            attention_mask: (batch, length), 1 for tokens.
            position_ids: As the stock class; `generate` looks for this name (and the next ones) in
                the signature, and without it decodes on text positions.
            past_key_values: As the stock class.
            inputs_embeds: As the stock class.
            labels: (batch, length), -100 where no loss is taken.
            read_index: (batch,) index of the last token of the answer prefix; -1 for a sample
                without a score.
            video_embeds: (visual tokens of all videos, hidden), when the tower ran before.
            pixel_values_videos: (patches of all videos, 1176), when it has to run.
            video_grid_thw: (videos, 3).
            second_per_grid_ts: (videos,) seconds between temporal patches.
            mm_token_type_ids: (batch, length), see `hidden_states`.
            use_cache: As the stock class.
            logits_to_keep: As the stock class.
            **kwargs: Whatever else the stock class takes.

        Returns:
            `LMME3DHFOutput` when a read position, or labels and clips, are given; otherwise the
            stock class's output.
        """
        video = {
            "video_grid_thw": video_grid_thw,
            "second_per_grid_ts": second_per_grid_ts,
            "mm_token_type_ids": mm_token_type_ids,
        }
        clips = video_embeds is not None or pixel_values_videos is not None
        if read_index is None and (labels is None or not clips):
            return super().forward(
                input_ids,
                attention_mask,
                position_ids,
                past_key_values,
                inputs_embeds,
                labels=labels,
                pixel_values_videos=pixel_values_videos,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **video,
                **kwargs,
            )
        if video_embeds is None:
            video_embeds = self.encode_video(pixel_values_videos, video_grid_thw)
        hidden = self.hidden_states(
            input_ids=input_ids, attention_mask=attention_mask, video_embeds=video_embeds, **video
        )
        output = LMME3DHFOutput()
        if labels is not None:
            # Logits only where a token is learnt: at 7B the rest would cost 3 GB a sample for
            # nothing.
            learnt = labels[:, 1:] != -100
            output.logits = self.lm_head(hidden[:, :-1][learnt])
            output.loss = nn.functional.cross_entropy(output.logits.float(), labels[:, 1:][learnt])
        if read_index is not None:
            read = hidden[torch.arange(len(hidden), device=hidden.device), read_index]
            output.score = self.score_head(read)
            if (levels := self.metric.level_token_ids) is not None:
                output.level_logits = self.lm_head(read)[:, list(levels)].float()
        return output

    def saliency_features(
        self,
        *,
        pixel_values_videos: torch.Tensor,
        video_grid_thw: torch.Tensor,
        **text: torch.Tensor,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Frozen inputs of the saliency decoder for a batch of clips with equal grids.

        Args:
            pixel_values_videos: Patches of the views; each view is one temporal patch.
            video_grid_thw: (batch, 3), all rows equal: (views, patch rows, patch columns).
            **text: The other arguments of `hidden_states`; the prompt stands before the video, so
                that it can matter.

        Returns:
            Tokens (batch, views, h, w, hidden) and three taps (batch, views, 2h, 2w, vision width),
            raster order.
        """
        if len(video_grid_thw.unique(dim=0)) != 1:
            raise ValueError(f"clips of one batch need equal grids, got {video_grid_thw.tolist()}")
        vision = self.config.vision_config
        with torch.no_grad(), self._tapped() as outputs:
            video_embeds = self.encode_video(pixel_values_videos, video_grid_thw)
            hidden = self.hidden_states(
                video_grid_thw=video_grid_thw, video_embeds=video_embeds, **text
            )
        views, height, width = video_grid_thw[0].tolist()
        merge = vision.spatial_merge_size
        tokens = hidden[text["input_ids"] == self.config.video_token_id]
        tokens = tokens.view(len(video_grid_thw), views, height // merge, width // merge, -1)
        taps = [
            torch.stack(
                to_raster(
                    output,
                    video_grid_thw,
                    merge=merge,
                    window_px=vision.window_size,
                    patch_px=vision.patch_size,
                )
            )
            for output in outputs
        ]
        return tokens, taps

    @contextmanager
    def _tapped(self):
        saliency = self.metric.saliency
        if saliency is None:
            raise ModelError("this model has no saliency decoder; train stage 3 and merge it")
        outputs: dict[int, torch.Tensor] = {}

        def keep(index: int):
            def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
                outputs[index] = output

            return hook

        blocks = self.model.visual.blocks
        handles = [blocks[tap].register_forward_hook(keep(tap)) for tap in saliency.taps]
        taps: list[torch.Tensor] = []
        try:
            yield taps
        finally:
            for handle in handles:
                handle.remove()
            taps.extend(outputs[tap] for tap in saliency.taps if tap in outputs)
