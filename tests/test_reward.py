"""Rewards for frames in memory: equal to the scores of the file that holds them, with a true
gradient to the pixels, on the shipped tiny base with a random head.
"""

import copy
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from lmme3dhf.data.container import VideoError
from lmme3dhf.data.dialogue import with_tokens
from lmme3dhf.data.pixels import frame_pixels
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.data.video import FrameChoice, read_clip
from lmme3dhf.models.configuration import ModelError
from lmme3dhf.models.modeling import LMME3DHF, load_processor
from lmme3dhf.reward import RewardError, as_loss, as_reward
from lmme3dhf.scorer import Scorer
from tests.conftest import random_frames

BASE = Path(__file__).resolve().parents[1] / "lmme3dhf" / "models" / "tiny_base"
FRAMES = {"fps": None, "frames": 4, "min_pixels": 3136, "max_pixels": 3136}
T, FPS = 7, 5
READ = (0, 2, 4, 6)  # by hand: 4 of 7, evenly from the first to the last


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    """As if it had been trained: level tokens, and a head drawn wide so that scores differ."""
    model = LMME3DHF.from_pretrained(BASE, dtype=torch.float32)
    processor = load_processor(BASE)
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in model.heads["score"].layers:
            layer.weight.normal_(0, (2 / layer.in_features) ** 0.5)
        model.heads["score"].layers[-1].weight *= 0.2
    aspects = with_tokens(model.metric.aspects, processor.tokenizer)
    model.config.set_metric(model.metric.replace(aspects=aspects, frames=FRAMES))
    model.missing_parts = []
    return Scorer(model, processor, workers=0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Smooth noise, which survives coding; its sides are no multiples of 28, so it is resized."""
    small = random_frames(3, T, 16, 12).float()
    frames = torch.nn.functional.interpolate(small, (80, 60), mode="bicubic").clamp(0, 255).byte()
    path = tmp_path_factory.mktemp("clips") / "face.mp4"
    write_clip(path, list(frames.permute(0, 2, 3, 1).numpy()), fps=FPS)
    return path


@pytest.fixture(scope="module")
def decoded(clip) -> torch.Tensor:
    """(T, H, W, 3) uint8, as FFmpeg decodes the file, without a line of ours."""
    with av.open(str(clip)) as container:
        pictures = [p.to_ndarray(format="rgb24") for p in container.decode(video=0)]
    return torch.from_numpy(np.stack(pictures))


@pytest.fixture
def frames(decoded) -> torch.Tensor:
    return (decoded / 255).requires_grad_()


def gradient(reward, frames: torch.Tensor, fps: float = FPS) -> torch.Tensor:
    return torch.autograd.grad(reward(frames, fps).sum(), frames)[0]


def patches_seen(reward, frames: torch.Tensor, monkeypatch) -> torch.Tensor:
    """What reaches the vision tower."""
    seen = []
    tower = reward.model.model.visual
    run = type(tower).forward

    def look(self, patches, *args, **options):
        seen.append(patches.detach())
        return run(self, patches, *args, **options)

    monkeypatch.setattr(type(tower), "forward", look)
    reward(frames, FPS)
    return torch.cat(seen)


# Against the file


@pytest.mark.parametrize("dimension", ["quality", "authenticity", "mean"])
@pytest.mark.parametrize(
    "choice", [FrameChoice(**FRAMES), FrameChoice(fps=3.0, max_pixels=100_352)]
)
def test_rounded_frames_get_the_scores_of_their_file(scorer, clip, frames, dimension, choice):
    """Of a file that is read by the other way from end to end. Catches other frames, another size,
    filter or time base, and a score that is read elsewhere.
    """
    scorer = copy.copy(scorer)
    scorer.choice = choice
    (told,) = scorer.assess([clip], answers=None, maps=False)
    of_file = {"quality": told.quality.score, "authenticity": told.authenticity.score}
    of_file["mean"] = (of_file["quality"] + of_file["authenticity"]) / 2
    assert abs(of_file["quality"] - of_file["authenticity"]) > 0.1
    reward = as_reward(
        scorer, aspects=None if dimension == "mean" else dimension, round_to_8_bit=True
    )
    assert reward(frames, FPS).tolist() == pytest.approx([of_file[dimension]], abs=1e-5)


def test_the_tower_sees_the_same_patches(scorer, clip, frames, monkeypatch):
    """To the last bit with rounding; without it no patch differs by more than half an 8-bit step,
    in units of CLIP's smallest deviation. Catches a rounding at another place, and one that is
    there although nobody asked for it.
    """
    expected = frame_pixels(read_clip(clip, scorer.choice), scorer.processor.video_processor).values
    rounded = as_reward(scorer, round_to_8_bit=True)
    assert torch.equal(patches_seen(rounded, frames, monkeypatch), expected)
    difference = (patches_seen(as_reward(scorer), frames, monkeypatch) - expected).abs().max()
    assert 1e-4 < difference <= 0.5 / 255 / 0.26130258 + 1e-5


def test_frames_between_8_bit_steps_are_rounded_to_them(scorer, frames, monkeypatch):
    """A generator's floats are not on the 8-bit grid. Catches a rounding of the resized frames
    alone, which a file's pixels do not have behind them.
    """
    reward = as_reward(scorer, round_to_8_bit=True)
    steps = torch.rand(frames.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    between = ((frames.detach() * 255 + 0.98 * steps) / 255).clamp(0, 1)
    assert (between - frames).abs().max() > 0.001
    expected = patches_seen(reward, frames, monkeypatch)
    assert torch.equal(patches_seen(reward, between, monkeypatch), expected)


def test_a_loss_is_a_reward_the_other_way_round(scorer, frames):
    """Catches a generator that is trained to make worse faces."""
    (reward,) = as_reward(scorer, aspects="quality")(frames, FPS).tolist()
    (loss,) = as_loss(scorer, aspects="quality")(frames, FPS).tolist()
    assert loss == pytest.approx(1 - reward / 100, abs=1e-6)


# The gradient


class InDouble(TorchFunctionMode):
    """Takes every cast to float32 for one to float64. The library computes norms, rotary positions
    and softmax in float32 whatever the model's type, and the head does; finite differences of
    those would be rounding noise.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        function = torch.Tensor.double if function is torch.Tensor.float else function
        args = [torch.float64 if arg is torch.float32 else arg for arg in args]
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return function(*args, **kwargs)


def test_the_gradient_is_that_of_the_reward(scorer, frames):
    """Central differences along random directions in float64, which for a smooth function agree to
    the square of the step. Catches a way to the pixels that is cut, passed twice or scaled.
    """
    precise = copy.copy(scorer)
    precise.model = copy.deepcopy(scorer.model).double()
    reward = as_reward(precise)
    generator = torch.Generator().manual_seed(1)
    # Off the ends of the range, where clamping has a kink.
    x = (0.25 + frames.detach().double() / 2).requires_grad_()
    with InDouble():
        slope = gradient(reward, x)
        assert slope.dtype == torch.float64
        for _ in range(4):
            direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
            step = 1e-3 * direction / direction.norm()
            with torch.no_grad():
                rise = reward(x + step, FPS) - reward(x - step, FPS)
            assert rise.dtype == torch.float64
            expected = 2 * (slope * step).sum()
            assert float(rise / expected) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("rounded", [False, True])
def test_only_frames_that_are_read_get_a_gradient(scorer, frames, rounded):
    """Catches frames chosen elsewhere than the scorer's, and a rounding that stops the gradient."""
    slope = gradient(as_reward(scorer, round_to_8_bit=rounded), frames)
    assert slope.isfinite().all()
    assert tuple(i for i in range(T) if slope[i].abs().max() > 0) == READ
    # Everywhere in these frames, not at an edge alone.
    assert (slope[list(READ)].abs() > 0).float().mean() > 0.99


def test_the_model_is_frozen_and_learns_nothing(scorer, frames):
    """Catches a metric that adapts to the generator it is to judge, gradients that nobody needs in
    memory, and an `a.train()` of the surrounding model that changes the metric.
    """
    scorer = copy.copy(scorer)
    scorer.model = copy.deepcopy(scorer.model).requires_grad_(True)
    generator = torch.nn.Module()
    generator.metric = as_loss(scorer)
    generator.train()
    generator.metric(frames, FPS).sum().backward()
    parameters = list(generator.parameters())
    assert len(parameters) > 100
    assert all(p.grad is None and not p.requires_grad for p in parameters)
    assert not any(module.training for module in scorer.model.modules())
    assert frames.grad.abs().max() > 0


def test_scoring_before_does_no_harm(scorer, clip, frames):
    """The scorer runs under inference_mode. Catches tensors that it leaves in caches, and that
    autograd refuses to save.
    """
    list(scorer.assess([clip], answers=None, maps=False))
    assert gradient(as_reward(scorer), frames).abs().max() > 0


def test_ascent_raises_the_reward(scorer, frames):
    """Of a blurred clip, in a few small steps along the gradient. Catches a gradient of the wrong
    sign. (That a higher reward is no better picture, see the module.)
    """
    blurred = torch.nn.functional.avg_pool2d(frames.detach().permute(0, 3, 1, 2), 5, 1, 2)
    x = blurred.permute(0, 2, 3, 1).clone()
    reward = as_reward(scorer)
    values = []
    for _ in range(6):
        x.requires_grad_()
        value = reward(x, FPS)
        values.append(value.item())
        (slope,) = torch.autograd.grad(value.sum(), x)
        x = (x.detach() + 0.5 / 255 * slope.sign()).clamp(0, 1)
    assert np.diff(values).min() > 0
    assert values[-1] - values[0] > 1


def kept_bytes(reward, frames: torch.Tensor) -> tuple[int, torch.Tensor]:
    """What a forward pass keeps for the way back, and the gradient."""
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = reward(frames, FPS).sum()
    return sum(kept), torch.autograd.grad(value, frames)[0]


def test_checkpointing_keeps_less_and_changes_nothing(scorer, frames):
    """The library's own switch is without effect on a model in evaluation. Catches a setting that
    does nothing, and one that is left on for whoever shares the model.
    """
    whole, expected = kept_bytes(as_reward(scorer), frames)
    little, slope = kept_bytes(as_reward(scorer, gradient_checkpointing=True), frames)
    assert little < whole / 2
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7)
    assert not any("forward" in vars(module) for module in scorer.model.modules())


# Shapes, types, devices


def test_a_batch_is_its_clips_one_by_one(scorer, frames):
    """Rewards and gradients. Catches clips that see each other, and axes that are mixed up."""
    reward = as_reward(scorer)
    other = frames.detach().flip(0, 1).requires_grad_()
    batch = torch.stack([frames, other]).movedim(-1, 2).detach().requires_grad_()
    assert batch.shape[:3] == (2, T, 3)
    together = reward(batch, FPS)
    assert abs(together[0] - together[1]) > 0.01
    alone = torch.cat([reward(frames, FPS), reward(other, FPS)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    slopes = gradient(reward, batch).movedim(2, -1)
    for slope, single in zip(slopes, (frames, other), strict=True):
        expected = gradient(reward, single)
        torch.testing.assert_close(slope, expected, rtol=1e-3, atol=1e-4 * expected.abs().max())


def similarity(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0))


@pytest.mark.parametrize("type_", [torch.float32, torch.bfloat16, torch.float16])
def test_the_gradient_has_the_type_of_the_pixels(scorer, frames, type_):
    """Whatever the generator computes in. Catches a resize in half precision."""
    expected = gradient(as_reward(scorer), frames)
    slope = gradient(as_reward(scorer), frames.detach().to(type_).requires_grad_())
    assert slope.dtype == type_
    assert similarity(slope.float(), expected) > 0.9


def test_under_autocast_and_in_bfloat16(scorer, frames, tmp_path):
    """From a folder, as a training script has it. Catches types that do not meet, and a gradient
    that is lost on the way.
    """
    scorer.model.save_pretrained(tmp_path / "model")
    scorer.processor.save_pretrained(tmp_path / "model")
    folder = tmp_path / "model"
    exact = as_reward(folder, device="cpu")
    expected, slope = exact(frames, FPS), gradient(exact, frames)
    torch.testing.assert_close(expected, as_reward(scorer)(frames, FPS), rtol=0, atol=1e-5)
    coarse = as_reward(folder, device="cpu", dtype="bfloat16")
    assert coarse.model.model.visual.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        autocast, autocast_slope = exact(frames, FPS), gradient(exact, frames)
    for value, other in (
        (coarse(frames, FPS), gradient(coarse, frames)),
        (autocast, autocast_slope),
    ):
        assert value.dtype == other.dtype == torch.float32
        assert not torch.equal(value, expected)
        assert abs(value - expected) < 0.05 * 100
        assert similarity(other, slope) > 0.8


def test_without_gradient_it_is_a_number(scorer, frames):
    """For logging. Catches a module that insists on a graph."""
    reward = as_reward(scorer)
    with torch.no_grad():
        value = reward(frames, FPS)
    assert not value.requires_grad
    assert not reward(frames.detach(), FPS).requires_grad


def test_fewer_frames_can_be_read(scorer, frames):
    """By hand: 2 of 7 are the first and the last. Catches a setting that reaches nothing."""
    slope = gradient(as_reward(scorer, frames=2), frames)
    assert [i for i in range(T) if slope[i].abs().max() > 0] == [0, 6]
    with pytest.raises(ValueError, match="frames is 3, expected an even number"):
        as_reward(scorer, frames=3)


def test_the_example_trains_a_generator(scorer):
    """The loop of the module's docstring, five steps. Catches an example that does not run, and a
    loss that reaches no parameter.
    """
    torch.manual_seed(0)
    generator = torch.nn.Sequential(
        torch.nn.Linear(4, T * 3 * 28 * 28), torch.nn.Unflatten(1, (T, 3, 28, 28))
    )
    latents = torch.randn(2, 4)
    realism = as_loss(scorer, aspects="authenticity")
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = realism(generator(latents).sigmoid(), fps=FPS).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01


# Refused


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (torch.zeros(7, 64, 64), "shape .7, 64, 64.; expected one clip"),
        (torch.zeros(7, 3, 64, 64), "permute them"),
        (torch.zeros(2, 7, 64, 64, 3), r"a batch \(B, T, 3, H, W\)"),
        (torch.zeros(0, 64, 64, 3), "expected one clip"),
        (torch.zeros(1, 64, 64, 3), "2 frames or more"),
        (torch.zeros(7, 64, 64, 3, dtype=torch.uint8), "torch.uint8, which can carry no gradient"),
        (np.zeros((7, 64, 64, 3), np.float32), "expected a tensor of floats"),
        (torch.full((7, 64, 64, 3), 255.0), "reach from 255 to 255; expected floats in 0..1"),
        (torch.full((7, 64, 64, 3), -0.1), "reach from -0.1 to -0.1"),
        (torch.full((7, 64, 64, 3), float("nan")), "reach from nan to nan"),
    ],
)
def test_frames_that_are_none_are_refused(scorer, bad, says):
    """In one sentence. Catches a reward of nonsense, and torch's own words deep inside."""
    with pytest.raises(RewardError, match=says):
        as_reward(scorer)(bad, FPS)


def test_clips_that_a_file_could_not_be_are_refused(scorer):
    """As for files, where three frames are a clip. Catches pictures of one patch."""
    assert torch.isfinite(as_reward(scorer)(torch.zeros(3, 64, 64, 3), FPS)).all()
    with pytest.raises(VideoError, match="64x20; expected at least 28") as caught:
        as_reward(scorer)(torch.zeros(1, 7, 3, 20, 64), FPS)
    assert caught.value.reason == "too_small"


def test_frames_by_rate_need_a_rate(scorer, frames):
    """Catches a rate that is guessed and decides which frames are seen."""
    scorer = copy.copy(scorer)
    scorer.choice = FrameChoice()
    with pytest.raises(ValueError, match="need fps"):
        as_reward(scorer)(frames)


def test_settings_that_cannot_be_are_refused(scorer):
    """Catches options that are dropped without a word, and a head that was never trained."""
    with pytest.raises(RewardError, match="'realism' is none of this model's: quality, auth"):
        as_reward(scorer, aspects="realism")
    with pytest.raises(RewardError, match="device, load cannot be set for a Scorer"):
        as_reward(scorer, device="cpu", load="8bit")
    untrained = Scorer(scorer.model, scorer.processor, workers=0, scores=False)
    with pytest.raises(ModelError, match="rewards nothing"):
        as_loss(untrained)
