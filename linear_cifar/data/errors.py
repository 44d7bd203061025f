"""What is raised where data cannot be used."""


class DataError(Exception):
    """Data that is missing, damaged or not of the form it should have; one line says which."""


class UnavailableError(DataError):
    """Data that is neither in the data folder nor to be downloaded."""


def reason(error: Exception) -> str:
    """An error in a line: an operating system's without number and path."""
    text = getattr(error, "strerror", None) or str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]
