"""The best and worst videos as cards: three views, the same with the saliency map laid over, and
what the metric says. The pictures keep within a number of bytes.

A clip is opened only where its content is still what was scored, so that a table from elsewhere
shows no file that its maker does not know; without that content, only in the table's folder.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.annotations.fixations import read_saliency_png
from lmme3dhf.assessment import FLAG, flag_text, score_text
from lmme3dhf.data.container import read_strip
from lmme3dhf.data.sources import is_picture
from lmme3dhf.data.strips import image_rgb
from lmme3dhf.errors import UserError
from lmme3dhf.escaping import visible
from lmme3dhf.files import FileState, file_state, is_inside, read_unchanged
from lmme3dhf.generators.names import LONGEST_NAME
from lmme3dhf.generators.tables import Generator, goodness
from lmme3dhf.reports.page import Card, Gallery, Thumbnail
from lmme3dhf.reports.plots import overlay
from lmme3dhf.scores import ScoreRow
from lmme3dhf.vocabulary import VIEWS

# Widths of the three views together in pixels, and qualities of the JPEG, from the best that is
# tried to the worst that is still worth a look.
SIZES = ((480, 85), (420, 80), (360, 72), (288, 65))
OVERALL, OF_GENERATOR = 3, 2  # videos at either end
BEST, WORST = "best", "worst"
_CARD_TEXT = 1200  # bytes of a card beside its pictures, at most about
_OTHER_CONTENT = "the file has another content than the one that was scored"
_SLACK = 0.02  # by how much the sides of map and strip may differ in their ratio


@dataclass(frozen=True)
class Chosen:
    """Videos under one heading: (place, row), such as ("best", row)."""

    title: str
    videos: tuple[tuple[str, ScoreRow], ...]


def choose(generators: Sequence[Generator], aspects: Sequence[str]) -> list[Chosen]:
    """The best and worst videos of all by each aspect, and of each generator by the first; of
    several generators only, since else both are the same.
    """
    everything = [row for generator in generators for row in generator.rows]
    chosen = [
        Chosen(f"All videos, by {aspect}", ends(everything, aspect, OVERALL)) for aspect in aspects
    ]
    if len(generators) > 1:
        chosen += [
            Chosen(f"{g.shown}, by {aspects[0]}", ends(g.rows, aspects[0], OF_GENERATOR))
            for g in generators
        ]
    return [group for group in chosen if group.videos]


def ends(rows: Sequence[ScoreRow], aspect: str, count: int) -> tuple[tuple[str, ScoreRow], ...]:
    """The `count` best from the very best, then the `count` worst to the very worst; no video
    twice, and of equal scores the one whose path comes first.
    """

    def place(row: ScoreRow) -> tuple[float, str]:
        rating = row.ratings[aspect]
        return -goodness(rating.score, rating.scale), row.file

    order = sorted(rows, key=place)
    best = order[: min(count, math.ceil(len(order) / 2))]
    rest = order[len(best) :]
    worst = rest[-count:]
    places = [f"{BEST} {at}" for at in range(1, len(best) + 1)]
    places += [f"{WORST} {at}" for at in range(len(worst), 0, -1)]
    return tuple(zip(places, [*best, *worst], strict=True))


def galleries(
    chosen: Sequence[Chosen], generator_of: dict[str, str], folder: Path, budget: int
) -> list[Gallery]:
    """The cards of the chosen videos.

    Args:
        chosen: As `choose` made them.
        generator_of: File -> what its generator is called on the page.
        folder: Of the table; clips and maps are looked for from here.
        budget: Bytes that all cards may take in the page, shared out evenly.
    """
    count = sum(len(group.videos) for group in chosen)
    share = budget // max(count, 1) - _CARD_TEXT
    made: dict[tuple[str, str | None], tuple[tuple[Thumbnail, ...], tuple[str, ...]]] = {}
    found = []
    for group in chosen:
        cards = []
        for place, row in group.videos:
            key = row.file, row.model
            if key not in made:
                made[key] = _pictures(row, folder, share)
            thumbnails, absent = made[key]
            cards.append(
                Card(
                    title=f"{place}: {visible(PurePosixPath(row.file).name, LONGEST_NAME)}",
                    thumbnails=thumbnails,
                    absent=absent,
                    lines=_lines(row, generator_of[row.file]),
                )
            )
        best = sum(place.startswith(BEST) for place, _ in group.videos)
        # The best in one row and the worst in the next; few in one.
        columns = best if len(cards) > OVERALL else len(cards)
        found.append(Gallery(title=group.title, cards=tuple(cards), columns=columns))
    return found


def _lines(row: ScoreRow, generator: str) -> tuple[str, ...]:
    said = [
        f"{aspect} {score_text(rating.score, rating.scale)}"
        + f" {FLAG}" * (aspect in row.outside_training)
        + f" ({rating.level})" * bool(rating.level)
        for aspect, rating in row.ratings.items()
    ]
    lines = [f"{generator}: {', '.join(said)}"]
    for name, answer in row.answers.items():
        lines.append(
            f"{name}: {visible(answer.likeliest, 60)} {max(answer.probabilities.values()):.2f}"
        )
    if row.distortions is not None:
        probabilities = row.distortion_probabilities or {}
        named = [
            name + (f" {probabilities[name]:.2f}" if name in probabilities else "")
            for name in row.distortions
        ]
        lines.append("; ".join(named) or "names no distortion, nor that there is none")
    return (*lines, *remarks(row))


def remarks(row: ScoreRow) -> tuple[str, ...]:
    """Why a scored video has a flag, and its notes, for people."""
    flagged = (f"{FLAG} {flag_text(row.outside_training)}.",) if row.outside_training else ()
    return (*flagged, *(f"Note: {visible(note, 300)}." for note in row.notes))


def _pictures(
    row: ScoreRow, folder: Path, share: int
) -> tuple[tuple[Thumbnail, ...], tuple[str, ...]]:
    """Thumbnails of a row within `share` bytes of the page, and sentences on what is not shown."""
    try:
        strip_HW3 = _strip(row, folder)
    except (UserError, OSError, ValueError, Image.DecompressionBombError) as error:
        return (), (f"No pictures: {_said(error)}",)
    map_HW, absent = None, ()
    try:
        map_HW = _map(row, folder, strip_HW3)
    except (AnnotationError, OSError, ValueError, Image.DecompressionBombError) as error:
        absent = (f"No saliency map: {_said(error)}",)
    name = visible(PurePosixPath(row.file).name, LONGEST_NAME)
    degrees = ", ".join(f"{view.yaw_deg:+d}" if view.yaw_deg else "0" for view in VIEWS)
    for width, quality in SIZES:
        plain = _reduced(strip_HW3, width)
        shown = [(plain, f"{name}: views at {degrees} degrees")]
        if map_HW is not None:
            height = plain.shape[0]
            small = Image.fromarray(map_HW).resize((plain.shape[1], height), Image.Resampling.BOX)
            shown.append((overlay(plain, np.asarray(small)), f"{name}: the same with its map"))
        thumbnails = tuple(Thumbnail(_jpeg(pixels, quality), alt) for pixels, alt in shown)
        # Base64 takes four letters for three bytes.
        if sum(len(thumbnail.jpeg) for thumbnail in thumbnails) * 4 / 3 <= share:
            return thumbnails, absent
    return (), (*absent, "No pictures: the page would become larger than 5 MB.")


def _said(error: Exception) -> str:
    """The first sentence of an error, without what to do about it."""
    return visible(str(error).split(";")[0], 300)


def _strip(row: ScoreRow, folder: Path) -> np.ndarray:
    """The three views side by side, uint8 (H, 3W, 3).

    Raises:
        FileNotFoundError: The clip is not there any more.
        ValueError: It is another file now, or lies elsewhere in a table without contents.
        VideoError: It cannot be read.
        ChangedError: It is being written.
    """
    places = [place for place in (Path(row.file), folder / row.file) if place.is_file()]
    if not places:
        raise FileNotFoundError("the clip is not there any more")
    if row.content is None:
        # A table from elsewhere could name any picture of this machine.
        places = [place for place in places if is_inside(place, folder)]
        if not places:
            raise ValueError("no content in the table and outside its folder, so it is not opened")
    states = {place: file_state(place) for place in places}

    def is_scored(state: FileState | None) -> bool:
        return state is not None and row.content in (None, state.content)

    same = [place for place, state in states.items() if is_scored(state)]
    if not same:
        raise ValueError(_OTHER_CONTENT)
    at = row.views or [view.clip_fraction for view in VIEWS]
    strip_HW3, state = read_unchanged(same[0], states[same[0]], lambda: _decoded(same[0], at))
    if not is_scored(state):
        raise ValueError(_OTHER_CONTENT)
    return strip_HW3


def _decoded(path: Path, at: Sequence[float]) -> np.ndarray:
    if not is_picture(path):
        return read_strip(path, at)
    with Image.open(path) as picture:  # a strip already
        return image_rgb(picture, str(path))[0]


def _map(row: ScoreRow, folder: Path, strip_HW3: np.ndarray) -> np.ndarray | None:
    """The row's map, float32 (H, W) in 0..1; None where it has none.

    Raises:
        FileNotFoundError: It is not there any more.
        ValueError: It lies outside the table's folder, or belongs to another picture.
        AnnotationError: It cannot be read.
    """
    if row.map is None:
        return None
    path = folder / row.map
    if not is_inside(path, folder):
        raise ValueError("its path leaves the folder of the table")
    if not path.is_file():
        raise FileNotFoundError("it is not there any more")
    map_HW = read_saliency_png(path)
    ratio = map_HW.shape[1] / map_HW.shape[0] * strip_HW3.shape[0] / strip_HW3.shape[1]
    if abs(ratio - 1) > _SLACK:
        height, width = map_HW.shape
        raise ValueError(f"its {width} x {height} px do not fit the views")
    return map_HW


def _reduced(strip_HW3: np.ndarray, width: int) -> np.ndarray:
    height = max(1, round(strip_HW3.shape[0] * width / strip_HW3.shape[1]))
    picture = Image.fromarray(strip_HW3)
    if picture.width > width:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _jpeg(pixels_HW3: np.ndarray, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels_HW3).save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()
