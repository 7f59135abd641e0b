"""The advice that an error of the operating system gets: by what went wrong, not one for all."""

import errno
import os

import pytest

from lmme3dhf import cli
from lmme3dhf.errors import UserError, format_error
from lmme3dhf.files import replace_file
from lmme3dhf.jsonl import append

PATHS = {
    errno.ENOENT: "path",
    errno.ENOTDIR: "path",
    errno.EACCES: "permissions",
    errno.EPERM: "permissions",
    errno.EROFS: "read-only",
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EMFILE: "ulimit",
    errno.EIO: "disk",
    errno.ENAMETOOLONG: "shorten",
}


@pytest.mark.parametrize(("number", "advice"), PATHS.items())
def test_the_advice_is_that_of_the_error(number, advice):
    """With the file, once, and the system's own words. Catches "check that path" for a full disk,
    and an advice that belongs to another error.
    """
    sentence = format_error(OSError(number, os.strerror(number), "runs/a.json"))
    assert sentence.startswith(f"runs/a.json: {os.strerror(number)}; ")
    assert advice in sentence
    # Many errors name no file.
    assert format_error(OSError(number, os.strerror(number))).startswith(os.strerror(number))
    others = {word for word in PATHS.values() if word not in (advice, "path", "disk")}
    assert not [word for word in others if word in sentence.partition("; ")[2]]


def test_what_has_no_advice_is_said_as_it_is():
    """Catches an advice that fits nothing, and an error without a number."""
    assert format_error(OSError(errno.EPIPE, "Broken pipe", "a")) == "a: Broken pipe"
    assert format_error(OSError("pipes are not supported")) == "pipes are not supported"
    assert format_error(UserError("a is b; do c")) == "a is b; do c"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux alone has a full device")
def test_a_full_disk_names_the_file(tmp_path, monkeypatch, capsys):
    """Where the system does not: writing to an open file. Through the command line, with a summary
    that does not speak of the path. Catches "[Errno 28]" alone.
    """
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match=r"full'$") as stop,
    ):
        append(full, b"{}\n")
    assert stop.value.errno == errno.ENOSPC
    assert format_error(stop.value).startswith("/dev/full: ")
    target = tmp_path / "figures.json"

    def no_room(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match=r"No space left on device: .*/figures\.json'$"):
        replace_file(target, "{}")
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(
        cli.VERBS, "verify", (cli.scoring.verify_parser, lambda *words: replace_file(target, "{}"))
    )
    assert cli.main(["verify", "a.mp4"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"lmme3dhf verify: {target}: No space left on device; make room")
    assert "check that path" not in error
