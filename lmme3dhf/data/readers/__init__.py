"""The one door to lists of samples: a reader for each form that a list may have.

A further form is a function and its entry in `READERS`; a module of one's own adds it with
`lmme3dhf --plugin MODULE`. An entry of the settings' lists names its reader, "table:ratings.csv";
without a name it is a list of Gen3DHF's form.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from lmme3dhf.aspects import GEN3DHF, Aspects
from lmme3dhf.data.gen3dhf import read_list
from lmme3dhf.data.readers.table import read_table
from lmme3dhf.data.samples import DataError, Sample

# (path, root=, aspects=, labels=, allow_outside=) -> its samples, and errors in place of rows that
# cannot be used. `root` is the folder of the clips, None where the list says it; `labels` is
# "require" or "ignore", which gives questions alone; unless `allow_outside`, a clip outside of the
# folder is an error.
Reader = Callable[..., Iterable[Sample | DataError]]


def _gen3dhf(path: Path, *, root: Path | None, **options) -> list[Sample]:
    return read_list(path, root, **options)


READERS: dict[str, Reader] = {"gen3dhf": _gen3dhf, "table": read_table}


def split_entry(entry: str | Path) -> tuple[str, str]:
    """Reader and path of an entry such as "table:ratings.csv".

    Raises:
        DataError: There is no reader of that name.
    """
    reader, colon, path = str(entry).partition(":")
    if reader in READERS and colon:
        return reader, path
    # A letter is a drive of Windows.
    if colon and reader.isidentifier() and len(reader) > 1 and not Path(entry).exists():
        raise DataError(
            f"{entry}: {reader!r} is none of the readers {', '.join(READERS)}; "
            "--plugin MODULE adds others"
        )
    return "gen3dhf", str(entry)


def list_samples(
    entries: Iterable[str | Path],
    *,
    folder: Path = Path(),
    root: Path | None = None,
    aspects: Aspects = GEN3DHF,
    labels: str = "require",
    allow_outside: bool = False,
) -> list[Sample]:
    """The samples of lists, in their order. Each knows of its clip what any of them says: scores,
    deviations and levels of all aspects.

    Args:
        entries: Paths, with or without the name of their reader.
        folder: Where relative paths begin.
        root: Folder of the clips; None where the lists say it.
        aspects: What may be asked for.
        labels: "require", or "ignore" for questions alone.
        allow_outside: Take clips wherever they are.

    Raises:
        DataError: With file and place: what cannot be used; or an unknown reader.
        FileNotFoundError: No such list.
    """
    options = {"root": root, "aspects": aspects, "labels": labels, "allow_outside": allow_outside}
    samples: list[Sample] = []
    for entry in entries:
        reader, path = split_entry(entry)
        for sample in READERS[reader](folder / path, **options):
            if isinstance(sample, DataError):
                raise sample
            samples.append(sample)
    known: dict[Path, dict[str, dict]] = {}
    for sample in samples:
        of_clip = known.setdefault(sample.path, {"values": {}, "stds": {}, "levels": {}})
        for name, labels_of_clip in of_clip.items():
            labels_of_clip |= getattr(sample, name)
    # What a list itself says of the clip comes first.
    return [
        replace(s, **{name: {**more, **getattr(s, name)} for name, more in known[s.path].items()})
        for s in samples
    ]
