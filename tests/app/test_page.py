"""The page in a real browser: a server in a process of its own with a real model, driven by
headless Chromium. Skips without gradio, playwright or Chromium.
"""

import base64
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lmme3dhf.app.page import (
    AppError,
    example_clips,
    free_port,
    outcome,
    require_gradio,
    with_row,
)
from lmme3dhf.assessment import Assessment, Rating
from lmme3dhf.cli import main
from lmme3dhf.data.dialogue import with_tokens
from lmme3dhf.data.synthetic.render import write_clip
from lmme3dhf.models.card import METRIC, read_metric, scales
from lmme3dhf.models.configuration import SaliencyConfig
from lmme3dhf.scorer import Scorer
from lmme3dhf.scores import ScoreRow, read_scores
from lmme3dhf.vocabulary import LEVELS
from tests.conftest import DIMENSIONS, SHARED_DATA, random_frames
from tests.models.conftest import load_with_head

FRAMES = {"fps": None, "frames": 4, "min_pixels": 3136, "max_pixels": 12544}
MAX_SECONDS, MAX_UPLOAD_MB = 5, 2
PATIENCE_MS = 60_000  # nothing is waited for as long, unless it is broken


@pytest.fixture(scope="module")
def model(tiny_folder: Path, processor, tmp_path_factory) -> Path:
    """A folder of the tiny model as if all stages had been trained, with scales of its own."""
    made = load_with_head(tiny_folder)
    last = made.heads["score"].layers[-1]
    with torch.no_grad():  # within the scale
        last.weight *= 0.1
    aspects = with_tokens(made.metric.aspects, processor.tokenizer)
    edges = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
    aspects = {
        name: replace(aspect, scale=aspect.scale.replace(edges=edges))
        for name, aspect in aspects.items()
    }
    made.config.set_metric(made.metric.replace(frames=FRAMES, aspects=aspects))
    made.add_saliency_decoder(SaliencyConfig())
    folder = tmp_path_factory.mktemp("app") / "model"
    made.save_pretrained(folder)
    processor.save_pretrained(folder)
    metric = read_metric(folder)
    for scale in metric["dimensions"].values():
        # Evenly from 0 to 100: a score is its own percentile.
        scale["training"] = {
            "videos": 40,
            "mean": 50.0,
            "deviation": 29.0,
            "percentiles": [float(i) for i in range(101)],
        }
    (folder / METRIC).write_text(json.dumps(metric))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    """A good clip (a real one where they are), and what the page refuses."""
    folder = tmp_path_factory.mktemp("clips")
    real = SHARED_DATA / "clips" / "gghead_998_tile00.mp4"
    good = folder / "good <b>&.mp4"
    frames = list(random_frames(0, 12, 84, 84).permute(0, 2, 3, 1).numpy())
    if real.exists():
        shutil.copy(real, good)
    else:
        write_clip(good, frames, fps=4)
    long = folder / "long.mp4"
    write_clip(long, frames, fps=2)  # 6 s
    text = folder / "text.mp4"
    text.write_text("this is no video")
    large = folder / "large.mp4"
    large.write_bytes(b"\0" * (MAX_UPLOAD_MB * 2**20 + 1))
    return {"good": good, "long": long, "text": text, "large": large}


@dataclass
class Served:
    """A running server: its process, its address, where it keeps uploads, what it has said."""

    process: subprocess.Popen
    url: str
    uploads: Path
    said: list[str]


@pytest.fixture(scope="module")
def served(model: Path, clips, tmp_path_factory) -> Iterator[Served]:
    """The command itself on a free port, with variables that would open it if it listened."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed")
    folder = tmp_path_factory.mktemp("uploads")
    examples = tmp_path_factory.mktemp("examples")
    shutil.copy(clips["good"], examples / "${7*7}{{7*7}}<img src=x onerror=alert(1)>.mp4")
    command = [sys.executable, "-m", "lmme3dhf.cli", "app", "--model", str(model), "--port", "0"]
    command += ["--max_seconds", str(MAX_SECONDS), "--max_upload_mb", str(MAX_UPLOAD_MB)]
    command += ["--device", "cpu", "--examples", str(examples)]
    hostile = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_ALLOWED_PATHS": "/", "GRADIO_SHARE": "True"}
    # An address where nobody answers: a server that called out would fail, or be seen to wait.
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, **hostile, **proxies, "TMPDIR": str(folder)}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("NO_PROXY", None)
    environment.pop("no_proxy", None)
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if found := re.match(r"(http://127\.0\.0\.1:\d+)\b", line):
                break
        else:
            pytest.fail("".join(said))
        yield Served(process=process, url=found[1], uploads=folder, said=said)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, served: Served):
    """The page, opened; at the end, nothing was asked of any other address and nothing failed."""
    opened = browser.new_page(viewport={"width": 1000, "height": 900})
    opened.set_default_timeout(PATIENCE_MS)
    asked, faults = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    opened.goto(served.url)
    opened.wait_for_selector("#upload input[type=file]", state="attached")
    yield opened
    opened.close()
    assert len(asked) > 10
    outside = [u for u in asked if not u.startswith((f"{served.url}/", "data:", "blob:"))]
    assert not outside
    assert not faults


def drop(page, clip: Path) -> None:
    """Gives the page a file, as a click on the field does."""
    page.set_input_files("#upload input[type=file]", str(clip))


def test_a_clip_is_scored_and_bad_ones_are_refused(page, served, model, clips, tmp_path):
    """One visit: a clip, a text that is called a video, a clip that is too long, the table and its
    CSV. The numbers are those of the scorer on the same file. Catches a page that shows another
    dimension's score, loses a row, keeps an upload, or answers a bad file with a traceback.
    """
    drop(page, clips["good"])
    page.wait_for_selector("#result article")
    expected = Scorer.from_pretrained(model, device="cpu").score(clips["good"])
    for dimension in DIMENSIONS:
        card = page.locator(f"[data-dimension={dimension}]")
        rating = getattr(expected, dimension)
        score = float(card.locator(".score").inner_text())
        assert score == pytest.approx(rating.score, abs=0.051)
        assert card.locator(".level").inner_text() == rating.level
        band = LEVELS[min(max(int(rating.score // 20), 0), 4)]
        assert card.locator(".band.here").inner_text() == band
        told = re.search(r"Higher than (\d+) % of the 40", card.locator(".standing").inner_text())
        assert int(told[1]) == pytest.approx(rating.score, abs=0.51)
    named = page.locator(".distortions strong").inner_text()
    assert tuple(named.split("; ")) == expected.distortions
    heading = page.locator("#result h2").inner_text()
    assert heading.endswith(".mp4")
    assert "<" not in heading

    # The slider fades the map in the browser.
    views = page.locator(".saliency .views")
    slider = page.locator(".saliency input[type=range]")
    slider.fill("0")
    without = views.screenshot()
    slider.fill("100")
    full = views.screenshot()
    assert without != full
    slider.fill("0")
    assert views.screenshot() == without

    shot = page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert len(shot) > 20_000

    drop(page, clips["text"])
    page.wait_for_selector("#result .refusal[data-reason=not_a_video]")
    sentence = page.locator("#result .refusal").inner_text()
    assert "text.mp4 is no video that FFmpeg can open" in sentence
    assert str(served.uploads) not in sentence

    drop(page, clips["long"])
    page.wait_for_selector("#result .refusal[data-reason=too_large]")
    assert "lasts 6.0 s" in page.locator("#result .refusal").inner_text()

    page.wait_for_selector("#session tbody tr:nth-child(3)")
    rows = page.locator("#session tbody tr").all_inner_texts()
    assert len(rows) == 3
    assert f"{expected.quality.score:.1f} ({expected.quality.level})" in rows[0]
    assert "not a video" in rows[1]
    with page.expect_download() as download:
        page.get_by_text("Download as CSV").click()
    table = tmp_path / "scores.csv"
    download.value.save_as(table)
    scored, *failed = read_scores(table)
    assert scored.ratings["quality"].score == pytest.approx(expected.quality.score, abs=1e-3)
    assert scored.distortions == expected.distortions
    assert [row.reason for row in failed] == ["not_a_video", "too_large"]

    kept = [path for path in served.uploads.rglob("*") if path.is_file() and path.stat().st_size]
    assert not kept


def test_a_file_over_the_limit_is_not_taken(page, clips, served):
    """By the browser's part, with a sentence, and by the server's own. Catches a limit that only a
    well-behaved browser keeps.
    """
    drop(page, clips["large"])
    page.get_by_text(re.compile("exceed the maximum allowed size")).first.wait_for()
    assert not page.locator("#result .refusal, #result article").count()
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    body += clips["large"].read_bytes() + b"\r\n--x--\r\n"
    status, _ = asked(served, "/gradio_api/upload", body, "multipart/form-data; boundary=x")
    assert status == 413


def test_an_example_is_scored_and_its_name_stays_text(page):
    """A name full of markup and of templates, on an example, which stays where it is. Catches names
    that the browser runs, and examples that are removed like uploads.
    """
    for _ in range(2):
        page.locator("#example input").click()
        page.get_by_role("option").first.click()
        page.wait_for_selector("#result article")
        name = "${7*7}{{7*7}}<img src=x onerror=alert(1)>.mp4"
        assert page.locator("#result h2").inner_text() == name
        assert page.locator("#session td.file").all_inner_texts() == [name]
        page.reload()
        page.wait_for_selector("#example input")


def asked(served: Served, path: str, body: bytes | None = None, kind: str = "", **headers):
    """Status and text of what the server answers, without a browser."""
    if body is not None:
        headers["Content-Type"] = kind
    request = urllib.request.Request(served.url + path, data=body, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_no_other_file_and_no_address_can_be_named(served, clips, tmp_path):
    """Requests that the page never makes: a file of this machine to read, one to score, and an
    address to fetch (there, a server counts the visitors). Catches a path or a link that gets
    through to the scorer.
    """
    status, text = asked(served, f"/gradio_api/file={clips['text']}")
    assert status in (403, 404), text
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0)
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/a.mp4"
        refused = {str(clips["good"]): '"success":false', address: "not an uploaded file"}
        for number, (path, sentence) in enumerate(refused.items()):
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            session = f"outsider{number}"
            call = {"data": [file, "", None], "fn_index": 0, "session_hash": session}
            body = json.dumps(call).encode()
            asked(served, "/gradio_api/queue/join", body, "application/json")
            _, text = asked(served, f"/gradio_api/queue/data?session_hash={session}")
            assert sentence in text
            assert "article" not in text
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    assert clips["good"].exists()


def test_the_server_answers_under_its_own_address_alone(served):
    """Catches a page that other machines reach, by this machine's name or by a name that somebody
    gave to its address.
    """
    port = int(served.url.rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp")
    if listening.exists():
        lines = [line.split() for line in listening.read_text().splitlines()[1:]]
        own = {line[1] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}
        assert own == {f"0100007F:{port:04X}"}
    status, _ = asked(served, "/", Host="elsewhere.example")
    assert status == 400
    status, text = asked(served, "/config")
    assert status == 200
    assert json.loads(text)["analytics_enabled"] is False


def test_ctrl_c_ends_the_server_and_leaves_nothing(browser, served, clips):
    """Last of the server; in the middle of a clip, with the page open. Catches a traceback, a crash
    of the thread that computes, processes that outlive their parent, and uploads that stay.
    """
    opened = browser.new_page()
    opened.goto(served.url)
    opened.wait_for_selector("#upload input[type=file]", state="attached")
    drop(opened, clips["good"])
    opened.get_by_text("processing").first.wait_for()
    os.kill(served.process.pid, signal.SIGINT)
    # gradio reports requests that it refuses in full; that was before.
    _, last_words = served.process.stdout.read().split("stopping ...\n")
    assert served.process.wait(timeout=30) in (0, 130)
    assert last_words == "stopped\n"
    opened.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(served.process.pid, 0)
    assert not [path for path in served.uploads.iterdir() if path.name.startswith("lmme3dhf_app")]


# Without a browser


def test_what_cannot_be_served_is_refused_before_a_model_is_loaded(tmp_path, capsys, monkeypatch):
    """A taken port, limits of nothing, no examples, no gradio. Catches minutes of loading before a
    word that could have been said at once.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        base = ["app", "--model", str(tmp_path / "none"), "--port"]
        if importlib.util.find_spec("gradio"):
            assert main([*base, port]) == 1
            assert f"port {port} cannot be used" in capsys.readouterr().err
            for limit in ("0", "-1", ".inf"):
                assert main([*base, "0", "--max_seconds", limit]) == 1
                assert "finite limits above 0" in capsys.readouterr().err
    assert 0 < free_port(0) < 65536
    with pytest.raises(AppError, match="port 70000 cannot be used"):
        free_port(70000)
    with pytest.raises(AppError, match="no such folder"):
        example_clips(tmp_path / "none")
    with pytest.raises(AppError, match="an empty folder"):
        example_clips(tmp_path)
    assert example_clips(None) == {}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AppError, match=r"pip install 'lmme3dhf\[demo\]'"):
        require_gradio()


def test_one_row_a_file_and_numbers_for_namesakes():
    """The same file again replaces its row; another of that name gets a number. Catches a table
    that `read_scores` refuses, and a clip that is lost behind its namesake.
    """

    def row(content: str | None, reason: str = "too_short") -> ScoreRow:
        content = content and content * 64
        return ScoreRow(file="a.mp4", status="failed", reason=reason, content=content)

    rows = ()
    for new in (row("1"), row("2"), row("1", "empty"), row("3"), row("2", "missing")):
        rows = with_row(rows, new)
    assert [(r.file, r.content[0], r.reason) for r in rows] == [
        ("a.mp4", "1", "empty"),
        ("a (3).mp4", "3", "too_short"),
        ("a (2).mp4", "2", "missing"),
    ]


def test_a_clip_is_shown_at_the_views_that_were_scored(tmp_path):
    """With its notes. Catches frames of the usual places below maps of others, and a row that does
    not say where they were taken.
    """
    clip = tmp_path / "clip.mp4"
    write_clip(clip, [np.full((84, 84, 3), 25 * at, np.uint8) for at in range(9)], fps=4)
    rated = Rating(score=50.0, level="fair", level_probabilities=dict.fromkeys(LEVELS, 0.2))
    assessed = Assessment(
        path=clip,
        ratings={"quality": rated, "authenticity": rated},
        distortions=(),
        saliency=None,
        decoder="pyav2",
        distortion_log_odds={},
        notes=("a note",),
    )
    views = (1.0, 0.0, 0.5)
    scorer = SimpleNamespace(score=lambda path: assessed, scales=scales({}), views=views)
    page, row = outcome(scorer, clip, max_seconds=MAX_SECONDS)
    assert (row.views, row.notes) == (views, ("a note",))
    assert "Note: a note." in page
    assert "views at 1, 0, 0.5 of it" in page
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(image)))).mean() for image in found]
    assert shown == pytest.approx([200, 0, 100], abs=3)


def test_a_clip_that_changes_while_it_is_scored_has_its_own_hash(tmp_path, monkeypatch, clips):
    """An example that somebody replaces after it was scored, before its hash was taken. Catches the
    hash of one file beside the scores of another; the second scoring is of the new file.
    """
    clip, new = tmp_path / "clip.mp4", tmp_path / "new.mp4"
    shutil.copy(clips["good"], clip)
    write_clip(new, list(random_frames(1, 12, 84, 84).permute(0, 2, 3, 1).numpy()), fps=4)
    wanted = hashlib.sha256(new.read_bytes()).hexdigest()

    class Replacing:
        """Gives a file's size as its score, and replaces the file afterwards, once."""

        def score(self, path: Path) -> Assessment:
            """See `lmme3dhf.scorer.Scorer`."""
            rated = Rating(
                score=path.stat().st_size / 1e6,
                level="fair",
                level_probabilities=dict.fromkeys(LEVELS, 0.2),
            )
            if new.exists():
                os.replace(new, path)
            return Assessment(
                path=path,
                ratings={"quality": rated, "authenticity": rated},
                distortions=(),
                saliency=None,
                decoder="pyav2",
                distortion_log_odds={},
            )

        scales = scales({})
        views = (0.25, 0.5, 0.75)

    size = new.stat().st_size
    _, row = outcome(Replacing(), clip, max_seconds=MAX_SECONDS)
    assert (row.content, row.ratings["quality"].score) == (wanted, round(size / 1e6, 3))
