"""The one error that is a user's to mend."""


class ForestageError(Exception):
    """Bad input or an impossible request: one line naming the file, the field and the remedy.

    The command line prints it as ``forestage: error: …`` on stderr and exits with status 2. Anything else that
    escapes is a bug and keeps its traceback.
    """
