"""The verb `verify`: every way to be broken gets its reason, folders are compared with their
manifests, and neither torch nor a model is needed.
"""

import csv
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lmme3dhf.cli import main
from lmme3dhf.data.samples import DataError
from lmme3dhf.data.verify import verdicts
from lmme3dhf.files import write_manifest
from tests.data.test_video import noise, write_clip


def ways_to_be_broken(folder: Path) -> dict[str, str]:
    """Makes a file for each; name -> the reason it should get."""
    whole = write_clip(folder / "whole.mp4", noise(40), bf="0", g="500")
    content = whole.read_bytes()
    with av.open(str(whole)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
    damage = b"\xff" * packet.size
    (folder / "empty.mp4").touch()
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "page.mp4").write_text("<!DOCTYPE html><html><body>404</body></html>" + "x" * 500)
    (folder / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    Image.fromarray(noise(1)[0]).save(folder / "face.png")
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    (folder / "cut.mp4").write_bytes(content[: len(content) * 7 // 10])
    spoilt = content[: packet.pos] + damage + content[packet.pos + packet.size :]
    (folder / "damaged.mp4").write_bytes(spoilt)
    write_clip(folder / "one.mp4", noise(1))
    write_clip(folder / "small.mp4", noise(4, 24, 24))
    write_clip(folder / "large.mp4", [np.zeros((32, 4160, 3), dtype=np.uint8)] * 4)
    # A codec that nobody has: four letters in the sample description.
    assert content.count(b"avc1") == 2  # its brands name it too
    (folder / "codec.mp4").write_bytes(content.replace(b"avc1", b"zzz1"))
    os.symlink(folder / "gone.mp4", folder / "link.mp4")
    return {
        "empty.mp4": "empty",
        "noise.mp4": "not_a_video",
        "page.mp4": "not_a_video",
        "pointer.mp4": "not_a_video",
        "face.png": "still_image",
        "sound.wav": "no_video_stream",
        "cut.mp4": "truncated",
        "damaged.mp4": "decode_error",
        "one.mp4": "too_short",
        "small.mp4": "too_small",
        "large.mp4": "too_large",
        "codec.mp4": "unsupported_codec",
        "link.mp4": "missing",
    }


def test_every_way_to_be_broken_gets_its_reason(tmp_path, capsys):
    """A line for each on the screen, a row for each file in the table, good ones too. Catches one
    reason for everything, and a file that is left out.
    """
    folder = tmp_path / "clips"
    folder.mkdir()
    expected = ways_to_be_broken(folder)
    Image.fromarray(np.hstack(noise(3, 96, 96))).save(folder / "strip.png")
    table = tmp_path / "out" / "verified.csv"
    assert main(["verify", str(folder), "--out", str(table)]) == 3
    *lines, last = capsys.readouterr().out.splitlines()
    told = {line.split(": ", 1)[0]: line for line in lines}
    assert set(told) == set(expected.values())
    assert len(lines) == len(expected)
    assert last == f"{len(expected) + 2} looked at: 2 good, {len(expected)} bad"
    with table.open(newline="", encoding="utf-8") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    found = {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}
    assert found == expected
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {
        "whole.mp4",
        "strip.png",
    }
    for name in expected:
        assert name in rows[name]["message"]
    assert "after 2" in rows["damaged.mp4"]["message"]


def test_good_files_and_wrong_input(tmp_path, capsys):
    """Catches status 0 for bad files, and a traceback for a wrong path."""
    clip = write_clip(tmp_path / "clip.mp4", noise(4))
    assert main(["verify", str(clip)]) == 0
    assert capsys.readouterr().out == "1 looked at: 1 good, 0 bad\n"
    assert main(["verify", str(clip), str(tmp_path / "nothing.mp4")]) == 1
    assert "nothing.mp4" in capsys.readouterr().err
    with pytest.raises(DataError, match="nothing"):
        next(verdicts([tmp_path / "nothing"]))


def test_limits_are_the_users(tmp_path, capsys):
    """Catches options that do not reach the processes, and a traceback for a limit that is none."""
    clip = write_clip(tmp_path / "clip.mp4", noise(4))
    assert main(["verify", str(clip), "--timeout", "0.0001"]) == 3
    assert capsys.readouterr().out.startswith(f"time_out: {clip} was not read within 0.0001 s")
    for option in ("--timeout=0", "--timeout=-1", "--memory_mb=0"):
        assert main(["verify", str(clip), option]) == 1
        assert "expected numbers above 0" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory so")
@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_a_clip_that_needs_more_memory_than_allowed_is_told_so(tmp_path, codec):
    """FFmpeg itself runs out here: a picture has 3.1 MB, and it keeps several; in a fresh process,
    for one that has used memory before has some to spare. Catches "damaged" for a good file, which
    the decoder of H.264 says.
    """
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    pictures = noise(4, 1440, 1440)
    clip = write_clip(tmp_path / "a.mp4", pictures, codec=codec, preset="ultrafast", **options)
    for allowed, expected in (("4", "out_of_memory: "), ("400", "1 looked at: 1 good")):
        words = [sys.executable, "-m", "lmme3dhf.cli", "verify", clip, "--memory_mb", allowed]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.stdout.startswith(expected), done.stdout


def test_folders_with_a_manifest_are_compared_with_it(tmp_path, capsys):
    """Catches a model of which a byte has changed, and one whose weights are taken for clips."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(1000))
    write_manifest(model)
    clip = write_clip(tmp_path / "clip.mp4", noise(4))
    assert main(["verify", str(model), str(clip)]) == 0
    (model / "model.safetensors").write_bytes(bytes(999) + b"\1")
    assert main(["verify", str(clip), str(model)]) == 3
    assert f"damaged: {model} is not as it was written: model.saf" in capsys.readouterr().out
    (model / "manifest.json").write_text(json.dumps({"files": {"config.json": 1}}))
    assert [verdict.reason for verdict in verdicts([model])] == ["damaged"]


def test_names_of_files_do_no_harm(tmp_path, capsys):
    """A name may hold a line end, a terminal's commands, a formula, and bytes that are no text.
    Catches a screen that is cleared, a row too many, a cell that is computed, and a crash.
    """
    names = ["a\nb.mp4", "\x1b[2J.mp4", "=1+1.mp4", os.fsdecode(b"\xff.mp4")]
    for name in names:
        (tmp_path / name).touch()
    table = tmp_path / "table.csv"
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert main(["verify", *names, "--out", str(table)]) == 3
    finally:
        os.chdir(here)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert len(said.splitlines()) == len(names) + 1
    with table.open(newline="", encoding="utf-8") as file:
        cells = [row["file"] for row in csv.DictReader(file)]
    assert cells == ["a\nb.mp4", "\x1b[2J.mp4", "'=1+1.mp4", "\\udcff.mp4"]


def test_it_needs_no_torch(tmp_path):
    """In a fresh interpreter. Catches an import that costs seconds and hundreds of MB."""
    clip = write_clip(tmp_path / "clip.mp4", noise(4))
    code = (
        "import sys\n"
        "from lmme3dhf.cli import main\n"
        "assert main(['verify', sys.argv[1]]) == 0\n"
        "print([m for m in ('torch', 'torchvision', 'transformers', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(clip)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
