"""A small table with everything that a table can hold, and its page."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from lmme3dhf.annotations.fixations import write_saliency_png
from lmme3dhf.cli import main
from lmme3dhf.data.container import DECODER
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.scores import ScoreRow, ScoreTable
from lmme3dhf.vocabulary import DISTORTIONS, LEVELS
from tests.conftest import score_row

MODEL = "0123456789abcdef"
EVIL = "=a<img src=x onerror=alert(1)>\"'&\u202egp4"  # with a mark that turns the rest around
# What a reader sees of it.
SHOWN_EVIL = "=a<img src=x onerror=alert(1)>\"'&⟨U+202E⟩gp4"
RED, GREEN, BLUE = (200, 40, 40), (40, 160, 40), (40, 40, 200)  # the three views of a clip


@dataclass(frozen=True)
class Made:
    """A page, and the table that it was made from."""

    table: Path
    page: Path

    @property
    def files(self) -> Path:
        return self.page.with_name(f"{self.page.stem}_files")

    @property
    def html(self) -> str:
        return self.page.read_text(encoding="utf-8")


def row(file: str, quality: float, authenticity: float | None = None, **fields) -> ScoreRow:
    """A scored file; its level follows from its score in fifths."""
    authenticity = quality - 2 if authenticity is None else authenticity
    given = {
        "status": "ok",
        "quality_level": LEVELS[int(quality // 20)],
        "authenticity_level": LEVELS[int(authenticity // 20)],
        "distortions": ("No Distortion",),
        "decoder": DECODER,
        "version": "1.0",
    }
    return score_row(
        file=file, quality=quality, authenticity=authenticity, model=MODEL, **given | fields
    )


def failed(file: str, reason: str) -> ScoreRow:
    return ScoreRow(
        file=file, status="failed", reason=reason, message=f"{file}: <b>it is</b>", model=MODEL
    )


def write_table(path: Path, rows: list[ScoreRow]) -> Path:
    options = {"model": MODEL, "decoders": (DECODER,), "views": rows[0].views}
    options["aspects"] = {n: r.scale for row in rows for n, r in row.ratings.items()}
    with ScoreTable(path, **options) as table:
        for each in rows:
            table.append(each)
    return path


def write_views(path: Path) -> str:
    """A clip of nine pictures with its three views in three colours; returns its hash."""
    colours = [RED if at < 3 else GREEN if at < 6 else BLUE for at in range(9)]
    colours[4] = GREEN
    frames = [np.full((64, 96, 3), colour, dtype=np.uint8) for colour in colours]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, frames, fps=9)
    return sha256(path.read_bytes()).hexdigest()


def write_map(path: Path) -> None:
    """All quiet but for a block in the middle of the third view."""
    map_HW = np.zeros((64, 3 * 96), dtype=np.float32)
    map_HW[16:48, 2 * 96 + 24 : 2 * 96 + 72] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    write_saliency_png(path, map_HW)


def small_table(folder: Path) -> Path:
    """Generators by "{generator}_*": alpha (12 videos, high), beta (10, low), EVIL (one), and gone
    (its only file failed); two files that do not match.
    """
    content = write_views(folder / "clips" / "alpha_best.mp4")
    write_map(folder / "scores_maps" / "alpha_best.png")
    eyes, hair = DISTORTIONS[0], DISTORTIONS[2]
    rng = np.random.default_rng(0)
    rows = [
        row(
            "clips/alpha_best.mp4",
            95.0,
            content=content,
            map="scores_maps/alpha_best.png",
            distortions=(eyes, hair),
            distortion_probabilities={eyes: 0.75, hair: 0.5},
        ),
        *(row(f"clips/alpha_{i}.mp4", float(rng.uniform(60, 80))) for i in range(11)),
        *(
            row(f"clips/beta_{i}.mp4", float(rng.uniform(20, 40)), distortions=(hair,))
            for i in range(10)
        ),
        row(f"clips/{EVIL}_1.mp4", 50.0),
        failed("clips/alpha_bad.mp4", "truncated"),
        failed(f"clips/{EVIL}_bad.mp4", "empty"),
        failed("clips/gone_bad.mp4", "empty"),
        row("clips/unmatched.mp4", 99.0),
        row("clips/Ω.mp4", 1.0),
    ]
    return write_table(folder / "scores.csv", rows)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The page of `small_table`, by the command."""
    folder = tmp_path_factory.mktemp("generators")
    table = small_table(folder)
    page = folder / "out" / "report.html"
    words = ["--group-by", "{generator}_*", "--out", str(page)]
    assert main(["report", str(table), *words]) == 0
    return Made(table, page)
