"""How the cost grows with videos, frames and resolution, and which part of a step takes which share
of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_parts import material, measure, package, plain
from bench_parts.measure import Parts
from bench_parts.rows import Bench
from torch import nn
from transformers import ProcessorMixin

from lmme3dhf.data.dialogue import with_tokens
from lmme3dhf.models.modeling import LMME3DHF, load_processor
from lmme3dhf.scorer import Scorer
from lmme3dhf.stages.media import frame_choice, visual_store
from lmme3dhf.stages.run import load_model

VIDEOS = (2, 4, 8, 16)
FRAMES = (4, 8, 16, 32)
SIDES_PX = (112, 168, 224, 336, 504)
QUESTIONS = 3


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Cost against size, and the power law through it.

    Attributes:
        what: What was done.
        against: What the sizes are.
        sizes: Ascending.
        seconds: Processor time at each size.
        exponent: Of the power law fitted to the logarithms; 1 is linear growth.
        error: Its standard error.
    """

    what: str
    against: str
    sizes: list[float]
    seconds: list[float]
    exponent: float
    error: float

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def power_law(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Exponent of the least-squares line through the logarithms, and its standard error (NaN for
    fewer than three points).
    """
    x, y = np.log(sizes), np.log(seconds)
    x_centred = x - x.mean()
    slope = float(x_centred @ y / (x_centred @ x_centred))
    if len(x) < 3:
        return slope, float("nan")
    residuals = y - y.mean() - slope * x_centred
    return slope, float(np.sqrt(residuals @ residuals / (len(x) - 2) / (x_centred @ x_centred)))


def curve(what: str, against: str, seconds: Mapping[float, Sequence[float]]) -> Curve:
    """A curve through the medians of the repeats.

    Args:
        what: What was done.
        against: What the sizes are.
        seconds: Size -> every repeat.
    """
    sizes = sorted(seconds)
    medians = [float(np.median(seconds[size])) for size in sizes]
    exponent, error = power_law(sizes, medians)
    return Curve(
        what=what, against=against, sizes=sizes, seconds=medians, exponent=exponent, error=error
    )


def scorer(bench: Bench, side_px: int, frames: int = 8) -> Scorer:
    """The package's scorer on random weights, two clips at a time."""
    config = package.settings(bench.model, bench.features, side_px, frames=frames, store=False)
    model = load_model(config, bench.model)
    processor = load_processor(bench.model)
    made = ready_scorer(model, processor, frame_choice(config.frames).to_dict(), workers=0)
    made.batch_size = 2
    return made


def ready_scorer(
    model: LMME3DHF, processor: ProcessorMixin, frames: dict[str, Any], workers: int
) -> Scorer:
    """A scorer on a model that was never trained: a head from the seed is as fast as another.

    Args:
        model: Changed in place: its metric gets the level words' tokens and the frame choice.
        processor: Of its folder.
        frames: The frame choice.
        workers: Processes that decode.
    """
    aspects = with_tokens(model.metric.aspects, processor.tokenizer)
    model.config.set_metric(model.metric.replace(aspects=aspects, frames=frames))
    model.missing_parts = []
    return Scorer(model, processor, workers=workers)


def _score(ready: Scorer, clips: list[Path]) -> None:
    for _ in ready.assess(clips, maps=False):
        pass


def with_videos(bench: Bench, counts: Sequence[int] = VIDEOS) -> list[Curve]:
    """Filling the store, an epoch of stage 1 from it, and scoring files, against their number."""
    clips = material.copies(bench.light_clip, max(counts), bench.folder / "many")
    side_px = bench.gate_px
    processor = load_processor(bench.model)
    ready = scorer(bench, side_px)
    config = package.settings(bench.model, bench.features, side_px)
    samples = material.samples(clips, QUESTIONS)
    training = package.stage_1(config, bench.model, samples, plain.optimiser)
    fresh = iter(range(10**6))

    def fill(count: int) -> None:
        folder = bench.folder / f"fill{next(fresh)}"
        empty = package.settings(bench.model, folder, side_px)
        visual_store(empty, bench.model, processor, clips[:count], "bench")

    def epoch(count: int) -> None:
        for group in training.batches()[:count]:
            package.step(training, [group])

    jobs: dict[str, Callable[[int], None]] = {
        "filling the store of visual tokens": fill,
        "an epoch of stage 1 from the store, three questions a video": epoch,
        "scoring files, three questions a video": lambda count: _score(ready, clips[:count]),
    }
    return [
        _measured(bench, what, "videos", counts, lambda size, job=job: lambda: job(size))
        for what, job in jobs.items()
    ]


def with_size(
    bench: Bench, frames: Sequence[int] = FRAMES, sides_px: Sequence[int] = SIDES_PX
) -> list[Curve]:
    """A packed step of stage 1 from the store, and scoring a decoded clip, against frames and
    against the area of a frame.
    """

    def trained(count: int, side_px: int) -> Callable[[], float]:
        config = package.settings(bench.model, bench.features, side_px, frames=count)
        samples = material.samples([bench.light_clip], QUESTIONS)
        training = package.stage_1(config, bench.model, samples, plain.optimiser)
        return lambda: package.step(training, training.batches())

    def scored(count: int, side_px: int) -> Callable[[], None]:
        ready = scorer(bench, side_px, count)
        return lambda: _score(ready, [bench.light_clip])

    small = bench.gate_px
    step, file = "a packed step of stage 1 from the store", "scoring a file"
    return [
        _measured(bench, step, "frames", frames, lambda n: trained(n, small)),
        _measured(bench, file, "frames", frames, lambda n: scored(n, small)),
        _measured(bench, step, "pixels", sides_px, lambda n: trained(8, n), lambda n: n * n),
        _measured(bench, file, "pixels", sides_px, lambda n: scored(8, n), lambda n: n * n),
    ]


def _measured(
    bench: Bench,
    what: str,
    against: str,
    sizes: Sequence[int],
    prepare: Callable[[int], Callable[[], Any]],
    size_of: Callable[[int], float] = float,
) -> Curve:
    calls = {str(size): prepare(size) for size in sizes}
    costs = measure.interleaved(calls, max(2, bench.repeats // 2))
    return curve(what, against, {size_of(size): costs[str(size)] for size in sizes})


@contextmanager
def watched(model: nn.Module, parts: Parts) -> Iterator[Callable[[], None]]:
    """Marks the parts of the forward pass by the modules' ends, and of the backward pass by the
    moments when the gradients between the modules are there.

    Args:
        model: With adapters, the stock class or ours.
        parts: Adds them up.

    Yields:
        To be called after the backward pass: marks what ran last in it.
    """
    base = model.get_base_model().model
    running = ["head and loss"]

    def began(module: nn.Module, *given: Any) -> None:
        parts.mark("other")

    def ended(name: str, after: str) -> Callable:
        def hook(module: nn.Module, arguments: tuple, output: Any) -> None:
            parts.mark(name)
            tensor = getattr(output, "pooler_output", None)
            tensor = output.last_hidden_state if tensor is None else tensor

            def arrived(gradient: torch.Tensor) -> None:
                parts.mark(after)
                running[0] = name

            if tensor.requires_grad:
                tensor.register_hook(arrived)

        return hook

    handles = []
    for module, name, after in (
        (base.visual, "tower", "language model"),
        (base.language_model, "language model", "head and loss"),
    ):
        if module is not None:
            handles.append(module.register_forward_pre_hook(began))
            handles.append(module.register_forward_hook(ended(name, after)))
    try:
        yield lambda: parts.mark(running[0])
    finally:
        for handle in handles:
            handle.remove()


def plain_shares(bench: Bench, side_px: int, steps: int = 2) -> dict[str, float]:
    """Seconds a video of each part of the plain path: three questions one after the other."""
    model, processor = plain.load(bench.model)
    adapted = plain.for_training(model)
    optimiser = plain.optimiser(adapted)
    choice = material.choice(side_px)
    samples = material.samples([bench.clip], QUESTIONS)
    parts = Parts()
    plain.train_epoch(adapted, optimiser, processor, samples[:1], choice)
    with watched(adapted, parts) as backward_done:
        for sample in samples * steps:
            parts.start()
            frames = plain.read_frames(sample.path, choice)
            parts.mark("decode")
            batch = plain.training_inputs(processor, sample, frames)
            parts.mark("patches and tokens")
            loss = plain.text_loss(adapted, batch)
            parts.mark("head and loss")
            loss.backward()
            backward_done()
            optimiser.step()
            optimiser.zero_grad()
            parts.mark("optimiser")
    return {name: seconds / steps for name, seconds in parts.seconds.items()}


def our_shares(bench: Bench, side_px: int, steps: int = 4) -> dict[str, float]:
    """Seconds a video of each part of ours: three questions in one pass, from the store."""
    config = package.settings(bench.model, bench.features, side_px)
    samples = material.samples([bench.clip], QUESTIONS)
    training = package.stage_1(config, bench.model, samples, plain.optimiser)
    return training_shares(training, [training.batches()[0]] * (steps + 1), Parts())


def training_shares(
    training: package.Training, groups: Sequence[Sequence[int]], parts: Parts
) -> dict[str, float]:
    """Seconds of each part of a step, the first one left out.

    Args:
        training: From `package.stage_1`.
        groups: Items of each step.
        parts: With its clock.
    """
    device = next(training.model.parameters()).device
    package.step(training, [groups[0]])
    with watched(training.model, parts) as backward_done:
        for group in groups[1:]:
            parts.start()
            batch = training.collator([training.dataset[i] for i in group])
            batch.pop("names"), batch.pop("tokens")
            batch = package.to_device(batch, device)
            parts.mark("waiting for the batch")
            count = torch.tensor(training.loss.counts(batch), device=device)
            loss = (training.loss.sums(training.model, batch) / count).sum()
            parts.mark("head and loss")
            loss.backward()
            backward_done()
            training.optimiser.step()
            training.optimiser.zero_grad()
            parts.mark("optimiser")
    return {name: seconds / (len(groups) - 1) for name, seconds in parts.seconds.items()}
