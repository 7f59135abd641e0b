"""Maps from marks, in one process and in several."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from lmme3dhf.annotations import AnnotationError
from lmme3dhf.data.marks import Marks, write_maps

VIDEOS = [f"seed{number:04d}" for number in range(110)]


@pytest.fixture(scope="module")
def strips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strips")
    for video in VIDEOS:
        Image.new("RGB", (48, 16), (90, 120, 150)).save(folder / f"{video}.png")
    return folder


def marks(folder):
    """Every third video without a mark, the others marked by one or two."""
    points = {
        video: {
            "ann": [(number % 48, 3.0)] * (number % 3 > 0),
            "ben": [(5.0, number % 16)] * max(0, number % 3 - 1),
        }
        for number, video in enumerate(VIDEOS)
    }
    return Marks(folder, ("ann", "ben"), {}, points)


def content(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_processes_change_nothing(strips, tmp_path):
    """Catches maps that go to another video's name, results in the order of completion, and marks
    that are lost on the way to a process.
    """
    alone = write_maps(tmp_path / "one", VIDEOS, marks(strips), [strips])
    together = write_maps(tmp_path / "two", VIDEOS, marks(strips), [strips], processes=2)
    assert alone == together
    assert list(together.dots) == VIDEOS
    assert together.dots["seed0000"] == {"ann": 0, "ben": 0}
    assert together.dots["seed0002"] == {"ann": 1, "ben": 1}
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert len(one) == 3 * len(VIDEOS) + 1
    assert one == two
    with Image.open(tmp_path / "two" / "fixation_map" / "seed0002.png") as picture:
        assert np.argwhere(np.asarray(picture)).tolist() == [[2, 5], [3, 2]]


def test_a_fault_in_a_process_is_the_same_sentence(strips, tmp_path):
    """Catches the traceback of a process, and a fault that is passed over."""
    wrong = marks(strips)
    wrong.points["seed0100"]["ann"] = [(48.0, 3.0)]
    sentences = []
    for number in (1, 2):
        with pytest.raises(AnnotationError, match="marks on seed0100: ann's point 0") as error:
            write_maps(tmp_path / str(number), VIDEOS, wrong, [strips], processes=number)
        sentences.append(str(error.value))
    assert sentences[0] == sentences[1]
