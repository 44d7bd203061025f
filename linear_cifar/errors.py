"""Errors for bad input: each is one line that says what is wrong and where."""


class InputError(ValueError):
    """A value that can't be used, with a message of one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class DataError(InputError):
    """Data that is missing, damaged or malformed."""


class UnavailableError(DataError):
    """Data that is neither in the data folder nor downloadable."""


def reason(error: Exception) -> str:
    """Another library's error in one line; an operating system's without its number and path."""
    text = getattr(error, "strerror", None) or str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]
