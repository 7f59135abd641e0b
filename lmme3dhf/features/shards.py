"""Shards: safetensors files with the tensors of several clips, whole or not there.

A tensor is named by its clip's key and its own name; the file's metadata holds a checksum of each.
The header of a safetensors file must account for every byte of it, so a shard that is cut is known
by its header, and one with a changed byte by its checksums.
"""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lmme3dhf.errors import UserError
from lmme3dhf.files import replace_file

SUFFIX = ".safetensors"
# A shard is written when it reaches either bound: few files, and little is lost by a kill. One is
# collected while another is written, some 256 MB together.
SHARD_BYTES, SHARD_CLIPS = 128 * 10**6, 256
_ASIDE = ".broken"

Tensors = dict[str, torch.Tensor]


class DamageError(UserError, RuntimeError):
    """A shard that is not what was written."""


def checksum(name: str, tensor: torch.Tensor) -> str:
    """SHA-256 over a tensor's name, type, shape and values."""
    digest = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_shard(folder: Path, clips: Mapping[str, Tensors]) -> Path:
    """Writes the tensors of some clips as one file: a kill leaves all of it or nothing.

    Args:
        folder: The store's.
        clips: Key of the clip -> its tensors, on the CPU.

    Returns:
        The file; its name follows from the keys.
    """
    tensors = {f"{key}.{name}": t.contiguous() for key, c in clips.items() for name, t in c.items()}
    sums = {name: checksum(name, tensor) for name, tensor in tensors.items()}
    stem = hashlib.sha256(" ".join(sorted(clips)).encode()).hexdigest()[:16]
    path = folder / f"{stem}{SUFFIX}"
    replace_file(path, save(tensors, metadata=sums))
    return path


class ShardWriter:
    """Collects clips and writes a shard whenever one is full, in a thread of its own, so that the
    computation goes on. At the end, also an early one, what has been collected is written.

    Args:
        folder: The store's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Tensors] = {}
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        with self._thread:
            self._write()
            self._wait()

    def add(self, key: str, tensors: Tensors) -> None:
        """Takes a clip's tensors; raises what went wrong in writing those before."""
        self._open[key] = tensors
        size = sum(map(size_of, self._open.values()))
        if len(self._open) >= SHARD_CLIPS or size >= SHARD_BYTES:
            self._write()

    def _write(self) -> None:
        self._wait()
        if self._open:
            self._writing = self._thread.submit(write_shard, self._folder, self._open)
            self._open = {}

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def size_of(tensors: Tensors) -> int:
    """Bytes of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


class Shard:
    """A shard, mapped into memory.

    Args:
        path: The file.

    Attributes:
        names: Key of each clip in it -> names of its tensors.

    Raises:
        DamageError: It is cut or its header is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: dict[str, list[str]] = {}
        try:
            self._file = safe_open(path, framework="pt")
            names, self._sums = self._file.keys(), self._file.metadata() or {}
        except SafetensorError as error:
            raise DamageError(f"{path}: its header does not fit the file ({error})") from error
        # A changed name would leave a clip without one of its tensors.
        if set(names) != set(self._sums):
            raise DamageError(f"{path}: its tensors are not those that its checksums name")
        for name in names:
            key, _, own = name.partition(".")
            self.names.setdefault(key, []).append(own)
        # Clips that were found whole, which are not summed up again.
        self._whole: set[str] = set()

    def read(self, key: str) -> Tensors:
        """The tensors of a clip, as views of the file; their checksums are looked at when a clip is
        read for the first time.

        Raises:
            DamageError: A byte of them is not what was written.
        """
        tensors = {name: self._file.get_tensor(f"{key}.{name}") for name in self.names[key]}
        if key not in self._whole:
            for name, tensor in tensors.items():
                full = f"{key}.{name}"
                if checksum(full, tensor) != self._sums.get(full):
                    raise DamageError(f"{self.path}: tensor {full} is not what was written")
            self._whole.add(key)
        return tensors


def put_aside(path: Path) -> Path:
    """Renames a damaged shard, so that nothing is read from it again; returns its new name."""
    aside = path.with_suffix(_ASIDE)
    # Another process may have found the damage, and put it aside, at the same time.
    with suppress(FileNotFoundError):
        os.replace(path, aside)
    return aside
