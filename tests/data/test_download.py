"""Downloading the release from a server on this machine that plays the hub."""

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmme3dhf.data.download import PARTS, RECORD, chosen_parts, download
from lmme3dhf.data.samples import DataError
from tests.data.fake_hub import COMMIT, REPO, FakeHub, serving

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "download_dataset.py"
MOS = json.dumps({"seed0000": {"quality": 51.2, "authenticity": 49.9}}).encode()
LABELS = json.dumps({"seed0000": ["Eye Distortions"]}).encode()


def archive(suffix: str, seed: int, around: str = "") -> bytes:
    """Three files of noise, about 30 kB together."""
    rng, buffer = random.Random(seed), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for i in range(3):
            made.writestr(f"{around}seed{i:04d}{suffix}", rng.randbytes(10_000))
    return buffer.getvalue()


def release() -> dict[str, bytes]:
    """The names of the hub, and one file that nobody asks for."""
    return {
        "README.md": b"a card",
        "video.zip": archive(".mp4", 1, "video/"),
        "image.zip": archive(".png", 2, "image/"),
        "saliency_map.zip": archive(".png", 3),
        "MOS.json": MOS,
        "distortion_label.json": LABELS,
        "extra.zip": b"not wanted",
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that this process and its children are sent to."""
    with serving(release()) as running:
        yield _sent_to(running, monkeypatch)


def _sent_to(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    from huggingface_hub.utils import close_session

    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    # No token of whoever runs the tests, and no connection of an earlier test.
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", os.devnull)
    close_session()
    return hub


class Told(list):
    """What the user was told, line by line."""

    def about(self, piece: str) -> list[str]:
        """Those with a piece in them."""
        return [sentence for sentence in self if piece in sentence]


def fetch(target: Path, parts=None, **settings) -> Told:
    """`download` without pauses; what was said."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        download(target, parts, wait_s=0, **settings)
    return Told(told.getvalue().splitlines())


def unzipped(data: bytes) -> dict[str, bytes]:
    """File name without folders -> content."""
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        return {name.split("/")[-1]: made.read(name) for name in made.namelist()}


def content_of(folder: Path) -> dict[str, bytes]:
    """File name -> content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def script(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """The script in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, SCRIPT, *words],
        env={**os.environ, "HF_TOKEN_PATH": os.devnull, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


# Names


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (None, list(PARTS)),
        ("image video_RGB saliency_map", ["image", "video_RGB", "saliency_map"]),
        (["image video_RGB saliency_map"], ["image", "video_RGB", "saliency_map"]),
        (["video", "saliency"], ["video_RGB", "saliency_map"]),
        ("MOS.json, distortion", ["MOS", "distortion_label"]),
        ("video.zip,Video_rgb.ZIP", ["video_RGB"]),
        ("all", list(PARTS)),
        (["MOS", "all"], list(PARTS)),
    ],
)
def test_parts_in_any_spelling(words, parts):
    """The released README's quoted words, and the hub's names. Catches one word with blanks that is
    taken for one part.
    """
    assert chosen_parts(words) == parts


@pytest.mark.parametrize("words", ["images", "image,fixations", "", [], [" "]])
def test_unknown_parts_are_told(words):
    """Catches a misspelt part that is left out without a word, and an empty download."""
    with pytest.raises(DataError, match="image, video_RGB, saliency_map, MOS, distortion_label"):
        chosen_parts(words)


# What arrives


def test_the_release_arrives_in_our_layout(hub, tmp_path):
    """All parts under the names of `datasets/README.md`, and nothing else: no archive, no partial
    file, no card. Catches the released script's filter, which let other files through.
    """
    told = fetch(tmp_path / "new" / "data")
    data = tmp_path / "new" / "data"
    assert content_of(data / "video_RGB") == unzipped(hub.files["video.zip"])
    assert content_of(data / "image") == unzipped(hub.files["image.zip"])
    assert content_of(data / "saliency_map") == unzipped(hub.files["saliency_map.zip"])
    assert (data / "MOS.json").read_bytes() == MOS
    assert (data / "distortion_label.json").read_bytes() == LABELS
    assert {p.name for p in data.iterdir() if not p.name.startswith(".")} == {
        *("video_RGB", "image", "saliency_map", "MOS.json", "distortion_label.json", RECORD)
    }
    assert not (data / ".downloads").exists()
    assert not {r[1] for r in hub.requests} & {"README.md", "extra.zip"}
    assert json.loads((data / RECORD).read_text())["parts"]["video_RGB"] == {
        "repo_id": REPO,
        "file": "video.zip",
        "hash": hashlib.sha256(hub.files["video.zip"]).hexdigest(),
        "commit": COMMIT,
        "files": {f"seed000{i}.mp4": 10_000 for i in range(3)},
    }
    assert told.about(f"video_RGB: 3 files in {data / 'video_RGB'}")
    assert told.about("disk space: up to ")


def test_the_names_of_the_released_readme_are_taken_too(hub, tmp_path):
    """video_RGB.zip where video.zip is not; with both, one is fetched."""
    hub.files["video_RGB.zip"] = hub.files["video.zip"]
    fetch(tmp_path / "both", "video")
    assert [r[1] for r in hub.requests if r[4]] == ["video.zip"]
    del hub.files["video.zip"]
    fetch(tmp_path / "one", "video_RGB")
    assert content_of(tmp_path / "one" / "video_RGB") == unzipped(hub.files["video_RGB.zip"])


def test_only_what_is_asked_for_is_fetched(hub, tmp_path):
    """Catches 2 GB of pictures for somebody who wants the scores."""
    fetch(tmp_path, ["MOS"])
    assert [r[1] for r in hub.requests if r[4]] == ["MOS.json"]
    assert not (tmp_path / "image").exists()


def test_a_second_run_fetches_and_unpacks_nothing(hub, tmp_path):
    """One question to the hub, no content, no file touched. Catches an archive that is fetched
    again because it was removed after unpacking.
    """
    fetch(tmp_path)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    hub.requests.clear()
    told = fetch(tmp_path)
    assert [r[0] for r in hub.requests] == ["api"]
    assert len(told.about("  is there")) == len(PARTS)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == times
    assert told.about("everything is there already")


@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_a_lost_or_cut_file_is_mended(damage, hub, tmp_path):
    """A clip that vanished, or was cut, after the download: only that archive comes again. Catches
    a record that is believed without a look.
    """
    fetch(tmp_path)
    clip = tmp_path / "video_RGB" / "seed0001.mp4"
    clip.unlink()
    if damage == "cut":
        clip.write_bytes(b"cut")
    hub.requests.clear()
    fetch(tmp_path)
    assert [r[1] for r in hub.requests if r[4]] == ["video.zip"]
    assert content_of(tmp_path / "video_RGB") == unzipped(hub.files["video.zip"])


def test_a_damaged_record_costs_a_transfer_only(hub, tmp_path):
    """Catches a crash on, and a blind belief in, half a record."""
    fetch(tmp_path, "image")
    for damage in ("{", '{"parts": {"image": {"hash": 1, "files": {}}}}', "[]", '{"parts": 3}'):
        (tmp_path / RECORD).write_text(damage)
        hub.requests.clear()
        told = fetch(tmp_path, "image")
        assert told.about("not a record of downloads")
        assert [r[1] for r in hub.requests if r[4]] == ["image.zip"]
    assert json.loads((tmp_path / RECORD).read_text())["parts"]["image"]["repo_id"] == REPO


def test_a_new_version_replaces_our_own_files_only(hub, tmp_path):
    """What we downloaded is brought up to date; a label file and a picture from elsewhere stop the
    download. Catches a synthetic data set that is overwritten by the release.
    """
    fetch(tmp_path / "ours", ["MOS", "image"])
    hub.files["MOS.json"] = b'{"seed0000": {"quality": 1.0, "authenticity": 2.0}}'
    hub.files["image.zip"] = archive(".png", 7)
    fetch(tmp_path / "ours", ["MOS", "image"])
    assert (tmp_path / "ours" / "MOS.json").read_bytes() == hub.files["MOS.json"]
    assert content_of(tmp_path / "ours" / "image") == unzipped(hub.files["image.zip"])

    theirs = tmp_path / "theirs"
    (theirs / "image").mkdir(parents=True)
    (theirs / "MOS.json").write_bytes(b"{}")
    (theirs / "image" / "seed0001.png").write_bytes(b"mine")
    hub.requests.clear()
    with pytest.raises(DataError, match=r"MOS\.json is there and is not the hub's"):
        fetch(theirs, ["image", "MOS"])
    assert [r[0] for r in hub.requests] == ["api"]
    with pytest.raises(DataError, match=r"1 files differ .*seed0001\.png"):
        fetch(theirs, ["image"])
    assert content_of(theirs / "image") == {"seed0001.png": b"mine"}
    assert (theirs / "MOS.json").read_bytes() == b"{}"
    # The way on that the sentence names, without a second transfer.
    (theirs / "image" / "seed0001.png").unlink()
    hub.requests.clear()
    fetch(theirs, ["image"])
    assert [r[0] for r in hub.requests] == ["api"]
    assert len(content_of(theirs / "image")) == 3


def test_archives_are_kept_on_request_and_used_where_they_lie(hub, tmp_path):
    """An archive from a browser or an earlier run is not fetched again, nor removed; one with other
    content is not taken for the hub's.
    """
    fetch(tmp_path / "kept", "image", keep_archives=True)
    assert (tmp_path / "kept" / "image.zip").read_bytes() == hub.files["image.zip"]
    hub.requests.clear()
    shutil.rmtree(tmp_path / "kept" / "image")
    fetch(tmp_path / "kept", "image")
    assert not [r for r in hub.requests if r[4]]
    assert (tmp_path / "kept" / "image.zip").exists()
    assert len(content_of(tmp_path / "kept" / "image")) == 3

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "image.zip").write_bytes(bytes(len(hub.files["image.zip"])))
    told = fetch(tmp_path / "other", "image")
    assert told.about("not the hub's file")
    assert content_of(tmp_path / "other" / "image") == unzipped(hub.files["image.zip"])


def test_an_evil_archive_on_the_hub_is_not_unpacked(hub, tmp_path):
    """With the right hash. The parts before it stay, and nothing of it is written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("video/seed0000.mp4", b"x")
        made.writestr("../evil.mp4", b"x")
    hub.files["video.zip"] = buffer.getvalue()
    with pytest.raises(DataError, match="leads out of its folder"):
        fetch(tmp_path / "data")
    assert len(content_of(tmp_path / "data" / "image")) == 3
    assert not (tmp_path / "data" / "video_RGB").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


# What goes wrong on the way


@pytest.mark.parametrize("reset", [False, True])
def test_a_broken_line_goes_on_where_it_was(reset, hub, tmp_path):
    """Closed and reset connections; each byte is sent about once. huggingface_hub 2.4 itself gives
    up at a reset and throws the part away.
    """
    size = len(hub.files["video.zip"])
    hub.cuts["video.zip"], hub.reset = [10_000, 9_000], reset
    told = fetch(tmp_path, "video")
    assert content_of(tmp_path / "video_RGB") == unzipped(hub.files["video.zip"])
    assert len(told.about("broke off at")) == 2
    ranges = [r for r, _ in hub.transfers("video.zip")]
    assert ranges[0] is None
    assert len(ranges) == 3
    if not reset:  # what was on its way is lost in a reset
        assert ranges == [None, "bytes=10000-", "bytes=19000-"]
        assert sum(sent for _, sent in hub.transfers("video.zip")) == size


def test_a_later_run_goes_on_where_the_last_one_ended(hub, tmp_path):
    """The number of tries is bounded and told, and another process goes on from the part on disk.
    Catches a transfer that starts anew after each kill and so never ends on a bad line.
    """
    size = len(hub.files["image.zip"])
    hub.cuts["image.zip"] = [5_000, 0, 1_000, 0]
    with pytest.raises(DataError, match=r"broke off at 6000 of .* 3 times in a row"):
        fetch(tmp_path, "image", tries=3)
    assert not (tmp_path / "image").exists()
    hub.cuts.clear()
    hub.requests.clear()
    done = script("--target_dir", str(tmp_path), "--dataset", "image")
    assert done.returncode == 0, done.stderr
    assert "6.0 kB here" in done.stdout
    assert hub.transfers("image.zip") == [("bytes=6000-", size - 6000)]
    assert content_of(tmp_path / "image") == unzipped(hub.files["image.zip"])


def test_a_line_that_breaks_often_but_brings_much_is_not_given_up(hub, tmp_path):
    """Five breaks with 1 MiB each, two tries allowed in a row. Catches a bound that no large file
    passes on a slow line.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("seed0000.mp4", random.Random(0).randbytes(6 << 20))
    hub.files["video.zip"] = buffer.getvalue()
    hub.cuts["video.zip"] = [1 << 20] * 5
    told = fetch(tmp_path, "video", tries=2)
    assert len(told.about("going on")) == 5
    assert len(hub.transfers("video.zip")) == 6


def test_a_server_without_ranges_is_read_from_the_start(hub, tmp_path):
    """It answers a range with the whole file. Catches a whole file that is appended to its part."""
    hub.cuts["video.zip"], hub.ignores_ranges = [10_000], True
    fetch(tmp_path, "video")
    assert [r for r, _ in hub.transfers("video.zip")] == [None, "bytes=10000-"]
    assert content_of(tmp_path / "video_RGB") == unzipped(hub.files["video.zip"])


def test_wrong_content_is_fetched_once_more_and_then_told(hub, tmp_path):
    """The right size and other bytes, for a large file (SHA-256) and a small one (git hash): size
    alone is what huggingface_hub compares. The sentence has both hashes and a way on.
    """
    for name, part in (("image.zip", "image"), ("MOS.json", "MOS")):
        content = hub.files[name]
        hub.sent[name] = content[:-7] + bytes(7)
        with pytest.raises(DataError, match=rf"{name}: .*HF_ENDPOINT") as error:
            fetch(tmp_path, part)
        assert len(hub.transfers(name)) == 2
        listed = {s["rfilename"]: s for s in json.loads(hub.listing())["siblings"]}[name]
        assert listed.get("lfs", {"sha256": listed["blobId"]})["sha256"] in str(error.value)
        assert not (tmp_path / name).exists()
        assert not (tmp_path / "image").exists()
        assert not list((tmp_path / ".downloads").iterdir())
    hub.sent.clear()
    fetch(tmp_path, ["image", "MOS"])
    assert (tmp_path / "MOS.json").read_bytes() == MOS


def test_a_spoilt_part_on_disk_is_found_by_the_hash(hub, tmp_path):
    """A part whose bytes changed: the whole is wrong, removed, and right the second time."""
    hub.cuts["image.zip"] = [20_000, 0]
    with pytest.raises(DataError, match="broke off"):
        fetch(tmp_path, "image", tries=1)
    (part,) = (tmp_path / ".downloads").glob("*.part")
    part.write_bytes(bytes(20_000))
    hub.cuts.clear()
    told = fetch(tmp_path, "image")
    assert told.about("what came is not the hub's file")
    assert content_of(tmp_path / "image") == unzipped(hub.files["image.zip"])


def test_too_much_content_is_not_stored_for_ever(hub, tmp_path):
    """A server that sends more than it lists: reading stops soon after the listed size. Catches a
    disk that is filled by it.
    """
    hub.sent["MOS.json"] = MOS + bytes(8 << 20)
    with pytest.raises(DataError, match=r"MOS\.json.*the second time, too") as error:
        fetch(tmp_path, "MOS")
    stored = int(re.search(r"sent (\d+) bytes", str(error.value))[1])
    assert len(MOS) < stored < 1 << 20
    assert not (tmp_path / "MOS.json").exists()


def test_parts_of_an_older_version_are_removed(hub, tmp_path):
    """The hub got another archive while half of the old one was here. Catches two versions in one
    file, and parts that stay on the disk for ever.
    """
    hub.cuts["image.zip"] = [20_000, 0]
    with pytest.raises(DataError, match="broke off"):
        fetch(tmp_path, "image", tries=1)
    hub.files["image.zip"] = archive(".png", 8)
    hub.cuts["image.zip"] = [10_000, 0]
    with pytest.raises(DataError, match="broke off at 10000"):
        fetch(tmp_path, "image", tries=1)
    assert [p.stat().st_size for p in (tmp_path / ".downloads").iterdir()] == [10_000]


def test_a_missing_file_is_told_with_what_is_there(hub, tmp_path):
    """A part that the hub does not list, and one that it lists and does not have."""
    hub.gone.add("saliency_map.zip")
    with pytest.raises(DataError, match=r"saliency_map\.zip: .* lists the file but does not have"):
        fetch(tmp_path, "saliency")
    del hub.files["image.zip"]
    with pytest.raises(DataError, match=r"has no image\.zip for image; it holds 'MOS\.json'"):
        fetch(tmp_path, "image")


def test_label_files_may_be_missing_unless_asked_for(hub, tmp_path):
    """The released README names three parts only. Catches a default that fails for want of a label
    file, and a silent gap.
    """
    del hub.files["distortion_label.json"]
    told = fetch(tmp_path)
    assert told.about("distortion_label  not on the hub")
    with pytest.raises(DataError, match=r"no distortion_label\.json"):
        fetch(tmp_path, "distortion_label")


@pytest.mark.parametrize(
    ("refusal", "piece"),
    [
        ((403, "GatedRepo"), "access must be granted; ask for it on .*HF_TOKEN"),
        ((404, "RepoNotFound"), "does not exist or is private; .*no token was sent"),
        ((403, ""), r"refuses access \(status 403\); check HF_TOKEN"),
        ((503, ""), "answers with status 503; try again later"),
    ],
)
def test_refused_access_is_a_sentence(refusal, piece, hub, tmp_path):
    """Each with its own way on, and no folder is made."""
    hub.refusal = refusal
    with pytest.raises(DataError, match=piece):
        fetch(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_wrong_revision_repository_or_answer_is_a_sentence(hub, tmp_path, monkeypatch):
    """Also an endpoint that is no hub, none at all, and one that does not listen."""
    with pytest.raises(DataError, match="has no revision 'v9'"):
        fetch(tmp_path, revision="v9")
    with pytest.raises(DataError, match="somebody/else does not exist or is private"):
        fetch(tmp_path, repo_id="somebody/else")
    with pytest.raises(DataError, match="does not answer about a/b/c as a hub does"):
        fetch(tmp_path, repo_id="a/b/c")
    hub.listing = lambda: b"<html>a login page</html>"
    with pytest.raises(DataError, match=r"as a hub does .*check HF_ENDPOINT"):
        fetch(tmp_path)
    hub.refusal = (404, "")
    with pytest.raises(DataError, match=r"as a hub does .*404.*check HF_ENDPOINT"):
        fetch(tmp_path)
    for endpoint in ("hub.example", "http://hub.example:port", "http://"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(DataError, match=f"HF_ENDPOINT is '{endpoint}'"):
            fetch(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"cannot be reached .*set HF_ENDPOINT to a mirror"):
        fetch(tmp_path)
    monkeypatch.setenv("NO_PROXY", "localhost,[::1]:x,foo:bar")  # says no address
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:port")
    with pytest.raises(DataError, match=r"https_proxy is 'http://proxy\.example:port'"):
        fetch(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_gated_data_set_is_told_at_its_first_file(hub, tmp_path):
    """The hub lists its files to everybody. Catches tries again and again, and the wrong advice."""
    hub.gated = True
    with pytest.raises(DataError, match=r"image\.zip: access must be granted; ask for it on"):
        fetch(tmp_path, "image")
    assert not (tmp_path / "image").exists()


def test_files_without_hashes_are_not_trusted(hub, tmp_path):
    """A mirror that leaves them out. Catches content that is accepted without a comparison."""
    sibling = {"rfilename": "MOS.json", "size": len(MOS)}
    answer = json.dumps({"id": REPO, "sha": COMMIT, "siblings": [sibling]}).encode()
    hub.listing = lambda: answer
    with pytest.raises(DataError, match=r"no hash of MOS\.json"):
        fetch(tmp_path, "MOS")


def test_the_token_goes_to_the_hub_and_nowhere_else(tmp_path, monkeypatch):
    """HF_TOKEN is read at the call and sent to the hub; the host that large files come from must
    not see it. A closed data set without and with the wrong token is a sentence.
    """
    with serving(release(), with_storage=True) as hub:
        _sent_to(hub, monkeypatch)
        hub.token = "hf_right"
        with pytest.raises(DataError, match=r"does not exist or is private.*no token was sent"):
            fetch(tmp_path, "image")
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        with pytest.raises(DataError, match=r"does not exist or is private.*a token was sent"):
            fetch(tmp_path, "image")
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        hub.requests.clear()
        hub.cuts["image.zip"] = [10_000]
        fetch(tmp_path, "image")
        kinds = [(kind, token) for kind, _, _, token, _ in hub.requests]
        assert kinds == [
            ("api", "Bearer hf_right"),
            ("file", "Bearer hf_right"),
            ("storage", None),
            ("file", "Bearer hf_right"),
            ("storage", None),
        ]
        assert hub.transfers("image.zip")[1][0] == "bytes=10000-"


def test_disk_space_is_compared_before_anything_is_fetched(hub, tmp_path, monkeypatch):
    """One byte less than the need, by hand: archives leave when they are unpacked, so the most is
    needed during the last of three of equal size: 1.2 + 1.2 + 1 + 1.2 archives. With kept archives
    two more.
    """
    for name, suffix in (("image", ".png"), ("video", ".mp4"), ("saliency_map", ".png")):
        hub.files[f"{name}.zip"] = archive(suffix, 5)
    size = len(hub.files["video.zip"])
    for keep, need in ((False, 3 * int(1.2 * size) + size), (True, 3 * int(1.2 * size) + 3 * size)):
        monkeypatch.setattr("shutil.disk_usage", lambda p, n=need: SimpleNamespace(free=n - 1))
        with pytest.raises(DataError, match=rf"about {need} bytes are needed and {need - 1} are"):
            fetch(tmp_path / "data", "image video saliency", keep_archives=keep)
        assert not [r for r in hub.requests if r[4]]
        assert not (tmp_path / "data").exists()
        monkeypatch.setattr("shutil.disk_usage", lambda p, n=need: SimpleNamespace(free=n))
        fetch(tmp_path / "data", "image video saliency", keep_archives=keep, dry_run=True)
    assert not (tmp_path / "data").exists()


def test_the_end_is_estimated(hub, tmp_path, monkeypatch):
    """A clock that goes 11 s at each look: one of three equal files unpacked in 11 s leaves 22 s,
    two in 22 s leave 11 s. Catches hours without a word.
    """
    clock = iter(range(0, 10**6, 11))
    fake = SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda s: None)
    monkeypatch.setattr("lmme3dhf.data.hub.time", fake)
    monkeypatch.setattr("lmme3dhf.progress.time", fake)
    told = fetch(tmp_path, "image")
    assert re.fullmatch(r"image\.zip: [0-9.]+ kB of 30\.4 kB, [0-9]+ s left", told[3])
    assert told.about("unpacking")[0].endswith(": 1 of 3, 22 s left")
    assert told.about("unpacking")[1].endswith(": 2 of 3, 11 s left")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_disk_that_fills_up_on_the_way_is_told(hub, tmp_path):
    """The part is on a device that is always full. Catches a traceback, or "No space left" without
    a place and a way on.
    """
    hub.cuts["image.zip"] = [10_000]
    with pytest.raises(DataError, match="broke off"):
        fetch(tmp_path, "image", tries=1)
    (part,) = (tmp_path / ".downloads").iterdir()
    part.unlink()
    part.symlink_to("/dev/full")
    with pytest.raises(DataError, match=rf"{tmp_path}: the disk .* is full; make room"):
        fetch(tmp_path, "image")
    assert not (tmp_path / "image").exists()


def test_two_downloads_into_one_folder_are_told(hub, tmp_path):
    """Catches two processes that append to one part."""
    from filelock import FileLock

    with (
        FileLock(tmp_path / ".download.lock"),
        pytest.raises(DataError, match="another download into this folder"),
    ):
        fetch(tmp_path)
    fetch(tmp_path, "MOS")


def test_a_file_in_place_of_the_folder_is_told(hub, tmp_path):
    """Catches a traceback for a typing mistake."""
    (tmp_path / "Gen3DHF").write_bytes(b"")
    with pytest.raises(DataError, match="is a file, expected the folder"):
        fetch(tmp_path / "Gen3DHF")
    (tmp_path / "image").write_bytes(b"")
    with pytest.raises(DataError, match="image is a file, expected a folder"):
        fetch(tmp_path, "image")
    assert not [r for r in hub.requests if r[4]]


# The script


def test_the_script_runs_before_torch_is_installed(hub, tmp_path):
    """The README's words in a fresh interpreter in which importing anything heavy fails, from
    another folder. HF_ENDPOINT and HF_TOKEN come from the environment.
    """
    hub.token = "hf_secret"
    code = (
        "import runpy, sys\n"
        "sys.argv.pop(0)\n"
        "for name in ('torch', 'torchvision', 'transformers', 'numpy', 'scipy', 'PIL', 'av',\n"
        "             'jsonargparse', 'matplotlib', 'datasets', 'peft', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    words = ["--target_dir", "./data", "--dataset", "image video_RGB saliency_map"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT), *words],
        env={**os.environ, "HF_TOKEN": "hf_secret", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "data").iterdir() if p.is_dir()) == [
        *("image", "saliency_map", "video_RGB")
    ]
    assert not (tmp_path / "data" / "MOS.json").exists()
    assert "hf_secret" not in done.stdout + done.stderr


def test_the_script_tells_which_library_is_missing(tmp_path):
    """Catches a traceback for somebody who has Python and nothing else."""
    code = (
        "import runpy, sys\n"
        "sys.modules['huggingface_hub'] = None\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("needs huggingface_hub: pip install huggingface_hub")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("door", "told"),
    [
        ([SCRIPT], "download_dataset.py: stopped; the same command goes on\n"),
        (
            ["-m", "lmme3dhf.cli", "data", "download"],
            "lmme3dhf data download: stopped; the same command goes on\n",
        ),
    ],
)
def test_ctrl_c_is_a_sentence_and_the_part_stays(hub, tmp_path, door, told):
    """Pressed while the server is silent after 10,000 bytes. Catches a traceback, and a part that
    is thrown away.
    """
    hub.stalls["image.zip"] = 10_000
    command = [sys.executable, *door, "--target_dir", tmp_path, "--dataset", "image"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if any(p.stat().st_size == 10_000 for p in tmp_path.glob(".downloads/*.part")):
                break
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        _, error = run.communicate(timeout=30)
    assert run.returncode == 130
    assert error == told
    hub.stalls.clear()
    hub.requests.clear()
    fetch(tmp_path, "image")
    assert hub.transfers("image.zip")[0][0] == "bytes=10000-"


def test_the_script_prints_a_sentence_and_exits_with_1(hub, tmp_path):
    """Wrong words, offline mode, and a folder that cannot be made: no traceback."""
    target = ["--target_dir", str(tmp_path / "data")]
    (tmp_path / "file").write_bytes(b"")
    for words, environment, piece in (
        ([*target, "--dataset", "pictures"], {}, "not 'pictures'"),
        (target, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        (["--target_dir", str(tmp_path / "file" / "data")], {}, "Not a directory"),
    ):
        done = script(*words, **environment)
        assert done.returncode == 1
        assert piece in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
