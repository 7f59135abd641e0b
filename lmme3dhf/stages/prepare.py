"""Fills the stores of frozen features in a pass of its own (`lmme3dhf data features`).

The stages do the same when they start; here it can run before, elsewhere, or on more processes. The
language model's features of stage 3 are left to that stage: they belong to the model that stage 2
has yet to give.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from lmme3dhf.config import Config
from lmme3dhf.data.samples import DataError
from lmme3dhf.distributed import is_main
from lmme3dhf.features.store import FeatureStore
from lmme3dhf.models.modeling import load_configuration, load_processor
from lmme3dhf.stages import run as runs
from lmme3dhf.stages.media import frame_store, view_store, visual_store
from lmme3dhf.stages.saliency import saliency_geometry


def fill_stores(config: Config, *, verify: bool) -> None:
    """Computes what is missing for the lists of the settings, and the val lists beside them.

    Args:
        config: Settings; `config.model` is any model of the chain, for the tower is the same in all
            of them.
        verify: Compare every stored tensor with its checksum first, and compute damaged ones again.

    Raises:
        DataError: Nothing is to be stored by the settings, or see `features.store`.
    """
    if not config.data.store:
        raise DataError("data.store is false: nothing is to be stored; leave it out to fill stores")
    folder = runs.base_folder(config)
    processor = load_processor(folder)
    geometry = saliency_geometry(config, load_configuration(folder))
    rehearsed = config.score.rehearsal if config.score.language_weight else ()
    lists = (*config.text.lists, *config.score.lists, *rehearsed)
    asked = _clips(config, lists)
    mapped = _clips(config, config.saliency.lists)

    def frames() -> FeatureStore:
        if config.lora.vision:
            return frame_store(config, asked, "data")
        return visual_store(config, folder, processor, asked, "data")

    def views() -> FeatureStore:
        return view_store(config, folder, processor, geometry, mapped, "data")

    for fill in (frames, views):
        store = _verified(fill) if verify else fill()
        if is_main():
            print(f"{store.folder}: complete", flush=True)


def _clips(config: Config, lists: Sequence[str]) -> list[Path]:
    """The clips of some lists and, as far as they are there, of the val lists beside them."""
    root = config.data.resolved().root
    beside = [name for name in runs.validation_lists(lists) if (root / name).is_file()]
    samples = runs.listed_samples(config, list(dict.fromkeys(lists)))
    return [
        *(sample.path for sample in samples),
        *(s.path for s in runs.listed_samples(config, beside) if s.path.is_file()),
    ]


def _verified(fill: Callable[[], FeatureStore]) -> FeatureStore:
    store = fill()
    damaged = store.verify()
    if is_main():
        print(f"{store.folder}: {damaged} damaged shards" if damaged else f"{store.folder}: whole")
    return fill() if damaged else store
