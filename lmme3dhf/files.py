"""Files that are whole or not there: atomic writing, hashes, and manifests that say what a finished
folder holds.
"""

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal.

    Raises:
        FileNotFoundError: No such file.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a file as a whole: a kill leaves the old file or the new one, never half of one. Makes
    missing folders.

    Args:
        path: The file.
        content: Text (written as UTF-8 with \\n line ends) or bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON as a whole (see `replace_file`).

    NaN, which JSON does not know, becomes null: an undefined figure stays undefined, never 0.
    """
    replace_file(path, json.dumps(without_nan(content), indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file as a whole (see `replace_file`), with \\n line ends; NaN and None become
    empty cells.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    # The only value that is unlike itself is NaN.
    writer.writerows(["" if cell is None or cell != cell else cell for cell in row] for row in rows)
    replace_file(path, stream.getvalue())


def without_nan(content: Any) -> Any:
    """The same nested content with None in place of NaN."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def write_manifest(folder: Path) -> None:
    """Writes sizes and hashes of all files of a folder, last, as the sign that it is whole."""
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and p.name != MANIFEST and not p.name.startswith(".")
    )
    listed = {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": file_hash(p)}
        for p in files
    }
    write_json(folder / MANIFEST, {"files": listed})


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that should have a manifest; None when every file is as it was
    written.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        return "it has no manifest: it was not finished"
    try:
        listed = json.loads(manifest.read_bytes())["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in listed.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read ({type(error).__name__}: {error})"
    if not expected:
        return "its manifest lists no files"
    for name, (size, sha256) in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, expected {size}"
        if file_hash(path) != sha256:
            return f"{name} is not what was written (its hash differs)"
    return None
