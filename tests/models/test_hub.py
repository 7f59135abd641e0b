"""Model folders from and to a hub: a server on this machine that really stores what it is sent."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from transformers import Qwen2_5_VLForConditionalGeneration

from lmme3dhf import Scorer
from lmme3dhf.cli import main
from lmme3dhf.files import MANIFEST, damage, write_manifest
from lmme3dhf.models.card import METRIC, README, read_metric
from lmme3dhf.models.configuration import ModelError
from lmme3dhf.models.folder import model_hash
from lmme3dhf.models.hub import HubError, local_model, model_folder, push_to_hub
from lmme3dhf.models.modeling import LMME3DHF, load_processor
from tests.models.conftest import HOME, SECRET
from tests.models.fake_model_hub import NAME, contents

WRITER, READER = "hf_writer", "hf_reader"


@pytest.fixture
def copy(published, tmp_path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "model"))


def clip_frames() -> np.ndarray:
    """(6, 56, 112, 3) uint8: a made-up clip."""
    return np.random.default_rng(0).integers(0, 256, (6, 56, 112, 3), dtype=np.uint8)


def score_of(model: str | Path) -> tuple[float, dict[str, float]]:
    found = Scorer.from_pretrained(model, device="cpu", workers=0).score(clip_frames(), fps=2.0)
    return found.quality.score, found.quality.level_probabilities


# What a name means


def test_a_path_is_looked_for_here_and_in_the_project(tmp_path, monkeypatch):
    """Catches the tiny base that is found from the project's root alone, and a hub that is asked
    for a folder.
    """
    (tmp_path / "user" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_folder("user/model").resolve() == tmp_path / "user" / "model"
    tiny = model_folder("lmme3dhf/models/tiny_base")
    assert (tiny / "config.json").is_file()
    assert local_model("user/other") is None


@pytest.mark.parametrize("name", ["./gone", "gone", "a/b/c", "~/gone", "/gone/away"])
def test_what_can_be_no_hub_id_is_not_looked_for_there(hub, name):
    """Catches a mistyped path that ends in an answer of the hub's."""
    with pytest.raises(HubError, match=r"no such folder; give a folder with config\.json"):
        model_folder(name)
    assert hub.requests == []


# There and back


def test_a_pushed_model_scores_as_the_folder_does(hub, published):
    """Bit for bit. Catches a file that is not sent (the processor, the metric), and weights that
    change on the way.
    """
    assert push_to_hub(published, NAME) == f"{hub.url}/{NAME}"
    assert hub.repositories[NAME].private
    stored = hub.files(NAME)
    assert stored == contents(published)
    fetched = model_folder(NAME)
    assert fetched != published
    assert contents(fetched) == stored
    assert damage(fetched) is None
    assert model_hash(fetched) == model_hash(published)
    assert score_of(NAME) == score_of(published)
    assert read_metric(fetched) == read_metric(published)


def test_the_stock_class_reads_a_folder_with_a_card(published):
    """Catches a card or a metric.json that a loader trips over."""
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(published).state_dict()
    ours = LMME3DHF.from_pretrained(published).state_dict()
    assert len(stock) > 50
    assert all(torch.equal(tensor, ours[name]) for name, tensor in stock.items())
    assert {name.split(".")[0] for name in set(ours) - set(stock)} == {"heads"}


def test_only_what_the_manifest_lists_is_sent(hub, copy):
    """Catches a note, a log or a checkpoint that lies in the folder and is published with it."""
    (copy / "notes.txt").write_text("mine")
    (copy / "checkpoints").mkdir()
    (copy / "checkpoints" / "model.safetensors").write_bytes(b"x")
    push_to_hub(copy, NAME)
    listed = json.loads((copy / MANIFEST).read_text())["files"]
    assert set(hub.files(NAME)) == {*listed, MANIFEST}
    assert "notes.txt" not in listed


def test_a_second_push_leaves_no_weights_of_the_first(hub, copy):
    """Catches old shards among the new weights; what else somebody put there stays."""
    hub.holds(NAME, {"model-00001-of-00002.safetensors": b"old", "picture.png": b"mine"})
    push_to_hub(copy, NAME, private=False)
    stored = hub.files(NAME)
    assert [name for name in stored if name.endswith(".safetensors")] == ["model.safetensors"]
    assert stored["picture.png"] == b"mine"
    assert (copy / README).read_bytes() == stored[README]


def test_merging_publishes_on_request(hub, stage_run, published, tmp_path, capsys):
    """By the command line. Catches an option that nobody reads."""
    words = [str(stage_run), "--out", str(tmp_path / "model"), "--push_to", NAME]
    assert main(["merge", *words]) == 0
    assert f"{hub.url}/{NAME}" in capsys.readouterr().out
    assert hub.files(NAME) == contents(published)


def test_a_branch_is_made_and_filled(hub, copy):
    """Catches a revision that is written to main."""
    hub.holds(NAME, {"first.txt": b"1"})
    assert push_to_hub(copy, NAME, private=False, revision="v2") == f"{hub.url}/{NAME}/tree/v2"
    assert set(hub.files(NAME)) == {"first.txt"}
    assert METRIC in hub.files(NAME, "v2")


# What is not published


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("generation_config.json", f'{{\n"a": 1,\n"path": "{HOME}"\n}}', ":3: holds a home folder"),
        (README, f"# x\n{SECRET}\n", ":2: holds a token of the hub"),
        (METRIC, '{"x": "C:\\\\Users\\\\me\\\\model"}', ":1: holds a home folder"),
    ],
)
def test_tokens_and_home_folders_are_refused_with_their_place(hub, copy, name, text, told):
    """Catches what nobody can call back once it is published, and a message that repeats it."""
    (copy / name).write_text(text)
    write_manifest(copy)
    with pytest.raises(HubError, match=re.escape(f"{copy / name}{told}")) as error:
        push_to_hub(copy, NAME)
    assert SECRET not in str(error.value)
    assert HOME not in str(error.value)
    assert hub.requests == []


def test_a_vocabulary_may_hold_any_word(hub, copy):
    """Catches a tokenizer that is refused for a word of its vocabulary."""
    path = copy / "tokenizer.json"
    content = json.loads(path.read_text())
    content["comment"] = f"{HOME}/x"
    path.write_text(json.dumps(content))
    write_manifest(copy)
    push_to_hub(copy, NAME)
    assert hub.files(NAME)["tokenizer.json"] == path.read_bytes()


def test_a_damaged_folder_is_not_published(hub, copy, tiny_folder):
    """Catches half a model under a good name, and a folder that no merge wrote."""
    (copy / "model.safetensors").write_bytes(b"half")
    with pytest.raises(HubError, match=r"model\.safetensors has 4 bytes"):
        push_to_hub(copy, NAME)
    with pytest.raises(HubError, match="it has no manifest"):
        push_to_hub(tiny_folder, NAME)
    assert hub.requests == []


def test_private_is_not_published_in_the_open(hub, copy):
    """The library leaves a repository that exists as it is. Catches weights that were meant for few
    in a public one.
    """
    hub.holds(NAME, {"a.txt": b""})
    with pytest.raises(HubError, match=r"exists and is public; say private=False"):
        push_to_hub(copy, NAME)
    assert set(hub.files(NAME)) == {"a.txt"}


# Refusals of the hub


def test_only_a_token_that_may_write_is_let_in(hub, copy, monkeypatch):
    """Catches a traceback, and a token that is shown or not used."""
    hub.writer, hub.reader = WRITER, READER
    with pytest.raises(HubError, match=r"refuses access \(status 401\).*no token was sent"):
        push_to_hub(copy, NAME)
    with pytest.raises(HubError, match=r"\(status 403\); set HF_TOKEN to one that may write") as e:
        push_to_hub(copy, NAME, token=READER)
    assert READER not in str(e.value)
    assert hub.repositories == {}
    monkeypatch.setenv("HF_TOKEN", WRITER)
    push_to_hub(copy, NAME)
    assert MANIFEST in hub.files(NAME)


@pytest.mark.parametrize("name", ["a/b/c", "some body/x", "user/-x", "user/x..y"])
def test_a_name_that_is_none_is_a_sentence(hub, copy, name):
    """Catches the library's own error for a name with a blank or a third part."""
    with pytest.raises(HubError, match="no name of a repository; expected like user/model"):
        push_to_hub(copy, name)


def test_a_line_that_breaks_now_and_then_is_mended(hub, copy):
    """Catches a push that gives up at the first broken line."""
    hub.cuts = 2
    push_to_hub(copy, NAME)
    assert hub.files(NAME) == contents(copy)
    assert sum(request.startswith("PUT") for request in hub.requests) == 3


def test_a_line_that_stays_broken_is_a_sentence_and_nothing_is_there(hub, copy):
    """Catches a traceback, and a commit without its weights. The same call then sends the rest."""
    hub.cuts = 100
    with pytest.raises(HubError, match=r"cannot be reached.*the same call again sends what"):
        push_to_hub(copy, NAME)
    assert hub.repositories[NAME].commits == {}
    hub.cuts = 0
    push_to_hub(copy, NAME)
    assert hub.files(NAME) == contents(copy)


def test_a_hub_without_xet_is_told_with_the_variable(hub, copy, monkeypatch):
    """A mirror. Catches a push that fails without the one setting that mends it."""
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(HubError, match=r"does not take Xet transfers.*set HF_HUB_DISABLE_XET=1"):
        push_to_hub(copy, NAME)
    assert hub.repositories[NAME].commits == {}


# Fetching


def test_only_what_a_loader_reads_is_fetched(hub, copy):
    """Catches pickled weights and other formats, which may be as large as the model again."""
    extra = {"pytorch_model.bin": b"x", "onnx/model.onnx": b"x", "old/model.safetensors": b"x"}
    hub.holds(NAME, {**contents(copy), **extra, "picture.png": b"x"})
    folder = model_folder(NAME)
    assert set(contents(folder)) == set(contents(copy))
    fetched = {r.rsplit("/", 1)[1] for r in hub.requests if "/resolve/" in r}
    assert fetched == set(contents(copy))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"README.md": b"x", "model.safetensors": b"x"}, "has no config.json .at its top: README"),
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "its weights are pytorch_model.bin"),
        ({"config.json": b"{}"}, "it has no weights; only safetensors are read"),
    ],
)
def test_a_repository_that_is_no_model_is_told_before_it_is_fetched(hub, files, told):
    """Catches gigabytes that are fetched for nothing."""
    hub.holds(NAME, files)
    with pytest.raises(HubError, match=told):
        model_folder(NAME)
    assert not [request for request in hub.requests if "/resolve/" in request]


def test_what_is_not_to_be_had_is_a_sentence(hub, copy):
    """Catches tracebacks of the library for a missing, a private and a gated repository."""
    with pytest.raises(HubError, match=r"does not exist or is private.*HF_TOKEN.*no token"):
        model_folder(NAME)
    hub.holds(NAME, contents(copy), private=True)
    hub.writer = WRITER
    with pytest.raises(HubError, match=r"does not exist or is private"):
        model_folder(NAME)
    hub.holds(NAME, contents(copy))
    hub.gated = True
    with pytest.raises(HubError, match=r"access must be granted; ask for it on .*HF_TOKEN"):
        model_folder(NAME)
    with pytest.raises(HubError, match="no name of a repository"):
        model_folder("some body/x")


def test_a_hub_that_is_not_there_is_a_sentence_with_ways_on(hub, copy, monkeypatch):
    """Catches the library's page-long errors. What is in the cache is used, as it always is."""
    hub.holds(NAME, contents(copy))
    model_folder(NAME)
    hub.status = 503
    assert (model_folder(NAME) / MANIFEST).is_file()
    with pytest.raises(HubError, match="answers with status 503; try again later"):
        model_folder("somebody/else")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    close_session()
    assert (model_folder(NAME) / MANIFEST).is_file()
    with pytest.raises(HubError, match=r"cannot be reached") as error:
        model_folder("somebody/else")
    for word in ("HF_ENDPOINT", "HF_HUB_DISABLE_XET", "local folder", "127.0.0.1:9"):
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    with pytest.raises(HubError, match=r"HF_ENDPOINT is 'mirror\.example', expected an address"):
        model_folder("somebody/else")


def test_offline_only_the_cache_is_looked_at(hub, copy, monkeypatch):
    """Catches a request of a machine that must not make one, and a model that is in the cache and
    not found.
    """
    hub.holds(NAME, contents(copy))
    model_folder(NAME)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert (model_folder(NAME) / "model.safetensors").is_file()
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set.*local folder"):
        model_folder("somebody/else")
    assert hub.requests == []


def test_a_download_that_was_cut_off_is_no_model(hub, copy, monkeypatch):
    """Offline, with a cache that lacks a shard. Catches a loader that starts with half of the
    weights.
    """
    index = {"metadata": {}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    config = json.dumps({"model_type": "qwen2_5_vl"}).encode()
    files = {"config.json": config, "model.safetensors.index.json": json.dumps(index).encode()}
    hub.holds(NAME, {**files, "one.safetensors": b"x", "two.safetensors": b"y"})
    folder = model_folder(NAME)
    (folder / "two.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    with pytest.raises(HubError, match=f"model {NAME}: "):
        model_folder(NAME)


# The class's own


def test_the_class_pushes_weights_and_the_processor_makes_them_a_model(hub, published):
    """`LMME3DHF.push_to_hub` is the library's: it sends configuration and weights. Catches a head
    or a section of the configuration that it leaves out; without the processor a sentence tells
    what is missing.
    """
    model = LMME3DHF.from_pretrained(published)
    model.push_to_hub(NAME)
    assert hub.files(NAME)["model.safetensors"]
    assert model_hash(model_folder(NAME))
    with pytest.raises(ModelError, match="not a whole model folder"):
        Scorer.from_pretrained(NAME, device="cpu")
    load_processor(published).push_to_hub(NAME)
    assert score_of(NAME) == score_of(published)
