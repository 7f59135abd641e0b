"""What scoring a folder costs, and whether a kill in the middle costs a file.

Makes a folder of clips, five in a hundred broken in fourteen ways; scores it with `lmme3dhf score`,
kills that half-way (SIGKILL), goes on with the same command, and runs it a third time. Checks that
every file has one row, that the reasons are right and that no row was made twice, and tells
seconds a file and the peak memory of all processes.

    python scripts/score_folder_study.py --model runs/demo/model --out runs/folder_study

The clips are drawn faces, or those of `--clips` that are MP4. Copies differ in a box after the
pictures, which no reader looks at, so that each has a content of its own.
"""

import argparse
import json
import math
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import psutil
from PIL import Image

from lmme3dhf.data.container import VideoError, probe
from lmme3dhf.data.synthetic.clips import ClipRenderer, turntable_yaws
from lmme3dhf.data.synthetic.generators import clip_plan
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.files import write_json
from lmme3dhf.scores import read_scores, table_files

FPS, FRAMES, SIDE_PX = 8, 16, 112
PEOPLE = 4
# One in twenty.
BROKEN_SHARE = 0.05
# How often the table is looked at, and, which costs more, the memory.
LOOK_S, MEMORY_S = 0.05, 0.5
# Starts the command; its output goes to the file.
Start = Callable[[BinaryIO], psutil.Process]


def numbered(content: bytes, number: int) -> bytes:
    """An MP4 file with a box at its end that holds a number (ISO 14496-12, 8.1.2)."""
    return content + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")


def faces(count: int, frames: int = FRAMES, side_px: int = SIDE_PX) -> list[list[np.ndarray]]:
    """Drawn clips, each a list of pictures."""
    renderers = [ClipRenderer(clip_plan(i % 10, i, 0), side_px) for i in range(count)]
    yaws = turntable_yaws(frames)
    return [[r.picture(float(yaw), k)[0] for k, yaw in enumerate(yaws)] for r in renderers]


def as_mp4(pictures: list[np.ndarray]) -> bytes:
    """Pictures as an H.264 file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        write_clip(path, pictures, FPS)
        return path.read_bytes()


def index_first(content: bytes) -> bytes:
    """The same clip with its index before the pictures, as for the web."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "a.mp4", Path(folder) / "b.mp4"
        before.write_bytes(content)
        with (
            av.open(str(before)) as source,
            av.open(str(after), "w", options={"movflags": "faststart"}) as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        return after.read_bytes()


def sound() -> bytes:
    """An MP4 file with a tone and no picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000, layout="mono")
            tone = np.sin(np.arange(16000) / 10).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


def with_hole(content: bytes) -> bytes:
    """A clip whose pictures are noise from the middle on, under an index that knows nothing."""
    start = content.index(b"mdat") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big") - 8
    middle, end = start + length // 2, start + length
    noise = np.random.default_rng(0).integers(0, 256, end - middle, np.uint8).tobytes()
    return content[:middle] + noise + content[end:]


def grey(count: int, height: int, width: int) -> bytes:
    """A clip of a grey plane."""
    return as_mp4([np.full((height, width, 3), 128, np.uint8)] * count)


def broken_kinds(clip: bytes) -> dict[str, tuple[str, str, bytes | None]]:
    """Way to be broken -> reason, suffix, content; None for a link that leads nowhere.

    Args:
        clip: A good MP4 file.
    """
    fast = index_first(clip)
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (96, 96), (90, 60, 50)).save(Path(folder) / "a.png")
        picture = (Path(folder) / "a.png").read_bytes()
    noise = np.random.default_rng(1).integers(0, 256, 5000, np.uint8).tobytes()
    page = b"<!DOCTYPE html><html><body>404 not found</body></html>\n"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    return {
        "link to nowhere": ("missing", ".mp4", None),
        "no bytes": ("empty", ".mp4", b""),
        "noise": ("not_a_video", ".mp4", noise),
        "web page": ("not_a_video", ".mp4", page),
        "pointer of Git LFS": ("not_a_video", ".mp4", pointer),
        "photograph": ("still_image", ".png", picture),
        "sound alone": ("no_video_stream", ".mp4", sound()),
        "cut before its index": ("truncated", ".mp4", clip[: len(clip) * 6 // 10]),
        "cut after its index": ("truncated", ".mp4", fast[: len(fast) * 8 // 10]),
        "damaged in the middle": ("decode_error", ".mp4", with_hole(clip)),
        "one picture": ("too_short", ".mp4", grey(1, 112, 112)),
        "small pictures": ("too_small", ".mp4", grey(4, 16, 16)),
        "large pictures": ("too_large", ".mp4", grey(2, 64, 4160)),
        "unknown codec": ("unsupported_codec", ".mp4", clip.replace(b"avc1", b"zzz1")),
    }


# What a number can be written behind without mending or changing the fault.
_NUMBERED = ("photograph", "sound alone", "one picture", "small pictures", "large pictures")
_NUMBERED += ("damaged in the middle", "unknown codec", "noise", "web page", "pointer of Git LFS")


def make_folder(folder: Path, count: int, clips: list[bytes]) -> dict[Path, str | None]:
    """Fills a folder; the broken files lie evenly among the good ones.

    Args:
        folder: Where; it is made.
        count: Number of files.
        clips: Good MP4 files, which are taken in turn.

    Returns:
        File -> the reason that its row must have, None for a good one.
    """
    folder.mkdir(parents=True)
    kinds = broken_kinds(clips[0])
    broken = max(round(count * BROKEN_SHARE), len(kinds))
    places = {int((i + 0.5) * count / broken): i for i in range(broken)}
    expected: dict[Path, str | None] = {}
    for number in range(count):
        if number not in places:
            path = folder / f"clip_{number:05d}.mp4"
            path.write_bytes(numbered(clips[number % len(clips)], number))
            expected[path] = None
            continue
        kind = list(kinds)[places[number] % len(kinds)]
        reason, suffix, content = kinds[kind]
        path = folder / f"clip_{number:05d}_{kind.replace(' ', '_')}{suffix}"
        if content is None:
            path.symlink_to("nowhere.mp4")
        else:
            path.write_bytes(content + str(number).encode() if kind in _NUMBERED else content)
        expected[path] = reason
    return expected


def own_clips(folder: Path) -> list[bytes]:
    """The MP4 files of a folder that can be read."""
    found = []
    for path in sorted(folder.iterdir()):
        try:
            if "mp4" in probe(path).container:
                found.append(path.read_bytes())
        except VideoError:
            continue
    if not found:
        raise SystemExit(f"{folder}: no MP4 file that can be read; give a folder with clips")
    return found


def memory_mb(process: psutil.Process) -> tuple[float, int]:
    """Memory of a process and those it started, in 10**6 bytes, and how many they are. Pages that
    several share count once where the system tells (Linux).
    """
    total, count = 0, 0
    for one in [process, *process.children(recursive=True)]:
        try:
            full = one.memory_full_info()
            total, count = total + getattr(full, "pss", full.rss), count + 1
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return total / 1e6, count


def run(start: Start, log: Path, until: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Starts a process, looks at its memory, and kills it (SIGKILL, it alone) when `until` says.

    Returns:
        `status` (negative for a signal), `seconds`, `peak_mb` and the number of `processes`.
    """
    peak, most, began, looked, status = 0.0, 0, time.monotonic(), -math.inf, None
    with log.open("ab") as file:
        process = start(file)
    while status is None:
        try:
            status = process.wait(timeout=LOOK_S)
        except psutil.TimeoutExpired:
            if time.monotonic() - looked > MEMORY_S:
                used, count = memory_mb(process)
                peak, most, looked = max(peak, used), max(most, count), time.monotonic()
            if until is not None and until():
                process.kill()
    seconds = time.monotonic() - began
    return {"status": status, "seconds": seconds, "peak_mb": peak, "processes": most}


def lines_of(record: bytes) -> dict[str, bytes]:
    """File -> its line, of the whole lines of a record."""
    whole = record[: record.rfind(b"\n") + 1].splitlines(keepends=True)
    return {json.loads(line)["file"]: line for line in whole}


def study(start: Start, out: Path, expected: dict[Path, str | None]) -> dict[str, Any]:
    """Kills the command half-way, goes on, and runs it once more.

    Args:
        start: Starts `lmme3dhf score` with its options.
        out: The table that it writes.
        expected: From `make_folder`.

    Returns:
        Figures, and `faults`: what is not as it should be; empty when all is well.
    """
    record, sheet = table_files(out)
    log = out.with_suffix(".log")

    def is_half_way() -> bool:
        return record.exists() and record.read_bytes().count(b"\n") >= len(expected) // 2

    first = run(start, log, is_half_way)
    killed = lines_of(record.read_bytes())
    second = run(start, log)
    whole = lines_of(record.read_bytes())
    third = run(start, log)
    again = lines_of(record.read_bytes())
    rows = read_scores(record)
    found = {row.file: row.reason for row in rows}
    wrong = [p.name for p, reason in expected.items() if found.get(str(p), "no row") != reason]
    checks = {
        "the first command was killed in the middle": first["status"] == -signal.SIGKILL
        and len(expected) // 3 < len(killed) < len(expected),
        "the others ended with status 3": second["status"] == third["status"] == 3,
        "a row a file": len(rows) == len(found) == len(expected),
        "the same rows in the CSV file": rows == read_scores(sheet),
        f"the right reasons (wrong: {', '.join(wrong[:5])})": not wrong,
        # Their times too: no file was scored twice.
        "the rows of before the kill stay": killed.items() <= whole.items(),
        "the third command scored nothing": again == whole,
    }
    return {
        "files": len(expected),
        "broken": sum(reason is not None for reason in expected.values()),
        "reasons": dict(sorted(Counter(row.reason for row in rows if row.reason).items())),
        "rows_before_the_kill": len(killed),
        "seconds": first["seconds"] + second["seconds"],
        "seconds_a_file": sum(row.seconds or 0 for row in rows) / len(rows),
        "seconds_of_the_third": third["seconds"],
        "peak_mb": max(first["peak_mb"], second["peak_mb"]),
        "processes": max(first["processes"], second["processes"]),
        "faults": [f"not so: {what}" for what, is_so in checks.items() if not is_so],
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Makes the folder, runs the study, prints and writes its figures; returns them."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="Other options, such as --batch_size 4, go to lmme3dhf score.",
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder, which may not exist")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--clips", type=Path, help="folder of MP4 clips (default: drawn faces)")
    args, options = parser.parse_known_args(argv)
    if args.out.exists():
        parser.error(f"{args.out} is there already; give another --out")
    clips = own_clips(args.clips) if args.clips else [as_mp4(face) for face in faces(PEOPLE)]
    expected = make_folder(args.out / "clips", args.files, clips)
    table = args.out / "scores.csv"
    command = [sys.executable, "-m", "lmme3dhf.cli", "score", str(args.out / "clips")]
    command += ["--model", args.model, "--out", str(table), *options]
    figures = study(lambda log: psutil.Popen(command, stdout=log, stderr=log), table, expected)
    write_json(args.out / "figures.json", figures)
    for name, value in figures.items():
        print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")
    return figures


if __name__ == "__main__":
    sys.exit(bool(main()["faults"]))
