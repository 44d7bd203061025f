"""What the project's errors have in common: each is one line."""


class OneLineError(Exception):
    """An error that stays one line, whatever stands in the paths and values that it names."""

    def __init__(self, line: str) -> None:
        super().__init__(" ".join(line.split()))


def reason(error: Exception) -> str:
    """Another's error in a line: an operating system's without number and path."""
    text = getattr(error, "strerror", None) or str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]
