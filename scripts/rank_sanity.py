"""Does a model prefer clips to their own ruined versions?

Each clip is blurred, noised and recompressed strongly; in how many pairs does the original get the
higher quality? It needs no labels, so it works on clips of real generators.

    python scripts/rank_sanity.py --model runs/demo/model --clips DIR --out runs/rank_sanity.json
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from scipy.ndimage import gaussian_filter

from lmme3dhf.data.samples import DataError
from lmme3dhf.data.sources import files_below
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.files import write_json
from lmme3dhf.scorer import Failure, Scorer

GOOD_CRF, BAD_CRF = 12, 47


def blurred(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of 2 % of the width."""
    return gaussian_filter(frame, (0.02 * frame.shape[1],) * 2 + (0,))


def noised(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of 45 grey levels, in blocks of 1/128 of the width: it survives scaling."""
    block = max(1, frame.shape[1] // 128)
    shape = [-(-side // block) for side in frame.shape[:2]] + [3]
    noise = rng.normal(0, 45, shape).repeat(block, 0).repeat(block, 1)
    noisy = frame.astype(float) + noise[: frame.shape[0], : frame.shape[1]]
    return np.clip(noisy, 0, 255).astype(np.uint8)


def unchanged(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frame itself."""
    return frame


# The original is encoded again as well, so that coding alone decides nothing.
VERSIONS: dict[str, tuple[Callable, int]] = {
    "original": (unchanged, GOOD_CRF),
    "blurred": (blurred, GOOD_CRF),
    "noised": (noised, GOOD_CRF),
    "recompressed": (unchanged, BAD_CRF),
}


def write_versions(clip: Path, folder: Path) -> dict[str, Path]:
    """Writes a clip's versions; the frames' sides are cut to even numbers."""
    with av.open(str(clip)) as container:
        fps = round(container.streams.video[0].average_rate)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = [frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames]
    paths = {}
    for name, (change, crf) in VERSIONS.items():
        rng = np.random.default_rng(0)
        paths[name] = folder / f"{clip.stem}-{name}.mp4"
        write_clip(paths[name], [change(frame, rng) for frame in frames], fps, crf)
    return paths


def main(argv: list[str] | None = None) -> dict:
    """Scores all versions of all clips; returns and writes the counts and the scores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clips", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    scorer = Scorer.from_pretrained(args.model)
    rows = {}
    clips = files_below(args.clips)
    for done, clip in enumerate(clips, 1):
        with tempfile.TemporaryDirectory() as folder:
            paths = write_versions(clip, Path(folder))
            results = dict(zip(paths, scorer.assess(paths.values(), maps=False), strict=True))
        for name, result in results.items():
            if isinstance(result, Failure):
                raise DataError(f"{clip}, {name}: {result.message}")
        rows[clip.name] = {
            name: {"quality": r.quality.score, "authenticity": r.authenticity.score}
            for name, r in results.items()
        }
        print(f"{done} of {len(clips)}: {clip.name}", flush=True)
    report = {"clips": len(rows), "pairs_right": {}, "scores": rows}
    for name in VERSIONS:
        if name != "original":
            right = [row["original"]["quality"] > row[name]["quality"] for row in rows.values()]
            report["pairs_right"][name] = sum(right)
    report["pairs_right"]["all"] = sum(report["pairs_right"].values())
    report["pairs"] = len(rows) * (len(VERSIONS) - 1)
    write_json(args.out, report)
    print(json.dumps({key: report[key] for key in ("clips", "pairs", "pairs_right")}, indent=1))
    return report


if __name__ == "__main__":
    main()
