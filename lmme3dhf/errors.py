"""The common ancestor of every error that a user can mend, and how errors are told."""


class UserError(Exception):
    """What, where, what was expected and how to go on, in one sentence; shown without traceback."""


def told(error: UserError | OSError) -> str:
    """The sentence that a command prints before it ends."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; check that path"
    return str(error)
