"""A reader from outside the package: a module of the user's that adds one entry."""

import importlib
import sys
from pathlib import Path

import pytest

from lmme3dhf.aspects import GEN3DHF
from lmme3dhf.data import readers

MODULE = '''
"""Folders of clips named GENERATOR/PERSON-SCORE.mp4, with a question of their own."""

from lmme3dhf.data.readers import READERS
from lmme3dhf.data.samples import DataError, Origin, Sample


def read_folders(path, *, root, aspects, labels, **options):
    for clip in sorted(path.glob("*/*.mp4")):
        person, _, score = clip.stem.rpartition("-")
        if not person:
            yield DataError(f"{clip}: expected PERSON-SCORE.mp4")
            continue
        about = {
            "video": clip.stem,
            "path": clip,
            "origin": Origin(clip.parent.name, person),
            "values": {"quality": float(score)} if labels == "require" else {},
        }
        yield Sample(**about, task="quality", prompt=aspects["quality"].question())
        yield Sample(**about, task="real", prompt="Is it real?", candidates=("yes", "no"))


READERS["folders"] = read_folders
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch) -> Path:
    """The module on the path, and its clips; the package is left as it was."""
    monkeypatch.setitem(readers.READERS, "folders", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_readers.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "my_readers", raising=False)
    for name in ("G1/ann-50.mp4", "G2/ann-75.mp4"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True)
        path.touch()
    importlib.import_module("my_readers")
    return tmp_path


def test_a_module_of_ones_own_reads_any_form(plugin):
    """Free names, an origin and a question of its own, through the door that the stages use.
    Catches a table of readers that is closed.
    """
    samples = readers.list_samples(["folders:clips"], folder=plugin, aspects=GEN3DHF)
    assert [(s.task, s.mos, s.origin.generator, s.origin.identity) for s in samples] == [
        ("quality", 50, "G1", "ann"),
        ("real", None, "G1", "ann"),
        ("quality", 75, "G2", "ann"),
        ("real", None, "G2", "ann"),
    ]
    assert samples[1].candidates == ("yes", "no")
    ignored = readers.list_samples(["folders:clips"], folder=plugin, labels="ignore")
    assert {s.mos for s in ignored} == {None}
    (plugin / "clips/G1/odd.mp4").touch()
    with pytest.raises(readers.DataError, match=r"odd\.mp4"):
        readers.list_samples(["folders:clips"], folder=plugin)
