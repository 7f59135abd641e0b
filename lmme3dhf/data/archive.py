"""Zip archives of the release, unpacked without being trusted: every member is looked at before
anything is written, and the folder gets whole files or none.

Python's zipfile keeps members inside the folder, but by renaming them: two members may become one
file, links become files, and nothing limits the size. What is odd is refused here, and told.
"""

import os
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from lmme3dhf.data.samples import DataError
from lmme3dhf.progress import with_progress

_BLOCK = 1 << 20
_SYSTEM_FILES = {".ds_store", "thumbs.db", "desktop.ini"}
_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
_ODD_NAMES = {
    r"[\x00-\x1f\x7f]": "has a control character in its name",
    r"\\": "has a backslash in its name",
    r":": "has a colon in its name, as drives do",
    r"^/": "has an absolute path",
    r"(^|/)\.\.(/|$)": "leads out of its folder",
    r"^$": "has no name",
}
_REFUSED = "no honest archive of the release has this, and nothing was unpacked"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold at most. The release has 2,000 clips of 4 s in 512x512 pixels, as
    many strips of 1536x512 (about 1 MB each), and as many maps.

    Attributes:
        members: Files and folders, those that are ignored included.
        depth: Folders around a file.
        member_bytes: One unpacked file.
        total_bytes: All unpacked files together.
        ratio: Unpacked over packed size, of the whole and of each member above 1 MiB. Clips and
            pictures are compressed already: theirs is close to 1.
    """

    members: int = 20_000
    depth: int = 8
    member_bytes: int = 512 << 20
    total_bytes: int = 100 << 30
    ratio: float = 100.0


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What an archive holds.

    Attributes:
        members: File name to write -> member of the archive.
        left_out: Names of members that are none of the wanted files.
        ignored: How many members are droppings of operating systems.
    """

    members: dict[str, zipfile.ZipInfo]
    left_out: tuple[str, ...]
    ignored: int

    @property
    def sizes(self) -> dict[str, int]:
        """File name -> bytes."""
        return {name: info.file_size for name, info in sorted(self.members.items())}


def _scan(archive: zipfile.ZipFile, wanted: re.Pattern[str], limits: Limits) -> Contents:
    """Looks at all members; nothing is written.

    Raises:
        DataError: A member that no honest archive of the release holds; see `_oddity`.
    """
    where = archive.filename
    infos = archive.infolist()
    if len(infos) > limits.members:
        raise DataError(f"{where}: {len(infos)} members, more than {limits.members}; {_REFUSED}")
    members: dict[str, zipfile.ZipInfo] = {}
    left_out, ignored = [], 0
    for info in infos:
        name = info.orig_filename  # not `filename`, which zipfile cuts at a NUL
        if odd := _oddity(info, limits):
            raise DataError(f"{where}: the member {name!r} {odd}; {_REFUSED}")
        parts = _plain(name).split("/")
        if info.is_dir():
            continue
        if "__macosx" in parts or parts[-1] in _SYSTEM_FILES or parts[-1].startswith("._"):
            ignored += 1
            continue
        match = wanted.fullmatch(parts[-1])
        if not match:
            left_out.append(name)
            continue
        to_write = match["stem"] + match["suffix"]
        if to_write in members:
            raise DataError(
                f"{where}: the members {members[to_write].orig_filename!r} and {name!r} would both "
                f"become {to_write}; {_REFUSED}"
            )
        members[to_write] = info
    _check_whole(archive, infos, limits)
    return Contents(members=members, left_out=tuple(left_out), ignored=ignored)


def extract(
    path: Path,
    folder: Path,
    wanted: re.Pattern[str],
    *,
    limits: Limits | None = None,
    replace: bool = False,
) -> Contents:
    """Unpacks the wanted files of an archive into one folder, flat. One process at a time.

    They are written beside the folder and moved in when all are whole, so a kill leaves no
    half-written file in it. Files that are there with the same content are left alone.

    Args:
        path: The archive.
        folder: Where to; made where missing.
        wanted: Matched against the whole last part of a member's path, in small letters, with the
            groups `stem` and `suffix` of which the name to write is made. Folders around the file
            do not matter.
        limits: See `Limits`; None for those of the release.
        replace: Files that are there with another content are replaced, not an error.

    Returns:
        What the archive holds. Its `sizes` are what the folder now has.

    Raises:
        DataError: Not a zip file, damaged, suspicious (see `_oddity`), without any wanted file,
            larger than the free disk space, or a file is there with another content. The folder is
            as it was before.
    """
    folder = Path(folder).resolve()
    try:
        with zipfile.ZipFile(path) as archive:
            contents = _scan(archive, wanted, limits or Limits())
            if not contents.members:
                raise DataError(
                    f"{path}: none of its members is a file such as {_example(wanted)}; it holds "
                    f"{listed(contents.left_out)}. Is this the right archive?"
                )
            todo = _not_there(path, contents.members, folder, replace)
            need, free = sum(info.file_size for info in todo.values()), free_bytes(folder)
            if need > free:
                raise DataError(
                    f"{folder}: {path.name} unpacks to {need} bytes, and {free} are free; make "
                    "room or choose another folder"
                )
            _unpack(archive, todo, folder)
            return contents
    except DataError:
        raise
    except _READ_ERRORS as error:
        raise DataError(
            f"{path}: cannot be unpacked ({type(error).__name__}: {error}); it is damaged, or no "
            "zip file. Nothing was unpacked; delete it and download it again"
        ) from error


def listed(names: tuple[str, ...] | list[str], most: int = 5) -> str:
    """The first few names, and how many more there are; "nothing" for none."""
    shown = ", ".join(repr(name) for name in names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{shown}{more}" or "nothing"


def free_bytes(folder: Path) -> int:
    """Free disk space where a folder is, or would be made."""
    folder = folder.resolve()
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free


def _plain(name: str) -> str:
    """A name as a file system may fold it: compatible characters and cases become one."""
    return unicodedata.normalize("NFKC", name).casefold()


def _oddity(info: zipfile.ZipInfo, limits: Limits) -> str | None:
    """What is wrong with one member; None for an honest one."""
    # As it is written, and as a file system may read it: a full-width ".." is "..", too.
    for name in (info.orig_filename, _plain(info.orig_filename)):
        for pattern, fault in _ODD_NAMES.items():
            if re.search(pattern, name):
                return fault
        if name.count("/") > limits.depth + info.is_dir():
            return f"lies more than {limits.depth} folders deep"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
        return "is a link" if kind == stat.S_IFLNK else "is no regular file"
    if info.flag_bits & 0x2041:  # encrypted, strongly encrypted, masked headers
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {info.compress_type}, not by deflate"
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        return f"is stored with two sizes, {info.file_size} and {info.compress_size} bytes"
    if info.file_size > limits.member_bytes:
        return f"has {info.file_size} bytes, more than {limits.member_bytes}"
    if info.file_size > max(_BLOCK, limits.ratio * info.compress_size):
        return f"unpacks from {info.compress_size} to {info.file_size} bytes"
    return None


def _check_whole(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], limits: Limits) -> None:
    total = sum(info.file_size for info in infos)
    packed = os.path.getsize(archive.filename)
    if total > limits.total_bytes or total > max(_BLOCK, limits.ratio * packed):
        raise DataError(
            f"{archive.filename}: {packed} bytes would unpack to {total} (at most "
            f"{limits.total_bytes}, and {limits.ratio:g} times the archive); {_REFUSED}"
        )
    # Bombs of the better kind let their members share bytes. 30 is the shortest local header.
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise DataError(
                f"{archive.filename}: the member {info.orig_filename!r} overlaps with another; "
                f"{_REFUSED}"
            )
        end = info.header_offset + 30 + info.compress_size


def _not_there(
    path: Path, members: dict[str, zipfile.ZipInfo], folder: Path, replace: bool
) -> dict[str, zipfile.ZipInfo]:
    """The members that the folder does not have yet."""
    todo, other = {}, []
    for name, info in members.items():
        file = folder / name
        if file.is_file() and file.stat().st_size == info.file_size and _crc(file) == info.CRC:
            continue
        if os.path.lexists(file):
            other.append(name)
        todo[name] = info
    if other and not replace:
        raise DataError(
            f"{folder}: {len(other)} files differ from those in {path.name}: {listed(other)}. They "
            "come from elsewhere and stay as they are; move them away, or choose another folder"
        )
    return todo


def _crc(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def _unpack(archive: zipfile.ZipFile, todo: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    # Beside the folder, so on the same disk: moving is renaming.
    beside = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)  # what a kill may have left
    beside.mkdir(parents=True)
    try:
        what = f"unpacking {Path(archive.filename).name}"
        for name, info in with_progress(todo.items(), what, len(todo)):
            with archive.open(info) as source, (beside / name).open("xb") as file:
                shutil.copyfileobj(source, file, _BLOCK)
                # zipfile stops at the size in the header and compares the CRC at the end only.
                if file.tell() != info.file_size:
                    raise zipfile.BadZipFile(
                        f"{name} has {file.tell()} bytes, its header says {info.file_size}"
                    )
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            for name in todo:
                os.replace(beside / name, folder / name)
        else:
            os.rename(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _example(wanted: re.Pattern[str]) -> str:
    """A name that fits, for a sentence."""
    names = [f"seed0001{suffix}" for suffix in (".mp4", ".png")]
    return next((name for name in names if wanted.fullmatch(name)), wanted.pattern)
