"""What a user points at -> single clips."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lmme3dhf.data.samples import DataError
from lmme3dhf.data.sources import files_below, in_memory, is_one, is_picture, single_clips

CLIP = np.zeros((2, 28, 28, 3), np.uint8)
STRIP = np.zeros((28, 84, 3), np.uint8)


@pytest.fixture
def tree(tmp_path) -> Path:
    """Files at two depths, hidden ones, an empty folder and a link that leads nowhere."""
    for name in ("b.mp4", "a.mp4", "more/c.mp4", "more/a.png", ".hidden.mp4", ".git/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    return tmp_path


def names(paths, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_files_of_a_folder_in_order(tree):
    """Hidden ones left out, a dead link kept. Catches an order that depends on the disk, files that
    no row tells of, and those of version control.
    """
    expected = ["a.mp4", "b.mp4", "lost.mp4", "more/a.png", "more/c.mp4"]
    assert names(files_below([tree]), tree) == expected
    assert names(files_below([str(tree / "more"), tree]), tree) == [
        "more/a.png",
        "more/c.mp4",
        "a.mp4",
        "b.mp4",
        "lost.mp4",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["a.mp4", "b.mp4", "lost.mp4"]),
        ("**/a.*", ["a.mp4", "more/a.png"]),
        ("[ab].mp4", ["a.mp4", "b.mp4"]),
        ("mo?e", ["more/a.png", "more/c.mp4"]),
    ],
)
def test_patterns_are_those_of_a_shell(tree, pattern, expected):
    """A folder that matches stands for its files. Catches patterns that are taken for names."""
    assert names(files_below([tree / pattern]), tree) == expected
    assert names(single_clips(str(tree / pattern)), tree) == expected


def test_a_name_with_brackets_is_a_name(tree):
    """Catches `face[1].mp4` that is looked for as `face1.mp4`."""
    odd = tree / "face[1].mp4"
    odd.touch()
    assert files_below([odd]) == list(single_clips(odd)) == [odd]
    assert is_one(str(odd))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.mp4", "no such file or folder"),
        ("*.avi", "no file has such a name"),
        ("empty", "no files below it"),
    ],
)
def test_what_is_not_there_is_said(tree, name, message):
    """Catches a table without rows that looks like success."""
    with pytest.raises(DataError, match=message):
        files_below([tree, tree / name])


def test_one_is_told_from_many(tree):
    """Catches a clip that comes back as an iterator, and a folder that is opened as a video."""
    array = np.array([str(tree / "a.mp4")] * 4, dtype=object)
    one = [tree / "a.mp4", str(tree / "absent.mp4"), CLIP, STRIP, torch.zeros(2, 28, 28, 3)]
    one += [Image.fromarray(STRIP)]
    many = [tree, str(tree / "*.mp4"), [], (CLIP,), iter([]), {tree}, array]
    assert [is_one(clips) for clips in (*one, *many)] == [True] * len(one) + [False] * len(many)
    assert [in_memory(clip) for clip in one] == [False, False, True, True, True, True]
    assert list(single_clips(array)) == [tree / "a.mp4"] * 4


def test_a_list_is_taken_piece_by_piece(tree):
    """Folders in it stand for their files, what does not exist stays. Catches an endless iterable
    that is read to its end, and an array that is taken to pieces.
    """

    def pieces() -> Iterator:
        yield tree / "more"
        yield CLIP
        yield "absent.mp4"
        yield from itertools.repeat(STRIP)

    first = list(itertools.islice(single_clips(pieces()), 6))
    assert names(first[:2], tree) == ["more/a.png", "more/c.mp4"]
    assert first[2] is CLIP
    assert first[3] == Path("absent.mp4")
    assert first[4] is first[5] is STRIP


@pytest.mark.parametrize("clips", [3, None, b"\0\0\0\x18ftyp", {"a.mp4": 1}])
def test_what_is_no_clip_is_refused(clips):
    """Catches the bytes of a file, or the keys of a mapping, that are taken for a list of clips."""
    with pytest.raises(TypeError, match="is no clip; expected a file, a folder"):
        is_one(clips)
    with pytest.raises(TypeError, match="in a list of clips; expected a file"):
        list(single_clips([CLIP, clips]))


def test_pictures_are_told_by_their_names():
    """Catches names in capitals."""
    found = [is_picture(Path(name)) for name in ("a.png", "b.JPG", "c.mp4", "png", "d.gif")]
    assert found == [True, True, False, False, False]


@pytest.mark.parametrize("module", ["lmme3dhf.data.sources", "lmme3dhf.data.strips"])
def test_torch_is_not_needed(module):
    """Catches a listing of files, or a thumbnail, that waits seconds for torch."""
    code = f"import {module}, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


@pytest.fixture
def linked(tmp_path) -> Path:
    """A folder of clips with links to a folder elsewhere, to itself, to the one around it, in a
    circle, and to nowhere.
    """
    root, disk = tmp_path / "around" / "clips", tmp_path / "disk"
    for name in ("a.mp4", "sub/b.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "around" / "not_asked_for.mp4").touch()
    (disk / "deep").mkdir(parents=True)
    (disk / "c.mp4").touch()
    (disk / "deep" / "d.mp4").touch()
    (root / "big").symlink_to(disk)
    (root / "here").symlink_to(".")
    (root / "sub" / "back").symlink_to("../sub")
    (root / "up").symlink_to("..")
    (disk / "deep" / "clips").symlink_to(root)
    (root / "file.mp4").symlink_to(disk / "c.mp4")
    (root / "lost.mp4").symlink_to("nowhere.mp4")
    (root / "itself.mp4").symlink_to("itself.mp4")
    return root


LINKED = ["a.mp4", "big/c.mp4", "big/deep/d.mp4", "file.mp4", "itself.mp4", "lost.mp4", "sub/b.mp4"]


def test_linked_folders_are_searched_once(linked):
    """Catches clips on another disk that are left out silently, a loop that does not end, and the
    files of the folder around the one that is asked for.
    """
    assert names(files_below([linked]), linked) == LINKED
    assert names(single_clips(str(linked)), linked) == LINKED
    # The same folder by a link to it, and by a path with a link in it.
    (linked.parent / "link").symlink_to(linked)
    assert names(files_below([linked.parent / "link"]), linked.parent / "link") == LINKED


def test_patterns_do_not_go_in_circles(linked):
    """`**` of the standard library follows a link in a circle 40 times, and two for ever."""
    assert names(files_below([linked / "**" / "*.mp4"]), linked) == LINKED


def numbered(folder: Path, size: tuple[int, int], name: str = "frame_{:04d}.png") -> Path:
    folder.mkdir()
    for number in range(1, 4):
        Image.new("RGB", size).save(folder / name.format(number))
    return folder


def test_frames_of_a_clip_are_told_how_to_become_one(tmp_path):
    """Catches a row for each frame that calls it a still picture. Strips are numbered too, and a
    pattern means what it says.
    """
    frames = numbered(tmp_path / "frames", (64, 48))
    for given in (frames, tmp_path):
        with pytest.raises(DataError, match=r"frame_%04d\.png.*pattern") as error:
            files_below([given])
        assert "ffmpeg" in str(error.value)
    assert len(files_below([frames / "*.png"])) == 3
    assert len(files_below([numbered(tmp_path / "strips", (96, 32), "seed{:04d}.png")])) == 3
    assert len(files_below([numbered(tmp_path / "faces", (64, 48), "face{}_a.png")])) == 3
