"""A synthetic Gen3DHF on disk: clips, strips and raw annotations, in the release's layout.

Labels are not written here: `data.labels` makes them from the raw annotations, as it does from
people's. `truth.json` keeps what was planted, for ceilings and checks only.
"""

import io
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.synthetic.clips import ClipRenderer, turntable_yaws
from lmme3dhf.data.synthetic.generators import GENERATORS, clip_plan, video_name
from lmme3dhf.data.synthetic.raters import MARKERS, mark, painted, simulated_ratings, true_opinion
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.distributed import cores
from lmme3dhf.files import read_object, write_csv, write_json
from lmme3dhf.vocabulary import DISTORTIONS, VIEWS

_MARKS, _RATINGS = 0x6D61_726B, 0x7261_7465  # names of the random streams


def synthesize(
    root: Path, *, latents: int, size_px: int, frames: int, fps: int, processes: int, seed: int
) -> None:
    """Renders the clips and simulates their raw annotations; goes on with what an earlier call left
    unfinished.

    Args:
        root: Folder of the data set.
        latents: Faces, at most 200; ten clips each.
        size_px: Side of the frames, even.
        frames: Frames of a clip.
        fps: Frames per second.
        processes: Processes that render; 0 for one a core.
        seed: Another seed gives other people.

    Raises:
        DataError: A setting outside its range, or a folder that was started with others.
    """
    if not (1 <= latents <= 200 and size_px >= 32 and size_px % 2 == 0 and frames >= 5 and fps > 0):
        raise DataError(
            "synthetic: 1 to 200 latents, an even size of at least 32, five frames or more and a "
            f"frame rate are expected, got {latents}, {size_px}, {frames}, {fps}"
        )
    made = {"latents": latents, "size_px": size_px, "frames": frames, "fps": fps, "seed": seed}
    known = root / "synthetic.json"
    before = read_object(known, "give another folder") if known.exists() else made
    if before != made:
        raise DataError(f"{root} was made with {before}, not {made}; give another folder")
    write_json(known, made)
    for folder in (
        "video_RGB",
        "image",
        "raw/clips",
        *(f"raw/marks/{marker}" for marker in MARKERS),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    clips = [
        (generator, latent) for generator in range(len(GENERATORS)) for latent in range(latents)
    ]
    missing = [clip for clip in clips if not _notes(root, video_name(*clip)).exists()]
    started = told = time.monotonic()
    # Spawned, not forked: the caller may hold threads.
    with ProcessPoolExecutor(processes or cores(), mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_render, root, *clip, size_px, frames, fps, seed) for clip in missing]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            now = time.monotonic()
            if now - told > 10 or done == len(jobs):
                told = now
                print(
                    f"rendering: {done} of {len(jobs)} clips, "
                    f"{(now - started) / done * (len(jobs) - done):.0f} s left",
                    flush=True,
                )
    mend = "delete it, and the same command draws the clip again"
    notes = {
        video_name(*clip): read_object(_notes(root, video_name(*clip)), mend) for clip in clips
    }
    write_csv(
        root / "raw" / "remarks.csv",
        ("marker", "video", "remark"),
        (
            (marker, video, remark)
            for video, note in notes.items()
            for marker, remark in note["remarks"].items()
        ),
    )
    rows = []
    for index, dimension in enumerate(GEN3DHF):
        opinions = np.array([note["opinion"][index] for note in notes.values()])
        rating_SV = simulated_ratings(opinions, np.random.default_rng((_RATINGS, seed, index)))
        for subject, ratings in enumerate(rating_SV):
            rows += [
                (f"rater{subject + 1:02d}", video, dimension, f"{r:g}")
                for video, r in zip(notes, ratings, strict=True)
            ]
    write_csv(root / "raw" / "ratings.csv", ("subject", "video", "dimension", "rating"), rows)
    write_json(
        root / "truth.json",
        {video: {k: note[k] for k in ("opinion", "severity")} for video, note in notes.items()},
    )


def _notes(root: Path, video: str) -> Path:
    return root / "raw" / "clips" / f"{video}.json"


def _render(
    root: Path, generator: int, latent: int, size_px: int, frames: int, fps: int, seed: int
) -> None:
    plan = clip_plan(generator, latent, seed)
    video = video_name(generator, latent)
    renderer = ClipRenderer(plan, size_px)
    shown = [round(view.clip_fraction * (frames - 1)) for view in VIEWS]
    pictures, views = [], {}
    for index, yaw in enumerate(turntable_yaws(frames)):
        picture, view = renderer.picture(yaw, index)
        pictures.append(picture)
        if index in shown:
            views[index] = view
    write_clip(root / "video_RGB" / f"{video}.mp4", pictures, fps)
    # The annotators' strip: three snapshots of the clip.
    strip = np.hstack([pictures[index] for index in shown])
    _write_png(root / "image" / f"{video}.png", strip)
    masks = {
        kind: np.hstack([views[index].gather(mask) for index in shown])
        for kind, mask in renderer.masks.items()
    }
    remarks = {}
    for index, marker in enumerate(MARKERS):
        points, remarks[marker] = mark(
            plan, masks, np.random.default_rng((_MARKS, seed, generator, latent, index))
        )
        # Without a dot it says that nothing was seen.
        _write_png(root / "raw" / "marks" / marker / f"{video}.png", painted(strip, points))
    severity = {DISTORTIONS[item.kind]: item.severity for item in plan.distortions}
    # Written last: the sign that all of the clip is there.
    write_json(
        _notes(root, video),
        {"opinion": true_opinion(plan), "severity": severity, "remarks": remarks},
    )


def _write_png(path: Path, picture_HW3: np.ndarray) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture_HW3).save(stream, "PNG", compress_level=1)
    path.write_bytes(stream.getvalue())
