"""Unpacking an archive that may be anything."""

import io
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lmme3dhf.data.archive import Limits, extract
from lmme3dhf.data.download import PARTS
from lmme3dhf.data.samples import DataError

PICTURES = PARTS["image"][1]
CLIPS = PARTS["video_RGB"][1]
ROOT = Path(__file__).resolve().parents[2]


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def special(name: str, mode: int, content: bytes = b"x") -> bytes:
    """An archive with an honest picture and a member of another file type."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("seed0000.png", b"honest")
        info = zipfile.ZipInfo(name)
        info.external_attr = (mode | 0o644) << 16
        archive.writestr(info, content)
    return buffer.getvalue()


def patched(data: bytes, central: dict[int, bytes], local: dict[int, bytes]) -> bytes:
    """Overwrites fields in the last member's central entry and in its local header."""
    content = bytearray(data)
    for signature, fields in ((b"PK\1\2", central), (b"PK\3\4", local)):
        start = data.rindex(signature)
        for offset, value in fields.items():
            content[start + offset : start + offset + len(value)] = value
    return bytes(content)


def with_size(data: bytes, size: int) -> bytes:
    """The last member's unpacked size, as its headers tell it."""
    return patched(data, {24: struct.pack("<L", size)}, {22: struct.pack("<L", size)})


def packed(content: bytes) -> bytes:
    """One deflated picture."""
    return zipped({"seed0001.png": content}, zipfile.ZIP_DEFLATED)


HONEST = {"image/seed0000.png": b"honest", "image/seed0001.png": b"too"}
NOISE = random.Random(0).randbytes(3000)

# Name -> (the archive, a piece of the sentence).
EVIL: dict[str, tuple[Callable[[], bytes], str]] = {
    "absolute": (lambda: zipped({"/etc/seed0001.png": b"x", **HONEST}), "absolute path"),
    "parent": (lambda: zipped({**HONEST, "../../seed0002.png": b"x"}), "leads out"),
    "parent inside": (lambda: zipped({"a/../seed0002.png": b"x", **HONEST}), "leads out"),
    "wide parent": (lambda: zipped({"\uff0e\uff0e/seed0002.png": b"x"}), "leads out"),
    "parent of another file": (lambda: zipped({**HONEST, "../.bashrc": b"x"}), "leads out"),
    "drive": (lambda: zipped({"C:/seed0001.png": b"x"}), "colon"),
    "stream": (lambda: zipped({"seed0001.png:x": b"x"}), "colon"),
    "backslash": (lambda: zipped({"..\\seed0001.png": b"x"}), "backslash"),
    "nul": (
        lambda: zipped({"seed0001.png!.exe": b"x"}).replace(b"png!", b"png\0"),
        "control character",
    ),
    "link": (lambda: special("seed0001.png", stat.S_IFLNK, b"/etc/passwd"), "is a link"),
    "linked folder": (lambda: special("image", stat.S_IFLNK, b"/etc"), "is a link"),
    "pipe": (lambda: special("seed0001.png", stat.S_IFIFO), "no regular file"),
    "encrypted": (lambda: patched(zipped(HONEST), {8: b"\1\0"}, {6: b"\1\0"}), "encrypted"),
    "same name in another case": (
        lambda: zipped({"seed0001.png": b"a", "SEED0001.PNG": b"b"}),
        "would both become seed0001.png",
    ),
    "same name in another folder": (
        lambda: zipped({"a/seed0001.png": b"a", "b/seed0001.png": b"b"}),
        "would both become seed0001.png",
    ),
    "same name in other characters": (
        lambda: zipped({"seed0001.png": b"a", "\uff53eed000\uff11.png": b"b"}),
        "would both become seed0001.png",
    ),
    "deep": (lambda: zipped({"a/" * 9 + "seed0001.png": b"x"}), "8 folders deep"),
    "bomb": (lambda: packed(bytes(2 << 20)), "unpacks from"),
    "many small bombs": (
        lambda: zipped({f"seed{i:04d}.png": bytes(1 << 20) for i in range(4)}, 8),
        "would unpack to 4194304",
    ),
    "overlap": (
        lambda: patched(zipped(HONEST), {42: struct.pack("<L", 3)}, {}),
        "overlaps",
    ),
    "unknown method": (lambda: zipped({"seed0001.png": b"x"}, zipfile.ZIP_LZMA), "method 14"),
    "stored with two sizes": (lambda: with_size(zipped(HONEST), 2), "two sizes"),
    "larger than its header": (lambda: with_size(packed(NOISE), 2000), "CRC"),
    "smaller than its header": (
        # Its CRC is right for what comes.
        lambda: with_size(packed(NOISE), 4000),
        "its header says 4000",
    ),
    "wrong checksum": (lambda: zipped(HONEST).replace(b"too", b"tOo"), "CRC"),
    "damaged inside": (lambda: packed(NOISE).replace(NOISE[500:600], bytes(100)), "damaged"),
    "cut off": (lambda: zipped(HONEST)[:-30], "no zip file"),
    "cut in the middle": (lambda: packed(NOISE)[:1000], "no zip file"),
    "another file": (lambda: b"<html>not found</html>", "no zip file"),
    "empty file": (lambda: b"", "no zip file"),
    "other headers inside": (
        lambda: patched(zipped(HONEST), {}, {30: b"!"}),
        "differ",
    ),
    "nothing of ours": (lambda: zipped({"a/readme.txt": b"x"}), "such as seed0001.png"),
    "no members": (lambda: zipped({}), "it holds nothing"),
}


def everything(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of all files below a folder, and folders with an empty content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("kind", EVIL)
def test_evil_archives_are_refused_and_change_nothing(kind, tmp_path):
    """Each kind is accepted, renamed or half unpacked by plain zipfile. The folder already has an
    honest file of an earlier archive, which must stay.
    """
    make, piece = EVIL[kind]
    (tmp_path / "evil.zip").write_bytes(make())
    data = tmp_path / "data"
    (data / "image").mkdir(parents=True)
    (data / "image" / "seed0000.png").write_bytes(b"honest")
    before = everything(tmp_path)
    with pytest.raises(DataError, match=piece) as told:
        extract(tmp_path / "evil.zip", data / "image", PICTURES)
    assert "evil.zip" in str(told.value)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("limits", "piece"),
    [
        (Limits(members=2), "3 members, more than 2"),
        (Limits(member_bytes=4), "more than 4"),
        (Limits(total_bytes=12), "would unpack to 13"),
    ],
)
def test_limits_hold(limits, piece, tmp_path):
    """Just above each limit; with the release's limits the same archive is fine."""
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"seed0000.png": b"12345", "seed0001.png": b"1234", "x": b"1234"}))
    with pytest.raises(DataError, match=piece):
        extract(path, tmp_path / "image", PICTURES, limits=limits)
    assert not (tmp_path / "image").exists()
    assert len(extract(path, tmp_path / "image", PICTURES).members) == 2


@pytest.mark.parametrize("around", ["", "image/", "./", "Gen3DHF/image/", "\u4eba\u8138/"])
def test_files_come_out_flat_whatever_is_around_them(around, tmp_path):
    """The inner structure of the released archives is not known. Catches a reader that expects one
    folder, one case or one suffix, and files of the packer's system in the data.
    """
    members = {
        f"{around}seed0000.png": b"a",
        f"{around}Seed0001.PNG": b"b",
        f"{around}seed0002.jpg": b"c",
        f"{around}seed0003_saliency.png": b"d",
        f"{around}seed12345.png": b"five digits",
        f"{around}notes.txt": b"",
        f"__MACOSX/{around}._seed0000.png": b"fork",
        f"{around}.DS_Store": b"",
        f"{around}Thumbs.db": b"",
    }
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(members, zipfile.ZIP_DEFLATED))
    contents = extract(path, tmp_path / "new" / "image", PICTURES)
    assert everything(tmp_path / "new" / "image") == {
        "seed0000.png": b"a",
        "seed0001.png": b"b",
        "seed0002.jpg": b"c",
        "seed0003.png": b"d",
    }
    assert sorted(contents.left_out) == [f"{around}notes.txt", f"{around}seed12345.png"]
    assert contents.ignored == 3
    assert contents.sizes["seed0003.png"] == 1
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["image"]


def test_clips_are_not_pictures(tmp_path):
    """Catches an archive of pictures that is taken for the clips."""
    path = tmp_path / "video.zip"
    path.write_bytes(zipped({"seed0000.png": b"a"}))
    with pytest.raises(DataError, match=r"such as seed0001\.mp4; it holds 'seed0000\.png'"):
        extract(path, tmp_path / "video_RGB", CLIPS)


def test_what_is_there_stays(tmp_path):
    """The same file is not written again; another one is an error before anything is written, or
    replaced on request. Catches an overwritten data set.
    """
    path, folder = tmp_path / "a.zip", tmp_path / "image"
    path.write_bytes(zipped({f"seed000{i}.png": b"%d" % i for i in range(3)}))
    folder.mkdir()
    (folder / "seed0001.png").write_bytes(b"1")
    (folder / "seed0002.png").write_bytes(b"x")  # the same size
    (folder / "mine.txt").write_bytes(b"mine")
    os.utime(folder / "seed0001.png", (1, 1))
    before = everything(tmp_path)
    with pytest.raises(DataError, match=r"1 files differ .*seed0002\.png.* stay as they are"):
        extract(path, folder, PICTURES)
    assert everything(tmp_path) == before
    extract(path, folder, PICTURES, replace=True)
    assert (folder / "seed0001.png").stat().st_mtime == 1
    assert everything(folder) == {
        "seed0000.png": b"0",
        "seed0001.png": b"1",
        "seed0002.png": b"2",
        "mine.txt": b"mine",
    }


def test_a_full_disk_is_told_before(tmp_path, monkeypatch):
    """Catches a disk that is filled to the last byte by half a data set."""
    path = tmp_path / "a.zip"
    path.write_bytes(packed(NOISE))
    monkeypatch.setattr("shutil.disk_usage", lambda p: type("Usage", (), {"free": 2999}))
    with pytest.raises(DataError, match="unpacks to 3000 bytes, and 2999 are free"):
        extract(path, tmp_path / "image", PICTURES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


def test_a_kill_leaves_no_half_folder(tmp_path):
    """Killed without notice when the fourth of six files is half written. Catches a folder that
    looks whole and is not, and rubbish of the first run in the second.
    """
    path = tmp_path / "a.zip"
    members = {f"seed{i:04d}.png": random.Random(i).randbytes(3 << 20) for i in range(6)}
    path.write_bytes(zipped(members))
    code = (
        "import os, signal, sys, zipfile\n"
        "from pathlib import Path\n"
        "from lmme3dhf.data.archive import extract\n"
        "from lmme3dhf.data.download import PARTS\n"
        "read, blocks = zipfile.ZipExtFile.read, []\n"
        "def dying(self, n):\n"
        "    blocks.append(read(self, n))\n"
        "    if sum(map(len, blocks)) > 10 << 20:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return blocks[-1]\n"
        "zipfile.ZipExtFile.read = dying\n"
        "extract(Path(sys.argv[1]), Path(sys.argv[2]), PARTS['image'][1])\n"
    )
    folder = tmp_path / "image"
    done = subprocess.run([sys.executable, "-c", code, path, folder], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert [p.name for p in (tmp_path / ".image.unpacking").iterdir()]
    extract(path, folder, PICTURES)
    assert everything(folder) == members
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "image"]


def test_random_damage_is_a_sentence_or_harmless(tmp_path):
    """One byte changed at 400 random places. Catches errors of zipfile that nobody expected, and
    content that changed without a word.
    """
    rng = random.Random(1)
    members = {"image/seed0000.png": NOISE[:40], "image/seed0001.png": bytes(200)}
    data = zipped(members, zipfile.ZIP_DEFLATED)
    path, refused = tmp_path / "a.zip", 0
    for number in range(400):
        position = rng.randrange(len(data))
        changed = bytearray(data)
        changed[position] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        folder = tmp_path / str(number)
        try:
            extract(path, folder, PICTURES)
        except DataError:
            refused += 1
            assert not folder.exists()
        else:
            for name, content in everything(folder).items():
                assert zlib.crc32(content) in {zlib.crc32(c) for c in members.values()}, name
    assert refused > 200
