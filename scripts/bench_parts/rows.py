"""The rows R1 to R12: one lever each, the plain path against ours on the same samples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from bench_parts import material, measure, package, plain
from bench_parts.measure import Row
from scipy import ndimage, stats
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPast

from lmme3dhf.annotations.descriptions import REPLY_PREFIX, distortion_reply
from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.dialogue import DialogueEncoder, with_tokens
from lmme3dhf.data.gen3dhf import PROMPTS, level_reply
from lmme3dhf.data.pixels import read_pixels
from lmme3dhf.data.video import read_clip
from lmme3dhf.metrics.saliency import saliency_scores
from lmme3dhf.metrics.significance import bootstrap_intervals
from lmme3dhf.models.modeling import LMME3DHF, load_processor
from lmme3dhf.stages.media import frame_choice
from lmme3dhf.stages.run import load_model
from lmme3dhf.vocabulary import LEVELS

# Losses, gradients and logits of float32 in another order of summation.
ROUNDING = 2e-4


@dataclass(frozen=True)
class Bench:
    """The material of a run of the benchmark, made when it is first needed.

    Attributes:
        folder: For models, clips and stores.
        repeats: How often each side is timed.
        gate_px: Side of the frames as the paper says; small enough for a CPU.
        default_px: Side that the released code makes of a 512x512 clip.
    """

    folder: Path
    repeats: int = 5
    gate_px: int = 224
    default_px: int = 504

    @cached_property
    def model(self) -> Path:
        """Folder of the model."""
        return material.save_model(self.folder / "model", "tiny")

    @cached_property
    def clip(self) -> Path:
        """A clip of 10 Mbit/s, as the generators' own writer makes them."""
        return material.write_clip(self.folder / "clip.mp4", mbit_s=10)

    @cached_property
    def light_clip(self) -> Path:
        """The same pictures at constant quality: few bits, quick to decode."""
        return material.write_clip(self.folder / "light.mp4", mbit_s=None)

    @property
    def features(self) -> Path:
        """Folder of the stores."""
        return self.folder / "features"


def _plain_trainee(bench: Bench, **how: bool) -> SimpleNamespace:
    model, processor = plain.load(bench.model)
    adapted = plain.for_training(model, **how)
    return SimpleNamespace(model=adapted, processor=processor, optimiser=plain.optimiser(adapted))


def _our_trainee(bench: Bench, side_px: int, questions: int, **how: bool) -> package.Training:
    config = package.settings(bench.model, bench.features, side_px, **how)
    samples = material.samples([bench.clip], questions)
    return package.stage_1(config, bench.model, samples, plain.optimiser)


def _plain_gradients(trainee: SimpleNamespace, samples, choice) -> tuple[float, dict]:
    """Loss and gradients of one step over some samples, each token weighted alike, as one batch of
    them would have it.
    """
    inputs = [
        plain.training_inputs(trainee.processor, s, plain.read_frames(s.path, choice))
        for s in samples
    ]
    counts = [int((batch["labels"] != -100).sum()) for batch in inputs]
    total = 0.0
    for batch, count in zip(inputs, counts, strict=True):
        loss = plain.text_loss(trainee.model, batch) * count / sum(counts)
        loss.backward()
        total += float(loss.detach())
    return total, _taken_gradients(trainee.model)


def _our_gradients(training: package.Training) -> tuple[float, dict]:
    loss = package.backward(training, training.batches())
    return loss, _taken_gradients(training.model)


def _taken_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = plain.gradients(model)
    model.zero_grad()
    return found


def _apart(first: tuple[float, dict], second: tuple[float, dict]) -> float:
    loss = abs(first[0] - second[0]) / abs(first[0])
    return max(loss, measure.relative(first[1], second[1]))


LOSS_AND_GRADIENTS = "loss and gradients of the adapters, relative to the largest"


def against_the_store(
    bench: Bench, id: str, side_px: int, questions: int, *, hook: bool = True
) -> Row:
    """R1 and R4: a clip's questions in epochs 2..N, the plain path against ours.

    Args:
        bench: The material.
        id: Of the row.
        side_px: Side of the frames.
        questions: 1 for R1, which has nothing to pack; 2 or 3 for R4.
        hook: See `plain.for_training`.
    """
    samples, choice = material.samples([bench.clip], questions), material.choice(side_px)
    theirs = _plain_trainee(bench, hook=hook)
    ours = _our_trainee(bench, side_px, questions, packed=questions > 1)
    difference = _apart(_plain_gradients(theirs, samples, choice), _our_gradients(ours))
    costs = measure.interleaved(
        {
            "plain": lambda: plain.train_epoch(
                theirs.model, theirs.optimiser, theirs.processor, samples, choice
            ),
            "ours": lambda: [package.step(ours, [group]) for group in ours.batches()],
        },
        bench.repeats,
    )
    each = {"plain": [c / questions for c in costs["plain"]]}
    each["ours"] = [c / questions for c in costs["ours"]]
    how = "" if hook else ", the tower spared the gradients that the library's hook gives it"
    packed = f"the {questions} questions in one pass, " if questions > 1 else ""
    return measure.row(
        id,
        f"stage 1, epochs 2..N, {questions} question{'s' * (questions > 1)} a clip, {side_px} px, "
        "per sample",
        plain=(
            "for each question: decode, tower, gradient checkpointing, logits at all positions, a "
            f"step of the optimiser{how}",
            each["plain"],
        ),
        ours=(
            f"visual tokens from the store, {packed}no checkpointing, logits where a token is "
            "learnt, a step of the optimiser",
            each["ours"],
        ),
        difference=difference,
        of=LOSS_AND_GRADIENTS,
        tolerance=ROUNDING,
    )


def packed_training(bench: Bench, id: str, side_px: int, questions: int) -> Row:
    """R2 and R3: a clip's questions one by one against one packed sequence."""
    alone = _our_trainee(bench, side_px, questions, packed=False)
    packed = _our_trainee(bench, side_px, questions, packed=True)
    difference = _apart(_our_gradients(alone), _our_gradients(packed))
    costs = measure.interleaved(
        {
            "plain": lambda: package.step(alone, alone.batches()),
            "ours": lambda: package.step(packed, packed.batches()),
        },
        bench.repeats,
    )
    return measure.row(
        id,
        f"stage 1, {questions} questions on a clip, {side_px} px",
        plain=(
            f"ours with packed: false: {questions} passes from the store, one step of the "
            "optimiser",
            costs["plain"],
        ),
        ours=("one packed pass from the store, one step of the optimiser", costs["ours"]),
        difference=difference,
        of=LOSS_AND_GRADIENTS,
        tolerance=ROUNDING,
    )


def prompts() -> list[tuple[str, str, str]]:
    """(question, start of the answer, whole answer) of the three tasks."""
    prefix = "The {} of the human face in this video is"
    rated = [(PROMPTS[d], prefix.format(d), level_reply(GEN3DHF[d], LEVELS[2])) for d in GEN3DHF]
    named = distortion_reply(("Eye Distortions", "Mouth Distortions"))
    return [*rated, (PROMPTS["distortion"], REPLY_PREFIX, named)]


def _our_scorer(bench: Bench, side_px: int) -> SimpleNamespace:
    config = package.settings(bench.model, bench.features, side_px, store=False)
    processor = load_processor(bench.model)
    model = load_model(config, bench.model).eval()
    aspects = with_tokens(model.metric.aspects, processor.tokenizer)
    model.config.set_metric(model.metric.replace(aspects=aspects))
    encoder = DialogueEncoder(processor.tokenizer)
    pixels = read_pixels(
        bench.clip, frame_choice(config.frames), processor.video_processor, views=False
    )
    return SimpleNamespace(
        model=model,
        processor=processor,
        encoder=encoder,
        pixels=pixels,
        tokens=model.metric.level_tokens,
    )


def scoring(bench: Bench, id: str, side_px: int, *, generate: bool) -> Row:
    """R5 and R6: three questions about a decoded clip, each for itself against one pass.

    Args:
        bench: The material.
        id: Of the row.
        side_px: Side of the frames.
        generate: R6: the plain side writes each reply token by token.
    """
    model, processor = plain.load(bench.model)
    frames = plain.read_frames(bench.clip, material.choice(side_px))
    ours, questions = _our_scorer(bench, side_px), prompts()
    starts = [(prompt, prefix) for prompt, prefix, _ in questions]

    def theirs() -> torch.Tensor:
        if generate:
            return plain.generated_logits(model, processor, frames, questions, ours.tokens)
        return plain.level_logits(model, processor, frames, starts, ours.tokens)

    def one_pass() -> torch.Tensor:
        return package.level_logits(ours.model, ours.processor, ours.encoder, ours.pixels, starts)

    difference = measure.largest(theirs(), one_pass())
    costs = measure.interleaved({"plain": theirs, "ours": one_pass}, bench.repeats)
    what = (
        "for each question: patches, tower, and generation of the reply (the tokens that a trained "
        "model would write) with the library's cache"
        if generate
        else "for each question: patches, tower, a pass with logits at all positions"
    )
    return measure.row(
        id,
        f"three questions about a decoded clip, {side_px} px",
        plain=(what, costs["plain"]),
        ours=(
            "the tower once, one packed pass, logits of the level words behind the answers' "
            "prefixes",
            costs["ours"],
        ),
        difference=difference,
        of="logits of the level words, absolute",
        tolerance=1e-3,
    )


def decoding(bench: Bench, id: str, clip: Path) -> Row:
    """R7: a file to resized frames."""
    choice = material.choice(bench.default_px)
    theirs = plain.read_frames(clip, choice)[0]
    ours = read_clip(clip, choice)
    difference = measure.largest(theirs, ours.frames.float())
    costs = measure.interleaved(
        {
            "plain": lambda: plain.read_frames(clip, choice),
            "ours": lambda: read_clip(clip, choice),
        },
        bench.repeats,
    )
    return measure.row(
        id,
        f"a file of 240 frames 512x512, {material.bit_rate_mbit_s(clip):.1f} Mbit/s, to 8 frames "
        f"of {bench.default_px} px",
        plain=("qwen_vl_utils.fetch_video with decord", costs["plain"]),
        ours=("lmme3dhf.data.video.read_clip, header checks included", costs["ours"]),
        difference=difference,
        of="levels of the frames, of 255",
        tolerance=0,
    )


def stored_frames(bench: Bench, id: str, side_px: int) -> Row:
    """R8: the input of the tower, decoded or from the store of frames."""
    processor = load_processor(bench.model)
    choice = material.choice(side_px)
    config = package.settings(bench.model, bench.features, side_px)
    stored = package.frames_from_store(config, processor, bench.clip)
    prompt = plain.asked(processor, PROMPTS["quality"])

    def theirs() -> torch.Tensor:
        frames = plain.read_frames(bench.clip, choice)
        return plain.patches(frames, processor, prompt)["pixel_values_videos"]

    difference = measure.largest(theirs(), stored())
    # Short and full of memory traffic, which other programs disturb most.
    costs = measure.interleaved({"plain": theirs, "ours": stored}, 3 * bench.repeats)
    return measure.row(
        id,
        f"a clip to the tower's patches, {side_px} px",
        plain=("qwen_vl_utils.fetch_video and the processor", costs["plain"]),
        ours=("frames from the memory-mapped store, and the processor", costs["ours"]),
        difference=difference,
        of="normalised pixels",
        tolerance=0,
    )


def head_memory(id: str, *, length: int = 1358, learnt: int = 13, vocabulary: int = 152064) -> Row:
    """R9: what logits and loss hold at a time, with their backward pass.

    The bodies of both models are replaced by their ready hidden states, so that the heads are
    measured alone, each by its class's own forward.

    Args:
        id: Of the row.
        length: Tokens of the sequence; 1,358 is a clip with one question at 504 px.
        learnt: Of these, predicted ones; 13 is a level sentence.
        vocabulary: Of the model.
    """
    config = material.config("tiny", layers=1)
    config.text_config.vocab_size = vocabulary
    torch.manual_seed(material.SEED)
    stock = Qwen2_5_VLForConditionalGeneration(config).requires_grad_(False)
    ours = LMME3DHF(LMME3DHF.config_class.from_dict(config.to_dict())).requires_grad_(False)
    ours.lm_head.weight = stock.lm_head.weight
    width = config.text_config.hidden_size
    states = torch.randn(1, length, width)
    labels = torch.full((1, length), -100)
    labels[0, -learnt:] = torch.randint(0, vocabulary, (learnt,))
    reads = torch.arange(length - learnt - 1, length - 1)[None]
    # The language model hands on what it gets; the library makes its own record of that.
    stock.model.language_model.forward = lambda **kwargs: BaseModelOutputWithPast(
        last_hidden_state=kwargs["inputs_embeds"]
    )
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def theirs() -> None:
        leaf = states.clone().requires_grad_()
        loss = stock(inputs_embeds=leaf, labels=labels).loss
        loss.backward()
        found["plain"] = (loss.detach(), leaf.grad[0, reads[0]])

    def at_reads() -> None:
        leaf = states[:, reads[0]].clone().requires_grad_()
        ours.hidden_at = lambda **kwargs: leaf
        output = ours(
            reads=reads,
            learnt=torch.arange(learnt),
            targets=labels[0, -learnt:],
            video_embeds=states,
        )
        loss = output.token_losses.mean()
        loss.backward()
        found["ours"] = (loss.detach(), leaf.grad[0])

    costs = measure.interleaved(
        {"plain": theirs, "ours": at_reads},
        1,
        clock=lambda call: measure.memory_peak(call) / 2**20,
        warm_up=False,
    )
    (loss, gradient), (our_loss, our_gradient) = found["plain"], found["ours"]
    scale = float(gradient.abs().max())
    return measure.row(
        id,
        f"peak memory of logits and loss with their gradients, {length:,} positions of which "
        f"{learnt} are learnt, {vocabulary:,} words, float32",
        plain=("the stock class: logits and loss at all positions", costs["plain"]),
        ours=("our class: where a token is learnt", costs["ours"]),
        difference=max(
            measure.largest(loss, our_loss) / float(loss),
            measure.largest(gradient, our_gradient) / scale,
        ),
        of="loss and gradient of the hidden states, relative to the largest",
        tolerance=ROUNDING,
        unit="MB",
    )


def auc_judd_by_thresholds(
    map_HW: np.ndarray, fixated_HW: np.ndarray, reaching: Callable[[float], int] | None = None
) -> float:
    """The definition, one threshold after the other: at each fixated value the share of fixated and
    of other pixels that reach it, and the area below the straight lines between these points.

    Args:
        map_HW: Different values everywhere.
        fixated_HW: Boolean.
        reaching: How many pixels reach a threshold; None counts them in a Python loop.
    """
    pixels = map_HW.ravel().tolist()
    if reaching is None:

        def reaching(threshold: float) -> int:
            return sum(value >= threshold for value in pixels)

    thresholds = sorted(map_HW[fixated_HW].tolist(), reverse=True)
    fixated, others = len(thresholds), len(pixels) - len(thresholds)
    area, hits, alarms = 0.0, 0.0, 0.0
    for reached, threshold in enumerate(thresholds, 1):
        hit, alarm = reached / fixated, (reaching(threshold) - reached) / others
        area += (alarm - alarms) * (hit + hits) / 2
        hits, alarms = hit, alarm
    return area + (1 - alarms) * (1 + hits) / 2


def auc_judd(
    bench: Bench, id: str, fixations: int, side_px: int = 256, *, by_numpy: bool = False
) -> Row:
    """R10: AUC-Judd of a map without ties, so that no jitter is drawn.

    Args:
        bench: For the repeats.
        id: Of the row.
        fixations: Fixated pixels.
        side_px: Of the map.
        by_numpy: The plain side counts the pixels above a threshold with NumPy.
    """
    rng = np.random.default_rng(material.SEED)
    map_HW = ndimage.gaussian_filter(rng.random((side_px, side_px)), 8)
    fixated_HW = np.zeros(map_HW.size, bool)
    fixated_HW[rng.choice(map_HW.size, fixations, replace=False)] = True
    fixated_HW = fixated_HW.reshape(map_HW.shape)
    counted = (lambda threshold: int((map_HW >= threshold).sum())) if by_numpy else None

    def ours() -> float:
        return saliency_scores(map_HW, None, fixated_HW)["auc_judd"]

    def theirs() -> float:
        return auc_judd_by_thresholds(map_HW, fixated_HW, counted)

    difference = abs(ours() - theirs())
    costs = measure.interleaved({"plain": theirs, "ours": ours}, bench.repeats)
    how = "NumPy counts the pixels above each" if by_numpy else "in Python, by the definition"
    return measure.row(
        id,
        f"AUC-Judd, a map of {side_px}x{side_px}, {fixations} fixations",
        plain=(f"a loop over the thresholds, {how}", costs["plain"]),
        ours=("lmme3dhf.metrics.saliency, which gives AUC, AUC-Borji and NSS along", costs["ours"]),
        difference=difference,
        of="AUC-Judd",
        tolerance=1e-12,
    )


def bootstrap(bench: Bench, id: str, resamples: int = 2000, videos: int = 400) -> Row:
    """R11: the interval of a rank correlation."""
    rng = np.random.default_rng(material.SEED)
    mos_N = rng.normal(50, 12, videos)
    predicted_N = mos_N + rng.normal(0, 8, videos)

    def theirs() -> np.ndarray:
        drawn = np.random.default_rng(material.SEED)
        values = []
        for _ in range(resamples):
            index_N = drawn.integers(videos, size=videos)
            values.append(stats.spearmanr(predicted_N[index_N], mos_N[index_N]).statistic)
        return np.quantile(values, [0.025, 0.975])

    def ours() -> np.ndarray:
        drawn = np.random.default_rng(material.SEED)
        found = bootstrap_intervals(predicted_N, mos_N, drawn, resamples=resamples)["srcc"]
        return np.array([found.low, found.high])

    difference = measure.largest(theirs(), ours())
    costs = measure.interleaved({"plain": theirs, "ours": ours}, bench.repeats)
    return measure.row(
        id,
        f"interval of SRCC, {resamples:,} resamples of {videos} videos",
        plain=("scipy.stats.spearmanr on each resample", costs["plain"]),
        ours=(
            "lmme3dhf.metrics.significance, which gives the intervals of PLCC, KRCC, RMSE and MAE "
            "along",
            costs["ours"],
        ),
        difference=difference,
        of="ends of the interval on the same resamples",
        tolerance=1e-12,
    )


def stage_3(bench: Bench, id: str, side_px: int, clips: int = 2) -> Row:
    """R12: an epoch of stage 3, features computed in it or stored."""
    paths = material.copies(bench.clip, clips, bench.folder / "views")
    maps = material.saliency_maps(paths, bench.folder / "maps")
    sides = {
        name: package.stage_3(
            package.settings(bench.model, bench.features, side_px, store=store),
            bench.model,
            paths,
            maps,
            plain.optimiser,
        )
        for name, store in (("plain", False), ("ours", True))
    }
    before = {name: package.saliency_losses(side, learn=False) for name, side in sides.items()}
    difference = measure.largest(before["plain"], before["ours"])
    costs = measure.interleaved(
        {
            name: (lambda side=side: package.saliency_losses(side, learn=True))
            for name, side in sides.items()
        },
        bench.repeats,
    )
    return measure.row(
        id,
        f"stage 3, an epoch over {clips} clips, three views of {side_px} px, batch size 1",
        plain=(
            "for each clip: decode, tower, language model; forward, backward and step of the "
            "decoder",
            costs["plain"],
        ),
        ours=(
            "features from the memory-mapped store; forward, backward and step of the decoder",
            costs["ours"],
        ),
        difference=difference,
        of="losses of the clips, absolute",
        tolerance=0,
    )


def all_rows(bench: Bench) -> dict[str, Callable[[], list[Row]]]:
    """Id -> measures the row and those that stand beside it.

    R2 and R3 have their gates at the released code's size: sharing a clip can save no more than its
    tokens, and at 224 px three questions with their replies are a third of all.
    """
    small, large = bench.gate_px, bench.default_px
    beside = f" {large} px"

    def r1() -> list[Row]:
        return [
            against_the_store(bench, "R1", small, 1),
            against_the_store(bench, f"R1{beside}", large, 1),
            against_the_store(bench, "R1 no hook", small, 1, hook=False),
        ]

    def r2(id: str, questions: int) -> list[Row]:
        return [
            packed_training(bench, id, large, questions),
            packed_training(bench, f"{id} {small} px", small, questions),
        ]

    def r4() -> list[Row]:
        return [
            against_the_store(bench, "R4", small, 2),
            against_the_store(bench, "R4b", small, 3),
            against_the_store(bench, f"R4{beside}", large, 2),
        ]

    def r10() -> list[Row]:
        return [
            auc_judd(bench, "R10", 500),
            auc_judd(bench, "R10 60 fixations", 60),
            auc_judd(bench, "R10 with NumPy", 500, by_numpy=True),
        ]

    return {
        "R1": r1,
        "R2": lambda: r2("R2", 2),
        "R3": lambda: r2("R3", 3),
        "R4": r4,
        "R5": lambda: [
            scoring(bench, "R5", small, generate=False),
            scoring(bench, f"R5{beside}", large, generate=False),
        ],
        "R6": lambda: [scoring(bench, "R6", small, generate=True)],
        "R7": lambda: [
            decoding(bench, "R7", bench.clip),
            decoding(bench, "R7 few bits", bench.light_clip),
        ],
        "R8": lambda: [stored_frames(bench, "R8", large)],
        "R9": lambda: [head_memory("R9")],
        "R10": r10,
        "R11": lambda: [bootstrap(bench, "R11")],
        "R12": lambda: [
            stage_3(bench, "R12", small),
            stage_3(bench, f"R12{beside}", large),
        ],
    }
