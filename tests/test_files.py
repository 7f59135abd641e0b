"""Files that are whole or not there."""

import hashlib
import json

from lmme3dhf.files import MANIFEST, damage, file_hash, replace_file, write_manifest


def test_file_hash_is_that_of_the_bytes(tmp_path):
    """The published SHA-256 of "abc"; a file larger than one block catches a hash of the first
    block only.
    """
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    assert (
        file_hash(tmp_path / "abc")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert file_hash(tmp_path / "large") == hashlib.sha256(bytes(3_000_000)).hexdigest()


def test_replace_file_leaves_nothing_beside_the_file(tmp_path):
    """Catches temporary files that stay behind, and a second write that appends."""
    target = tmp_path / "folder" / "file.txt"
    replace_file(target, "first, and longer")
    replace_file(target, "second")
    assert target.read_text() == "second"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def test_every_kind_of_damage_is_told(tmp_path):
    """A folder without manifest, a missing, a cut and a changed file: each was a silent resume in
    plain Trainer checkpoints.
    """
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"weights")
    assert "no manifest" in damage(tmp_path)
    write_manifest(tmp_path)
    assert damage(tmp_path) is None
    (tmp_path / "sub" / "b").write_bytes(b"weightz")
    assert "sub/b is not what was written" in damage(tmp_path)
    (tmp_path / "sub" / "b").write_bytes(b"weig")
    assert "has 4 bytes, expected 7" in damage(tmp_path)
    (tmp_path / "sub" / "b").unlink()
    assert "sub/b is missing" in damage(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"other": 1}))
    assert "cannot be read" in damage(tmp_path)
