"""Where a model folder comes from and goes to: a path, or a repository of the Hugging Face hub.

Weights are read from safetensors alone, so nothing else of a repository is fetched. Runs without
torch.
"""

import json
import os
import re
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,  # of the library's own client, whichever that is
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers

from lmme3dhf.errors import UserError, format_error
from lmme3dhf.files import MANIFEST, damage
from lmme3dhf.models.folder import (
    ADAPTER,
    CONFIGURATION,
    INDEX,
    WEIGHTS,
    check_folder,
    pickled_refusal,
    weight_files,
)

PROJECT = Path(__file__).resolve().parents[2]
# What a model folder may hold, at its top: the README too, for a manifest of ours lists it.
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.jinja", "README.md", "LICENSE*")
# Everything in subfolders but adapter/adapter_*: the hub's patterns know no other exception.
_BELOW = ("[!a]*/*", "*/[!a]*")
# What may be read through: not the vocabulary, whose words are nobody's.
_TEXTS = (".json", ".md", ".txt", ".jinja", ".yaml")
_VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt")
_PRIVATE = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|/(?:home|Users|root)/[\w.-]+|\b[A-Za-z]:\\+Users\\+[\w.-]+"
)
# Not in every release of the library.
_XetError = getattr(errors, "XetDownloadError", RuntimeError)
# What the library raises: also for answers that no hub gives, and for a disk that is full.
_ERRORS = (HTTPError, OSError, ValueError, KeyError, TypeError, RuntimeError, _XetError)


class HubError(UserError, RuntimeError):
    """A model that is not to be had, or cannot be published; the message says how to go on."""


def local_model(name: str | Path) -> Path | None:
    """The folder that a path names, from here or from the project's root; None for no folder."""
    folders = (Path(name).expanduser(), PROJECT / name)
    return next((folder for folder in folders if folder.is_dir()), None)


def model_folder(name: str | Path, revision: str | None = None) -> Path:
    """Folder of a model: a path (see `local_model`), or a hub id, which is fetched into the hub's
    cache where it is not there yet. It is looked at first (`folder.check_folder`).

    Environment: HF_ENDPOINT (a mirror), HF_HUB_OFFLINE (the cache alone), HF_TOKEN.

    Args:
        name: Folder, or an id such as Qwen/Qwen2.5-VL-7B-Instruct.
        revision: Branch, tag or commit on the hub; None for main.

    Raises:
        HubError: No such folder or repository, no access, no connection, or a repository that is
            no model folder with safetensors.
        ModelError: The folder could run code, or is of another architecture.
    """
    folder = local_model(name)
    if folder is None:
        folder = _fetched(str(name), revision)
    check_folder(folder)
    return folder


def _fetched(name: str, revision: str | None) -> Path:
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise HubError(
            f"model {name}: no such folder; give a folder with config.json, or a hub id such as "
            "Qwen/Qwen2.5-VL-7B-Instruct"
        )
    hub = _endpoint()
    try:
        _check_listing(name, revision, hub)
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                endpoint=hub,
                allow_patterns=list(_WANTED),
                ignore_patterns=list(_BELOW),
            )
        )
    except HubError:
        raise
    except _ERRORS as error:
        way_on = "or fetch it elsewhere and give the local folder"
        raise _refusal(f"model {name}", name, hub, error, way_on) from error
    expected = [CONFIGURATION, *(weight_files(folder) or [WEIGHTS])]
    lacking = [file for file in expected if not (folder / file).is_file()]
    if lacking:
        raise HubError(
            f"model {name}: {lacking[0]} is missing in the cache ({folder}); the download was cut "
            "off, run the same again with a connection to the hub"
        )
    return folder


def push_to_hub(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Publishes a merged model folder: what its manifest lists, and the manifest, as one commit.
    Weights of an earlier version that are not among them are removed there; other files stay.

    The class's own `LMME3DHF.push_to_hub` is the library's: it verifies nothing, makes a public
    repository unless it is told `private=True`, and sends configuration and weights alone. What it
    sends is a whole model once `load_processor(folder).push_to_hub` has sent the processor to the
    same repository.

    Args:
        folder: A merged folder, every file as it was written.
        repo_id: Repository, such as user/model; made where it does not exist.
        private: Only for those who are let in. A repository that exists and is public is then
            refused.
        revision: Branch, made where it does not exist; None for main.
        token: A token that may write; None for HF_TOKEN or the one that is logged in.

    Returns:
        The address of the model on the hub.

    Raises:
        HubError: The folder is damaged or tells somebody's home folder or token (with the place),
            or the hub refuses or cannot be reached.
    """
    folder = Path(folder)
    if wrong := damage(folder):
        raise HubError(f"{folder}: not fit to be published, {wrong}; merge the run again")
    names = [*json.loads((folder / MANIFEST).read_bytes())["files"], MANIFEST]
    if CONFIGURATION not in names:
        raise HubError(f"{folder}: no model folder (its manifest lists no {CONFIGURATION})")
    _check_private_matters(folder, names)
    hub = _endpoint()
    api = HfApi(endpoint=hub, token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and api.model_info(repo_id).private is False:
            raise HubError(
                f"{hub}/{repo_id} exists and is public; say private=False to publish there, or "
                "give another name"
            )
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            allow_patterns=names,
            delete_patterns=["*.safetensors", INDEX, f"{ADAPTER}/*"],
            commit_message="A model of lmme3dhf",
        )
    except HubError:
        raise
    except _ERRORS as error:
        way_on = "and the same call again sends what is missing"
        raise _refusal(f"push to {repo_id}", repo_id, hub, error, way_on, token) from error
    return f"{hub}/{repo_id}" + (f"/tree/{revision}" if revision else "")


def _check_private_matters(folder: Path, names: list[str]) -> None:
    """Refuses texts that hold a token of the hub or a path in somebody's home folder."""
    for name in names:
        if not name.endswith(_TEXTS) or name in _VOCABULARY:
            continue
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if found := _PRIVATE.search(line):
                what = "a token of the hub" if found[0].startswith("hf_") else "a home folder"
                shown = found[0][:6] + "..."
                raise HubError(
                    f"{folder / name}:{number}: holds {what} ({shown}), which is not published; "
                    "take it out of the run's settings and merge again"
                )


def _endpoint() -> str:
    """Address of the hub. The library reads it at its import; this is read at each call."""
    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", endpoint):
        raise HubError(
            f"HF_ENDPOINT is {endpoint!r}, expected an address such as https://huggingface.co"
        )
    return endpoint


def _check_listing(name: str, revision: str | None, hub: str) -> None:
    """Refuses a repository that is no model folder of ours before anything is fetched. Without a
    connection nothing is known; the cache decides then.
    """
    try:
        files = HfApi(endpoint=hub).list_repo_files(name, revision=revision)
    except (OfflineModeIsEnabled, HTTPError):
        return
    top = sorted(file for file in files if "/" not in file)
    if CONFIGURATION not in top:
        shown = ", ".join(top[:8]) or "nothing"
        raise HubError(
            f"model {name}: the repository has no {CONFIGURATION} (at its top: {shown}); give one "
            "that holds a Qwen2.5-VL or a model of this project"
        )
    if not any(file.endswith(".safetensors") for file in top):
        pickled = next((file for file in top if file.endswith((".bin", ".pt", ".pth"))), None)
        raise HubError(pickled_refusal(f"model {name}", pickled))


def _refusal(
    what: str, name: str, hub: str, error: Exception, way_on: str, token: str | None = None
) -> HubError:
    """One of the library's errors as a sentence with a way on."""
    sent = "authorization" in build_hf_headers(token=token)
    token = "a token was sent" if sent else "no token was sent"
    # What kept a file from being fetched or sent says more than that it was not.
    while isinstance(error, LocalEntryNotFoundError) or type(error) is RuntimeError:
        if not isinstance(error.__cause__, _ERRORS):
            break
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", 0)
    line = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    match error:
        case OfflineModeIsEnabled():
            why = (
                "HF_HUB_OFFLINE is set, and it is not (wholly) in the cache; unset HF_HUB_OFFLINE, "
                f"{way_on}"
            )
        case GatedRepoError():
            why = (
                f"access must be granted; ask for it on {hub}/{name} and set HF_TOKEN to a token "
                f"of that account ({token})"
            )
        case RevisionNotFoundError():
            why = f"{hub}/{name} has no such revision; leave it out for main"
        case RepositoryNotFoundError():
            why = (
                f"{hub}/{name} does not exist or is private, and there is no folder of that name "
                f"here; check the name, or set HF_TOKEN to a token that may read it ({token})"
            )
        case HFValidationError():
            why = f"no name of a repository; expected like user/model ({line})"
        case HTTPError() if status in (401, 403):
            may = "that may write" if what.startswith("push") else "that may read it"
            why = f"{hub} refuses access (status {status}); set HF_TOKEN to one {may} ({token})"
        case HTTPError() if status:
            why = f"{hub} answers with status {status}; try again later, {way_on}"
        case _ if "xet" in line.lower():
            why = f"{hub} does not take Xet transfers ({line}); set HF_HUB_DISABLE_XET=1, {way_on}"
        case HTTPError() | ConnectionError() | LocalEntryNotFoundError():
            why = (
                f"{hub} cannot be reached ({line}); check the connection, set HF_ENDPOINT to a "
                "mirror of the hub (with HF_HUB_DISABLE_XET=1, since large files pass a mirror by "
                f"otherwise), {way_on}"
            )
        case OSError() if error.errno:
            why = f"{format_error(error)}; HF_HOME says where models are kept"
        case _:
            why = (
                f"{hub} does not answer as a hub does ({line}); check HF_ENDPOINT, set "
                f"HF_HUB_DISABLE_XET=1, {way_on}"
            )
    return HubError(f"{what}: {why}")
