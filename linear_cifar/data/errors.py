"""What is raised where data cannot be used."""

from linear_cifar.errors import OneLineError


class DataError(OneLineError):
    """Data that is missing, damaged or not of the form it should have; one line says which."""


class UnavailableError(DataError):
    """Data that is neither in the data folder nor to be downloaded."""
