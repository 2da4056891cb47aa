"""The one error a user's mistake becomes: a single line that names what is wrong and the mend."""


class InputError(Exception):
    """A mistake in what the user gave: file, field, option or environment.

    The command line prints the message as one line and exits with 2; no traceback.
    Write it as "what is wrong (which file or field): what to do about it".
    """
