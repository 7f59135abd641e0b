"""The common ancestor of every error that a user can mend, and how errors are shown."""

import errno

# Error number -> what to do. The operating system's own sentence stands alone for any other.
_ADVICE = {
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST), "check that path"
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        "check its permissions and its owner, or give a folder of your own",
    ),
    errno.EROFS: "the file system is read-only; give a folder that can be written",
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT),
        "make room there; what is finished stays, and the same command can be repeated",
    ),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE),
        "raise the limit on open files (ulimit -n), or lower --workers",
    ),
    errno.EIO: "the disk or the connection to it fails; check it (dmesg), or use another",
    errno.ENAMETOOLONG: "shorten the name of the file or of its folders",
    errno.ESTALE: "the network folder was lost; mount it again, then repeat the command",
    errno.ENOMEM: "free memory, or lower --workers",
}


class UserError(Exception):
    """What, where, what was expected and how to go on, in one sentence; shown without traceback."""


def format_error(error: UserError | OSError) -> str:
    """The sentence that a command prints before it ends."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    where = "" if error.filename is None else f"{error.filename}: "
    advice = _ADVICE.get(error.errno)
    return f"{where}{error.strerror}" + (f"; {advice}" if advice else "")
