"""The page to try: gradio's blocks, what happens to a clip that is dropped on it, and the server.

The server answers this machine alone, fetches nothing, and reads no file but the clips that are
dropped on the page (and the examples that it was started with). An uploaded clip is removed as soon
as it was scored, and everything else when the server stops. gradio is imported inside, by `serve`.
"""

import dataclasses
import importlib.util
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

import lmme3dhf
from lmme3dhf.app import drawing
from lmme3dhf.data.container import VideoError, VideoHeader, probe, view_pictures
from lmme3dhf.errors import UserError, format_error
from lmme3dhf.files import ChangedError, file_state, read_unchanged
from lmme3dhf.scores import FAILED, ScoreRow, fields_of, row_of, scores_csv

if TYPE_CHECKING:
    from lmme3dhf.scorer import Scorer

ADDRESS = "127.0.0.1"
LONGEST_QUESTION = 500  # characters
_LEFTOVERS_S = 3600  # uploads that nobody had scored


class AppError(UserError):
    """A page that cannot be served; the message says why."""


def require_gradio() -> None:
    """Refuses where the page's library is missing, before a model is loaded.

    Raises:
        AppError: gradio is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise AppError(
            "the page to try needs gradio, which is not installed; pip install 'lmme3dhf[demo]'"
        )


def free_port(port: int) -> int:
    """The port itself when nothing listens there; for 0 one that is free.

    Raises:
        AppError: It is taken, may not be used, or there is no such port.
    """
    try:
        with socket.socket() as probed:
            probed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probed.bind((ADDRESS, port))
            return probed.getsockname()[1]
    except (OSError, OverflowError) as error:
        raise AppError(
            f"port {port} cannot be used ({error}); end what listens there, or give another --port "
            "(0 takes a free one)"
        ) from error


def example_clips(folder: Path | None) -> dict[str, Path]:
    """Name -> path of the clips that the page offers.

    Raises:
        AppError: The folder is none, or has no files.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise AppError(f"{folder}: no such folder; --examples takes a folder of clips")
    found = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    if not found:
        raise AppError(f"{folder}: an empty folder; --examples takes a folder of clips")
    return {path.name: path for path in found}


# One clip


def checked(path: Path, max_seconds: float) -> VideoHeader:
    """The clip's header, when the clip is not too long for the page.

    Raises:
        VideoError: As `data.container.probe`, and too_large.
    """
    header = probe(path)
    seconds = header.frames / header.fps
    if seconds > max_seconds:
        raise VideoError(
            "too_large",
            f"{path} lasts {seconds:.1f} s, this page takes clips of at most {max_seconds:g} s; "
            "cut it, score it with lmme3dhf score, or start the page with --max_seconds",
        )
    return header


def scored(
    scorer: "Scorer", path: Path, *, max_seconds: float, question: str = ""
) -> tuple[Markup, ScoreRow]:
    """Scores a clip: what the page shows, and the row of its table.

    Args:
        scorer: With scores.
        path: The clip; the page shows its name alone.
        max_seconds: The longest clip.
        question: In the user's words; empty for none.

    Raises:
        VideoError: The file gives no clip, or a longer one.
        UserError: The model cannot answer.
    """
    scales = scorer.scales
    yaws = [view["yaw_deg"] for view in scales["views"]]

    def read() -> tuple[Any, ...]:
        header = checked(path, max_seconds)
        assessment = scorer.score(path)
        answer = scorer.describe(path, question[:LONGEST_QUESTION]) if question.strip() else None
        pictures = view_pictures(path, scorer.views)
        return header, assessment, answer, pictures

    start = time.monotonic()
    (header, assessment, answer, pictures), state = read_unchanged(path, file_state(path), read)
    seconds = time.monotonic() - start
    row = row_of(
        assessment,
        file=path.name,
        content=None if state is None else state.content,
        version=lmme3dhf.__version__,
        seconds=seconds,
        views=scorer.views,
    )
    cards = [
        drawing.distortion_card(assessment.distortions, assessment.distortion_probabilities),
        drawing.view_card(pictures, yaws, assessment.saliency),
    ]
    if answer is not None:
        cards.insert(0, drawing.answer_card(question, answer))
    ratings = [
        drawing.rating_card(name, rating, scales["dimensions"][name].get("training"))
        for name, rating in assessment.ratings.items()
    ]
    facts = (
        f"{header.width} x {header.height} pixels, {header.frames} pictures, "
        f"{header.frames / header.fps:.1f} s, {header.codec}; decoded by {assessment.decoder}, "
        f"scored in {seconds:.1f} s"
    )
    if row.views:
        facts += f"; views at {', '.join(f'{place:g}' for place in row.views)} of it"
    return drawing.clip_page(path.name, facts, cards, ratings, assessment.notes), row


def with_row(rows: Sequence[ScoreRow], row: ScoreRow) -> tuple[ScoreRow, ...]:
    """The rows and a new one at the end. A file that was dropped before keeps one row; another file
    of the same name gets a number.
    """
    known = {r.file: r.content for r in rows}
    path, name, number = Path(row.file), row.file, 1
    while known.get(name, row.content) != row.content:
        number += 1
        name = f"{path.stem} ({number}){path.suffix}"
    return (*(r for r in rows if r.file != name), dataclasses.replace(row, file=name))


def outcome(
    scorer: "Scorer", path: Path, *, max_seconds: float, question: str = ""
) -> tuple[Markup, ScoreRow]:
    """As `scored`, with the sentence in place of an error."""
    try:
        return scored(scorer, path, max_seconds=max_seconds, question=question)
    except (UserError, OSError) as error:
        reason = error.reason if isinstance(error, VideoError) else "failed"
        # Where the server keeps its uploads is nobody's business.
        message = format_error(error).replace(str(path), path.name)
        # Of a file that changes, nobody knows which bytes failed.
        state = None if isinstance(error, ChangedError) else file_state(path)
    content = None if state is None else state.content
    row = ScoreRow(file=path.name, status=FAILED, reason=reason, message=message, content=content)
    return drawing.refusal(path.name, reason, message), row


# The page


async def _no_download(path: Any) -> str:
    """What a file of a request becomes: itself, when it is a file that was uploaded (which gradio
    has checked). gradio would download an address.
    """
    import gradio

    if not Path(path).is_file():
        raise gradio.Error("not an uploaded file; drop a clip on the page", print_exception=False)
    return str(path)


def blocks(
    scorer: "Scorer",
    *,
    model_name: str,
    max_upload_mb: float,
    max_seconds: float,
    examples: Mapping[str, Path],
    busy: threading.Lock,
) -> Any:
    """The page as gradio's blocks, not yet served.

    Args:
        scorer: With scores.
        model_name: As the page calls it.
        max_upload_mb: The largest upload, for the hint; the server itself is started with it.
        max_seconds: The longest clip.
        examples: Name -> path of clips to choose from.
        busy: Held while a clip is scored.
    """
    import gradio

    aspects = list(scorer.aspects)
    fields = fields_of({name: aspect.scale for name, aspect in scorer.aspects.items()})

    def show(path: Path, question: str, rows: tuple[ScoreRow, ...]) -> tuple[Any, ...]:
        with busy:
            page, row = outcome(scorer, path, max_seconds=max_seconds, question=question or "")
        rows = with_row(rows, row)
        return page, drawing.session_table(rows, aspects, scores_csv(rows, fields)), rows

    def dropped(upload: str, question: str, rows: tuple[ScoreRow, ...]) -> tuple[Any, ...]:
        path = Path(upload)
        try:
            # None empties the field for the next clip.
            return (*show(path, question, rows), None)
        finally:
            path.unlink(missing_ok=True)

    def chosen(name: str, question: str, rows: tuple[ScoreRow, ...]) -> tuple[Any, ...]:
        return show(examples[name], question, rows)

    with gradio.Blocks(
        title="LMME3DHF", analytics_enabled=False, delete_cache=(_LEFTOVERS_S, _LEFTOVERS_S)
    ) as page:
        rows = gradio.State(())
        gradio.HTML(drawing.head(model_name, aspects, max_upload_mb, max_seconds))
        upload = gradio.File(
            label="Drop a clip here, or click to choose one", height=150, elem_id="upload"
        )
        upload.async_move_resource_to_block_cache = _no_download
        choice = None
        if examples:
            choice = gradio.Dropdown(
                list(examples), value=None, label="Or take an example", elem_id="example"
            )
        question = gradio.Textbox(
            label="Your own question on the next clip (optional)",
            placeholder="What is wrong with the eyes?",
            max_length=LONGEST_QUESTION,
            elem_id="question",
        )
        result = gradio.HTML(elem_id="result")
        table = gradio.HTML(elem_id="session")
        # One clip at a time, by whatever way it comes.
        how = {
            "api_visibility": "private",
            "concurrency_id": "scorer",
            "concurrency_limit": 1,
            "show_progress_on": result,
        }
        upload.upload(dropped, [upload, question, rows], [result, table, rows, upload], **how)
        if choice is not None:
            choice.input(chosen, [choice, question, rows], [result, table, rows], **how)
    return page


def serve(
    scorer: "Scorer",
    *,
    model_name: str,
    port: int,
    max_upload_mb: float = 200,
    max_seconds: float = 120,
    examples: Mapping[str, Path],
) -> None:
    """Serves the page until Ctrl-C (or SIGTERM).

    Args:
        scorer: With scores.
        model_name: As the page calls it.
        port: On this machine.
        max_upload_mb: The largest uploaded file, in 2^20 bytes.
        max_seconds: The longest clip.
        examples: Name -> path of clips to choose from.
    """
    # Variables of gradio could open folders, publish the page, or call home.
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), ADDRESS)))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    import gradio
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    busy = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="lmme3dhf_app_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = blocks(
            scorer,
            model_name=model_name,
            max_upload_mb=max_upload_mb,
            max_seconds=max_seconds,
            examples=examples,
            busy=busy,
        )
        try:
            page.launch(
                server_name=ADDRESS,
                server_port=port,
                share=False,
                max_file_size=int(max_upload_mb * 2**20),
                prevent_thread_lock=True,
                quiet=True,
                inbrowser=False,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                # Not under another name, which a page elsewhere could give to this address.
                app_kwargs={
                    "middleware": [
                        Middleware(TrustedHostMiddleware, allowed_hosts=[ADDRESS, "localhost"])
                    ]
                },
                # Fonts of the system: the others would be fetched.
                theme=gradio.themes.Default(
                    primary_hue="blue",
                    font=["system-ui", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"],
                    font_mono=["ui-monospace", "Consolas", "monospace"],
                ),
                css=drawing.STYLE,
            )
            print(f"http://{ADDRESS}:{port} (this machine only; stop it with Ctrl-C)", flush=True)
            while page.is_running:
                time.sleep(1)
        except KeyboardInterrupt:
            print("stopping ...", flush=True)
            page.close(verbose=False)  # waits a few seconds for pages that are open
            busy.acquire()  # to end in the middle of a clip would be a crash
            print("stopped")
        finally:
            page.close(verbose=False)
