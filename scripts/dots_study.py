"""Are the annotators' red dots found, and nothing else?

Strips of faces with red lips, hats and scarves get planted dots, alone, touching and overlapping,
and go through JPEG or a video encoder; then `red_dots` looks for them with and without the plain
strip. The strips are drawn faces, and real ones where a folder with rows of square views is given.

    python scripts/dots_study.py --strips DIR --out runs/dots.csv

Rules, set beforehand:

- No two dots are planted with centres nearer than one radius; nobody could tell such two apart.
- A dot is visible where at least half of its pixels differ from the plain strip by 30 of 255 or
  more in some channel, before any coding. Only visible dots count for recall. Finding an invisible
  one, on pure red cloth, is no fault.
- A dot is found where a detection lies within one radius of its centre; each detection counts for
  one dot (the assignment with the most pairs, then the least distance). The others are false.
"""

import argparse
import csv
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from lmme3dhf.annotations.dots import red_dots
from lmme3dhf.data.synthetic.clips import ClipRenderer
from lmme3dhf.data.synthetic.generators import clip_plan
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.files import replace_file

STRIPS_A_FACE = 10
VISIBLE_CHANGE = 30
CODINGS = (
    "none",
    "marked JPEG",
    "both JPEG",
    "marked JPEG, plain from video",
)
REDS = ((230, 25, 35), (205, 20, 40), (245, 15, 15), (252, 6, 6), (255, 0, 0), (170, 20, 30))
LIPS = ((200, 45, 60), (220, 25, 45), (190, 60, 70), (240, 20, 30))


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A planted dot.

    Attributes:
        x: Of its centre, pixels.
        y: Of its centre, pixels.
        place: "lips", "hat or scarf", "border" or "elsewhere".
        spacing: Distance to the nearest other dot's centre, in radii.
        visible: See the rules above.
    """

    x: float
    y: float
    place: str
    spacing: float
    visible: bool


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A marked strip and what is known about it.

    Attributes:
        marked: (H, 3H, 3) uint8.
        plain: The same without dots.
        dots: What was planted.
        radius: Of the dots, pixels.
        conditions: What the table is broken down by: name -> value.
    """

    marked: np.ndarray
    plain: np.ndarray
    dots: tuple[Dot, ...]
    radius: float
    conditions: dict[str, str]


def jpeg(picture_HW3: np.ndarray, quality: int, subsampling: int) -> np.ndarray:
    """The picture through JPEG; subsampling as in Pillow: 0 none, 2 chroma at half size."""
    stream = io.BytesIO()
    Image.fromarray(picture_HW3).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(stream))


def video_frame(picture_HW3: np.ndarray, crf: int) -> np.ndarray:
    """The picture as the first frame of an H.264 clip."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path, [picture_HW3], 25, crf)
        with av.open(str(path)) as container:
            return next(container.decode(video=0)).to_ndarray(format="rgb24")


def drawn_face(index: int, seed: int, side: int) -> np.ndarray:
    """Three views of a synthetic face, drawn at half size and enlarged: (side, 3 side, 3)."""
    small = max(64, side // 2)
    renderer = ClipRenderer(clip_plan(index % 10, index % 200, seed), small)
    views = [renderer.picture(yaw, 0)[0] for yaw in (-45.0, 0.0, 45.0)]
    return np.hstack([_resized(view, side) for view in views])


def real_faces(folder: Path, side: int) -> list[np.ndarray]:
    """Strips of three views from every picture in a folder that is a row of three or more square
    views.
    """
    faces = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            continue
        with Image.open(path) as picture:
            row = np.asarray(picture.convert("RGB"))
        views = round(row.shape[1] / row.shape[0])
        if views < 3:
            continue
        width = row.shape[1] // views
        cut = [row[:, k * width : (k + 1) * width] for k in (1, 0, 2)]
        faces.append(np.hstack([_resized(view, side) for view in cut]))
    return faces


def _resized(view: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(view).resize((side, side), Image.Resampling.BICUBIC))


def dressed(
    strip_HW3: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The strip with painted lips, and with a red hat or scarf in two of three; and the masks of
    both.
    """
    side = strip_HW3.shape[0]
    canvas = strip_HW3.astype(float)
    masks = {}
    shapes: list[tuple[str, tuple[int, int, int], Callable]] = []

    def lips(draw: ImageDraw.ImageDraw) -> None:
        for view, shift in enumerate((-0.18, 0.0, 0.18)):
            x, y = (view + 0.5 + shift) * side, 0.66 * side
            w, h = lip_width * side, lip_height * side
            draw.polygon(
                [(x - w, y), (x - w / 3, y - h), (x, y - h / 2), (x + w / 3, y - h), (x + w, y)],
                fill=255,
            )
            draw.chord((x - w, y - 1.3 * h, x + w, y + 1.3 * h), 0, 180, fill=255)

    def hat(draw: ImageDraw.ImageDraw) -> None:
        for view in range(3):
            left, top = (view + 0.22) * side, -0.05 * side
            draw.ellipse((left, top, left + 0.56 * side, top + 0.32 * side), fill=255)

    def scarf(draw: ImageDraw.ImageDraw) -> None:
        for view in range(3):
            left = (view + 0.12) * side
            draw.rounded_rectangle(
                (left, 0.86 * side, left + 0.76 * side, 0.97 * side), side // 20, fill=255
            )
            # Fringes: thin red strokes, some as wide as a dot.
            for k in range(8):
                x = left + (0.05 + 0.09 * k) * side
                draw.line(
                    (x, 0.96 * side, x, 1.0 * side), fill=255, width=max(1, (k + 2) * side // 512)
                )

    lip_width, lip_height = rng.uniform(0.06, 0.1), rng.uniform(0.012, 0.03)
    shapes.append(("lips", LIPS[rng.integers(len(LIPS))], lips))
    clothes = rng.integers(3)
    if clothes:
        colour = REDS[rng.integers(len(REDS))]
        shapes.append(("hat or scarf", colour, hat if clothes == 1 else scarf))
    for name, colour, draw in shapes:
        mask = Image.new("L", (3 * side, side))
        draw(ImageDraw.Draw(mask))
        soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.7)), float)[..., None] / 255
        shade = (
            1 - 0.25 * rng.random() * np.sin(np.arange(3 * side) / side * 17)[None, :, None] ** 2
        )
        canvas = canvas * (1 - soft) + soft * np.array(colour) * shade
        masks[name] = np.asarray(mask) > 127
    canvas += rng.normal(0, rng.choice((0.0, 1.5, 4.0)), canvas.shape)
    return np.clip(np.round(canvas), 0, 255).astype(np.uint8), masks


def _places(
    masks: dict[str, np.ndarray], radius: float, rng: np.random.Generator
) -> list[tuple[float, float, str]]:
    """Centres and places of dots, none nearer than one radius to another."""
    height, width = masks["lips"].shape
    dots: list[tuple[float, float, str]] = []

    def add(x: float, y: float, place: str, least: float) -> bool:
        inside = -0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5
        free = all(np.hypot(x - a, y - b) >= least * radius for a, b, _ in dots)
        if inside and free:
            dots.append((x, y, place))
        return inside and free

    for _ in range(rng.integers(2, 9)):
        add(rng.uniform(0, width - 1), rng.uniform(0, height - 1), "elsewhere", 2.3)
    for place, mask in masks.items():
        pixels = np.argwhere(mask)
        for y, x in pixels[rng.integers(len(pixels), size=rng.integers(0, 3))]:
            add(x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5), place, 2.3)
    for _ in range(rng.integers(0, 3)):
        along, out = rng.uniform(0, 1), rng.uniform(0, radius)
        spots = (
            (along * (width - 1), out),
            (along * (width - 1), height - 1 - out),
            (out, along * (height - 1)),
            (width - 1 - out, along * (height - 1)),
        )
        add(*spots[rng.integers(4)], "border", 2.3)
    for _ in range(rng.integers(0, 4)):
        cluster = [(rng.uniform(0, width - 1), rng.uniform(0, height - 1))]
        if not add(*cluster[0], "elsewhere", 2.3):
            continue
        for _ in range(rng.integers(1, 4)):
            x, y = cluster[rng.integers(len(cluster))]
            angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 2.2) * radius
            x, y = x + distance * np.cos(angle), y + distance * np.sin(angle)
            if add(x, y, "elsewhere", 1.0):
                cluster.append((x, y))
    # Where it lies, not how it came there.
    named = []
    for x, y, _ in dots:
        at = (round(y), round(x))
        on = [name for name, mask in masks.items() if mask[at]]
        edge = min(x, y, width - 1 - x, height - 1 - y) < radius
        named.append((x, y, on[-1] if on else "border" if edge else "elsewhere"))
    return named


def with_dots(
    strip_HW3: np.ndarray, centres: list[tuple[float, float]], radius: float, smooth: bool
) -> np.ndarray:
    """The strip with red discs, edges hard or anti-aliased."""
    y, x = np.mgrid[0 : strip_HW3.shape[0], 0 : strip_HW3.shape[1]]
    cover = np.zeros(strip_HW3.shape[:2])
    for cx, cy in centres:
        distance = np.hypot(x - cx, y - cy)
        own = np.clip(radius + 0.5 - distance, 0, 1) if smooth else distance <= radius
        cover = np.maximum(cover, own)
    mixed = strip_HW3 * (1 - cover[..., None]) + cover[..., None] * np.array((255.0, 0, 0))
    return np.round(mixed).astype(np.uint8)


def make_strip(
    face_HW3: np.ndarray, source: str, radii: tuple[float, float], rng: np.random.Generator
) -> Strip:
    """Dresses a face, plants dots and encodes both strips."""
    plain, masks = dressed(face_HW3, rng)
    radius, smooth = float(rng.uniform(*radii)), bool(rng.random() < 0.5)
    places = _places(masks, radius, rng)
    centres = [(x, y) for x, y, _ in places]
    marked = with_dots(plain, centres, radius, smooth)
    changed = np.abs(marked.astype(int) - plain).max(axis=2) >= VISIBLE_CHANGE
    apart = cdist(centres, centres) if centres else np.zeros((0, 0))
    np.fill_diagonal(apart, np.inf)
    y, x = np.mgrid[0 : plain.shape[0], 0 : plain.shape[1]]
    dots = tuple(
        Dot(
            x=cx,
            y=cy,
            place=place,
            spacing=float(nearest) / radius,
            visible=bool(changed[np.hypot(x - cx, y - cy) <= radius].mean() >= 0.5),
        )
        for (cx, cy, place), nearest in zip(places, apart.min(axis=1, initial=np.inf), strict=True)
    )
    coding = CODINGS[rng.integers(len(CODINGS))]
    quality, half_chroma = int(rng.integers(60, 96)), bool(rng.random() < 0.6)
    if coding != "none":
        marked = jpeg(marked, quality, 2 if half_chroma else 0)
    if coding == "both JPEG":
        plain = jpeg(plain, int(rng.integers(60, 96)), 2 if rng.random() < 0.6 else 0)
    elif coding == "marked JPEG, plain from video":
        plain = video_frame(plain, int(rng.integers(16, 27)))
    low, high = radii
    band = min(2, int(3 * (radius - low) / (high - low)))
    edges = np.linspace(low, high, 4)
    conditions = {
        "faces": source,
        "coding": coding,
        "JPEG": "none"
        if coding == "none"
        else f"quality {'60 to 77' if quality < 78 else '78 to 95'}, chroma "
        + ("at half size" if half_chroma else "whole"),
        "edges of dots": "smooth" if smooth else "hard",
        "radius, px": f"{edges[band]:.1f} to {edges[band + 1]:.1f}",
        "clothes": "red" if "hat or scarf" in masks else "not red",
    }
    return Strip(marked=marked, plain=plain, dots=dots, radius=radius, conditions=conditions)


def strips(count: int, seed: int, side: int, radii: tuple[float, float], real: list[np.ndarray]):
    """Yields `count` strips; with real faces every other strip shows one."""
    face = None
    for index in range(count):
        rng = np.random.default_rng((0x646F_7473, seed, index))
        if real and index % 2:
            yield make_strip(real[(index // 2) % len(real)], "real", radii, rng)
            continue
        if face is None or index % STRIPS_A_FACE == 0:
            face = drawn_face(index // STRIPS_A_FACE, seed, side)
        yield make_strip(face, "drawn", radii, rng)


def matches(
    found: list[tuple[float, float]], dots: tuple[Dot, ...], radius: float
) -> list[tuple[int, int, float]]:
    """Pairs (detection, dot, distance in px) within one radius, one-to-one."""
    if not found or not dots:
        return []
    distance = cdist(found, [(dot.x, dot.y) for dot in dots])
    # A pair out of reach costs more than all others together.
    rows, columns = linear_sum_assignment(np.where(distance <= radius, distance, 1e6))
    return [
        (int(r), int(c), float(distance[r, c]))
        for r, c in zip(rows, columns, strict=True)
        if distance[r, c] <= radius
    ]


def _spacing(dot: Dot) -> str:
    if dot.spacing < 1.5:
        return "1 to 1.5 radii (overlapping)"
    return "1.5 to 2.3 radii (touching)" if dot.spacing < 2.3 else "further (alone)"


def study(made, without_plain: bool) -> list[dict]:
    """Rows of the table: condition, strips, dots, recall, false dots a strip, median error in
    pixels; first over everything. False dots belong to no dot, so dots' own conditions have none.
    """
    of_strips: dict[tuple[str, str], list[tuple[int, int, int, list[float]]]] = {}
    of_dots: dict[tuple[str, str], list[tuple[bool, float]]] = {}
    for strip in made:
        found = red_dots(strip.marked, None if without_plain else strip.plain)
        pairs = matches(found, strip.dots, strip.radius)
        error_of = {dot: error for _, dot, error in pairs}
        seen = [k for k, dot in enumerate(strip.dots) if dot.visible]
        errors = [error_of[k] for k in seen if k in error_of]
        entry = (len(seen), len(errors), len(found) - len(pairs), errors)
        for key in (("all", ""), *strip.conditions.items()):
            of_strips.setdefault(key, []).append(entry)
        for k in seen:
            hit = (k in error_of, error_of.get(k, np.nan))
            dot = strip.dots[k]
            for key in (("dot lies on", dot.place), ("nearest dot", _spacing(dot))):
                of_dots.setdefault(key, []).append(hit)
    rows = []
    for (name, value), entries in sorted(
        of_strips.items(), key=lambda item: (item[0][0] != "all", item[0])
    ):
        dots, hits, false = (sum(entry[k] for entry in entries) for k in range(3))
        errors = [error for entry in entries for error in entry[3]]
        rows.append(_row(name, value, len(entries), dots, hits, false / len(entries), errors))
    for (name, value), hits in sorted(of_dots.items()):
        errors = [error for hit, error in hits if hit]
        rows.append(_row(name, value, None, len(hits), len(errors), None, errors))
    return rows


def _row(name, value, count, dots, hits, false, errors) -> dict:
    return {
        "condition": f"{name}: {value}" if value else name,
        "strips": count,
        "dots": dots,
        "recall": hits / dots if dots else None,
        "false_a_strip": false,
        "median_error_px": float(np.median(errors)) if errors else None,
    }


def main(argv: list[str] | None = None) -> dict[str, list[dict]]:
    """Runs the study with and without the plain strips, prints both tables and returns them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--strips", type=Path, help="folder of pictures: rows of square views")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=512, help="height of the strips")
    parser.add_argument("--radius", type=float, nargs=2, default=(3.0, 8.0))
    parser.add_argument("--out", type=Path, help="CSV of the tables")
    args = parser.parse_args(argv)
    real = real_faces(args.strips, args.side) if args.strips else []
    made = list(strips(args.count, args.seed, args.side, tuple(args.radius), real))
    tables = {
        "with the plain strip": study(made, False),
        "without the plain strip": study(made, True),
    }
    for title, rows in tables.items():
        print(f"\n{title}\n\n| condition | strips | dots | recall | false a strip | error, px |")
        print("|---|---:|---:|---:|---:|---:|")
        for row in rows:
            print(
                f"| {row['condition']} | {_text(row['strips'])} | {row['dots']} | "
                f"{_text(row['recall'])} | {_text(row['false_a_strip'])} | "
                f"{_text(row['median_error_px'])} |"
            )
    if args.out:
        stream = io.StringIO()
        first = next(iter(tables.values()))[0]
        writer = csv.DictWriter(stream, ["plain_strip", *first], lineterminator="\n")
        writer.writeheader()
        for title, rows in tables.items():
            writer.writerows({"plain_strip": title, **row} for row in rows)
        replace_file(args.out, stream.getvalue())
    return tables


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


if __name__ == "__main__":
    main()
