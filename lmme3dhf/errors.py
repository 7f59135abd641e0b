"""The common ancestor of every error that a user can mend."""


class UserError(Exception):
    """What, where, what was expected and how to go on, in one sentence; shown without traceback."""
