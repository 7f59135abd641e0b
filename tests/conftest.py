"""What several test files share: one thread, the tiny base with random weights, made-up frames, and
where the real inputs are, when they are there at all.
"""

import importlib.util
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.assessment import Rating
from lmme3dhf.scores import ScoreRow, fields_of

# Files of tests that take longest; with several processes they begin first, and what is quick fills
# the gaps at the end.
LONGEST = (
    "test_chain.py",
    "test_docs.py",
    "test_crossval.py",
    "test_distributed.py",
    "test_ablations.py",
    "test_page.py",
    "test_bench_peer.py",
    "test_browser.py",
    "test_habits.py",
)
# The aspects of Gen3DHF, in their order.
DIMENSIONS = ("quality", "authenticity")
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))


GEN3DHF_FIELDS = fields_of({name: aspect.scale for name, aspect in GEN3DHF.items()})


def score_row(**fields) -> ScoreRow:
    """A row of a table of scores from its columns, those of Gen3DHF's aspects included."""
    ratings = {
        name: Rating(
            score=fields.pop(name),
            level=fields.pop(f"{name}_level", None),
            level_probabilities=fields.pop(f"{name}_probabilities", None),
        )
        for name in GEN3DHF
        if name in fields
    }
    return ScoreRow(ratings=ratings, **fields)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def shared_data(*parts: str) -> Path:
    """Path below the folder of real inputs; skips the test where that folder is absent (they are
    not part of the project).
    """
    path = SHARED_DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip("the folder of real inputs (../shared/data) is not here")
    return path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors are faster on one thread, and sums do not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hashes of files are remembered in a folder of the tests, also by the processes they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell's background job ignores Ctrl-C, and so would all that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base with random float32 weights, as an ordinary Hugging Face folder."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    from lmme3dhf.aspects import GEN3DHF
    from lmme3dhf.data.gen3dhf import PROMPTS, SALIENCY_PROMPT, level_reply
    from lmme3dhf.data.synthetic.pretraining import vocabulary_corpus
    from lmme3dhf.models.tiny import save_tiny, tiny_config, tiny_tokenizer
    from lmme3dhf.vocabulary import LEVELS

    replies = tuple(level_reply(GEN3DHF[d], level) for d in DIMENSIONS for level in LEVELS)
    tokenizer = tiny_tokenizer(vocabulary_corpus((*PROMPTS.values(), SALIENCY_PROMPT), replies))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(tokenizer))
    save_tiny(folder, tokenizer, model, torch.float32)
    return folder


@pytest.fixture(scope="session")
def processor(tiny_folder: Path):
    """The tiny base's processor, as anybody loads it."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(tiny_folder)


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that lies as Qwen2.5-VL-7B-Instruct does on the hub: 28 layers of width 64 in
    bfloat16, random weights, the real vocabulary. Shared, so no test may change it.
    """
    if importlib.util.find_spec("dashscope") is None:
        pytest.skip("dashscope, which brings Qwen's vocabulary, is not installed")
    from hub_checkpoint import write_checkpoint

    folder = tmp_path_factory.mktemp("hub") / "Qwen2.5-VL"
    write_checkpoint(folder, hidden=64)
    return folder


def random_frames(seed: int, count: int, height: int, width: int) -> torch.Tensor:
    """(count, 3, height, width) uint8 noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
