"""The metric in a training loop: rewards for frames that a generator has just made, with gradient
to their pixels.

The way is that of a file (frames chosen, resized, normalised, cut into patches; tower, language
model, score head), all of it in torch and none of it under no_grad. What is missing is the
rounding to 8 bits that a file has been through, unless it is asked for.

    from lmme3dhf import as_loss

    realism = as_loss("runs/demo/model", aspects="authenticity")  # frozen; lower is better
    for latents in loader:
        frames = generator(latents).sigmoid()  # (B, T, 3, H, W) in 0..1
        loss = reconstruction(frames, latents) + 0.1 * realism(frames, fps=30.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

Whoever climbs a metric finds what the metric does not see. Forty steps over all pixels of degraded
clips, small ones (39 to 53 dB from where they began), raised the demo model's quality by 16 to
162 points, beyond 100 too, survived H.264, and brought none of them nearer to the clean original
(PSNR -0.43 to +0.01 dB). Keep other losses beside it, let it move a generator and not pixels, and
judge the result by measures that were not climbed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lmme3dhf.data.collation import Media
from lmme3dhf.data.dialogue import DialogueEncoder
from lmme3dhf.data.pictures import clip_of_frames, rate_of
from lmme3dhf.errors import UserError
from lmme3dhf.models.folder import ModelError
from lmme3dhf.models.modeling import LMME3DHF
from lmme3dhf.scorer import Scorer, encoded_clip, rating_dialogues, read


class RewardError(UserError, ValueError):
    """Frames or settings of which no reward can be made."""


class Reward(nn.Module):
    """Frames -> rewards: 0 at the worst end of an aspect's scale, 100 at the best, whatever the
    scale's range and direction; on Gen3DHF's scale the reward is the score.

    The model is frozen, and stays as for evaluation whatever `train` says. Built by `as_reward`.

    Args:
        scorer: Its model, processor and `choice` of frames are used; the model is frozen.
        aspects: Name of the aspect that is rewarded, or of several, whose mean it is; None for all
            of the model's.
        slots: Texts for the fields of the aspects' prompts.
        frames: Read so many frames of a clip, an even number, in place of the model's own choice;
            fewer cost less memory and are not what the model was trained on.
        round_to_8_bit: Round frames to 8 bits before and after they are resized, as those of a file
            are; the gradient passes as if nothing had been rounded.
        gradient_checkpointing: Compute each layer twice and keep only its input between; the same
            gradient for less memory and up to twice the time.

    Raises:
        ModelError: The scorer gives no scores.
        RewardError: Unknown aspect.
        ValueError: An impossible number of frames.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        aspects: str | Sequence[str] | None = None,
        slots: Mapping[str, str] | None = None,
        frames: int | None = None,
        round_to_8_bit: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        named = [aspects] if isinstance(aspects, str) else list(aspects or scorer.aspects)
        if unknown := [name for name in named if name not in scorer.aspects]:
            raise RewardError(
                f"aspect {unknown[0]!r} is none of this model's: {', '.join(scorer.aspects)}"
            )
        if not scorer.scores:
            raise ModelError(
                f"{scorer.model.name_or_path}: a scorer without scores (scores=False) rewards "
                "nothing; take a model with a trained score head"
            )
        self.model: LMME3DHF = scorer.model.requires_grad_(False).eval()
        self.processor = scorer.processor
        self.choice = scorer.choice if frames is None else replace(scorer.choice, frames=frames)
        self.aspects = {name: scorer.aspects[name] for name in named}
        self.round_to_8_bit = round_to_8_bit
        self.gradient_checkpointing = gradient_checkpointing
        self._pad_token_id = self.processor.tokenizer.pad_token_id
        self._encoder = DialogueEncoder(self.processor.tokenizer)
        # All aspects, as the scorer reads them, whatever is rewarded: the same bits.
        self._asked = rating_dialogues(self._encoder, scorer.aspects, slots)

    def train(self, mode: bool = True) -> "Reward":
        """Has no effect on the model."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, frames: torch.Tensor, fps: float | None = None) -> torch.Tensor:
        """Rewards one clip or a batch of them.

        Args:
            frames: Floats in 0..1, RGB, on any device. Four dimensions are one clip, (T, H, W, 3),
                as pictures are shown; five are a batch, (B, T, 3, H, W), as networks make them. T
                is odd or even, 2 or more, and at least the number of frames that are read.
            fps: Pictures per second, of all clips; None as for frames in `Scorer.score`.

        Returns:
            (B,) float32 on the frames' device; the head is linear, so what is unlike any training
            clip may be beyond 0 and 100. The gradient to frames that are not read is zero, and to
            all of them where the head's ReLUs are off.

        Raises:
            RewardError: Another shape, integers, or values outside 0..1.
            VideoError: Fewer frames than are read, or sides that a file may not have.
            ValueError: Frames are chosen by rate, and `fps` is not given.
        """
        clips_BTHW3 = _checked(frames)
        with _checkpointed(self.model) if self.gradient_checkpointing else nullcontext():
            media = [
                self._media(
                    clip_THW3, fps, name=f"frames[{index}]" if frames.ndim == 5 else "frames"
                )
                for index, clip_THW3 in enumerate(clips_BTHW3)
            ]
            asked = [self._asked] * len(media)
            hidden = read(self.model, self._encoder, media, asked, self._pad_token_id)
        values = []
        for name, aspect in self.aspects.items():
            value = next(iter(self.model.scores(hidden[name][:, 0], name).values()))
            values.append(value if aspect.scale.higher_is_better else 1 - value)
        return (100 * torch.stack(values).mean(0)).to(frames.device)

    def _media(self, frames_THW3: torch.Tensor, fps: float | None, *, name: str) -> Media:
        rounded = _rounded if self.round_to_8_bit else nn.Identity()
        rate = rate_of(len(frames_THW3), fps, self.choice)
        indices = self.choice.indices(len(frames_THW3), rate)
        # From here on a clip of the chosen frames alone: only they are moved and converted.
        chosen = frames_THW3[indices].to(self.model.device)
        floats = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
        choice = replace(self.choice, frames=len(indices))
        rate *= len(indices) / len(frames_THW3)
        clip = clip_of_frames(rounded(255 * floats), choice, rate, name=name)
        clip = replace(clip, frames=rounded(clip.frames))
        return encoded_clip(self.model, self.processor, clip)


class Loss(nn.Module):
    """1 - reward / 100: 0 for the best clip and 1 for the worst, lower is better.

    Args:
        reward: What it is made of.
    """

    def __init__(self, reward: Reward) -> None:
        super().__init__()
        self.reward = reward

    def forward(self, frames: torch.Tensor, fps: float | None = None) -> torch.Tensor:
        """(B,) losses of the clips; all as of `Reward.forward`."""
        return 1 - self.reward(frames, fps) / 100


def as_reward(
    model: str | Path | Scorer,
    *,
    aspects: str | Sequence[str] | None = None,
    slots: Mapping[str, str] | None = None,
    frames: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attn_implementation: str = "auto",
    load: str | None = None,
    verify: bool = True,
    gradient_checkpointing: bool = False,
    round_to_8_bit: bool = False,
) -> Reward:
    """A finished model as a module from frames to rewards: 0 to 100, higher is better.

    Args:
        model: Folder or hub id of a finished model; or a `Scorer`, whose model is shared (and
            frozen).
        aspects: The aspects that are rewarded; see `Reward`.
        slots: Likewise.
        frames: Likewise.
        device: As of `Scorer.from_pretrained`.
        dtype: Likewise; in float16 small gradients vanish, take bfloat16.
        attn_implementation: Likewise.
        load: Likewise.
        verify: As in `Scorer.from_pretrained`.
        gradient_checkpointing: As of `Reward`.
        round_to_8_bit: Likewise.

    Raises:
        ModelError: The model was not trained to score, or cannot be loaded in this way.
        RewardError: Unknown aspect; or how to load a model that a scorer has loaded already.
        ValueError: An impossible number of frames.
    """
    loading = {
        "device": device,
        "dtype": dtype,
        "attn_implementation": attn_implementation,
        "load": load,
    }
    asked = sorted(name for name, value in loading.items() if value not in ("auto", None))
    if isinstance(model, Scorer) and asked:
        raise RewardError(
            f"{', '.join(asked)} cannot be set for a Scorer, which has loaded its model already; "
            "set it in Scorer.from_pretrained, or give as_reward the folder"
        )
    if isinstance(model, Scorer):
        scorer = model
    else:
        scorer = Scorer.from_pretrained(model, verify=verify, **loading)
    return Reward(
        scorer,
        aspects=aspects,
        slots=slots,
        frames=frames,
        gradient_checkpointing=gradient_checkpointing,
        round_to_8_bit=round_to_8_bit,
    )


def as_loss(model: str | Path | Scorer, **options) -> Loss:
    """A finished model as a loss: 1 - reward / 100, lower is better.

    Args:
        model: As of `as_reward`.
        **options: Likewise.

    Raises:
        ModelError: As `as_reward`.
        RewardError: Likewise.
        ValueError: Likewise.
    """
    return Loss(as_reward(model, **options))


def _checked(frames: torch.Tensor) -> torch.Tensor:
    """(B, T, H, W, 3), for one clip as for several."""
    if not (isinstance(frames, torch.Tensor) and frames.is_floating_point()):
        found = getattr(frames, "dtype", type(frames).__name__)
        raise RewardError(
            f"frames are {found}, which can carry no gradient; expected a tensor of floats in 0..1 "
            "(for 8-bit frames there is Scorer.score)"
        )
    shape = tuple(frames.shape)
    if len(shape) not in (4, 5) or shape[-1 if len(shape) == 4 else 2] != 3 or 0 in shape:
        raise RewardError(
            f"frames have the shape {shape}; expected one clip (T, H, W, 3) or a batch "
            "(B, T, 3, H, W), RGB: permute them, or add a dimension by frames[None]"
        )
    clips_BTHW3 = frames[None] if len(shape) == 4 else frames.movedim(2, -1)
    if clips_BTHW3.shape[1] < 2:
        raise RewardError(f"frames have the shape {shape}; expected clips of 2 frames or more")
    low, high = (float(value) for value in frames.detach().aminmax())
    # A comparison with nan is false.
    if not (low >= 0 and high <= 1):
        raise RewardError(
            f"frames reach from {low:.4g} to {high:.4g}; expected floats in 0..1: let the "
            "generator end in a sigmoid, or clamp them"
        )
    return clips_BTHW3


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """The nearest whole numbers, with the gradient of the values themselves (straight through)."""
    return values + (values.round() - values).detach()


@contextmanager
def _checkpointed(model: LMME3DHF) -> Iterator[None]:
    """Lets each layer keep its input alone, and be computed again on the way back. The library's
    own switch works for models in training mode only, and this one is not.
    """
    layers = [*model.model.visual.blocks, *model.model.language_model.layers]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
