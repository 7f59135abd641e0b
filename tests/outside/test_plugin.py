"""`--plugin MODULE`: a module of the user's is imported before the command line is read."""

import sys

import pytest

from lmme3dhf.cli import main


@pytest.mark.parametrize("words", [["--plugin", "mine"], ["--plugin=mine"]])
@pytest.mark.parametrize("first", [True, False])
def test_a_module_of_the_current_folder_is_imported(tmp_path, monkeypatch, words, first):
    """Before and after the verb. Catches a flag that only one place of the line knows."""
    (tmp_path / "mine.py").write_text("loaded = True\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(SystemExit) as ended:
        main([*words, "merge", "--help"] if first else ["merge", *words, "--help"])
    assert ended.value.code == 0
    assert sys.modules.pop("mine").loaded


@pytest.mark.parametrize("content", [None, "1 / 0\n"])
def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch, capsys, content):
    """Missing, or broken: status 2 and the module's name, without a traceback."""
    if content:
        (tmp_path / "no_such_plugin.py").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        main(["--plugin", "no_such_plugin", "merge", "somewhere"])
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert "no_such_plugin" in message
    assert "Traceback" not in message
