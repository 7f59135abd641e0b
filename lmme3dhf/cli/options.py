"""What several verbs share: options of a scorer, threads, exit status."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from lmme3dhf import distributed
from lmme3dhf.config import Config

SOME_FILES_FAILED = 3
ALLOW_OUTSIDE = "take clips of a list wherever it says: absolute paths, and links out of the folder"
# In a checkout; an installed package is told with --config and --rows.
CONFIGS = Path(__file__).resolve().parents[2] / "configs"

Verb = tuple[Callable[[], ArgumentParser], Callable[[Namespace, Config | None], int]]


def add_scorer_arguments(parser: ArgumentParser) -> None:
    """How a model is loaded and fed."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    types = ("auto", "float32", "bfloat16", "float16")
    parser.add_argument("--dtype", choices=types, default="auto", help="of the backbone")
    add = parser.add_argument
    add("--load", choices=("bf16", "8bit", "4bit"), help="store the language model in fewer bits")
    attentions = ("auto", "sdpa", "flash_attention_2")
    add("--attn_implementation", choices=attentions, default="auto", help="of the vision tower")
    add("--batch_size", type=PositiveInt, default=8, help="clips at a time")
    add(
        "--workers",
        type=NonNegativeInt | None,
        help="processes that decode ahead (default: one a core, at most 16)",
    )
    add(
        "--timeout",
        type=PositiveFloat,
        default=60.0,
        help="seconds of processor time to decode one file; by the clock ten times as many",
    )
    add(
        "--views",
        type=float,
        nargs=3,
        help="where clips show the face at -45, 0 and +45 degrees, as fractions of the clip "
        "(default: 0.25 0.5 0.75, for a turn from -90 to +90); decides the saliency maps",
    )
    add_verify_argument(parser)


def add_verify_argument(parser: ArgumentParser) -> None:
    """Whether a model is looked at before it is used."""
    text = "compare every file of the model with its manifest first"
    parser.add_argument("--verify", type=bool, default=True, help=text)


def model_of(args: Namespace) -> Path:
    """Folder of the model that the options name, verified by rank 0; every rank has to ask."""
    from lmme3dhf.models.folder import verify_folder
    from lmme3dhf.models.hub import model_folder

    folder = model_folder(args.model)
    if args.verify:
        distributed.on_main(lambda: verify_folder(folder))
    return folder


def scorer_of(args: Namespace, folder: Path) -> Any:
    """Loads the scorer that the options describe.

    Args:
        args: Parsed options of `add_scorer_arguments`.
        folder: The folder that `model_of` gave.
    """
    distributed.start()
    from lmme3dhf.scorer import Scorer

    return Scorer.from_pretrained(
        folder,
        verify=False,  # done
        device=args.device,
        dtype=args.dtype,
        attn_implementation=args.attn_implementation,
        load=args.load,
        batch_size=args.batch_size,
        workers=args.workers,
        timeout_s=args.timeout,
        # Without ratings nobody reads a score.
        scores=args.get("scores", True) and args.get("ratings", True),
        views=args.views,
    )


def views_of(args: Namespace) -> tuple[float, ...] | None:
    """The views that the options name, None for the usual ones, before anything is loaded.

    Raises:
        DataError: Impossible views.
    """
    from lmme3dhf.data.sources import three_views

    views = three_views(args.views)
    return None if views == three_views(None) else views


def use_threads(config: Config) -> None:
    """Sets the number of threads before a library reads it."""
    if config.threads:
        # Before torch is imported, so that its thread pools never start larger.
        os.environ["OMP_NUM_THREADS"] = str(config.threads)
        # Small models wait for their threads all the time. With the default, threads that wait keep
        # a core busy: as fast on idle cores, five times slower on shared ones.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
