"""Errors of this project; each is also the builtin a caller would expect."""


class CerealsError(Exception):
    """Base of every error that `cereals` raises on purpose; its text ends with the remedy."""


class SettingsError(CerealsError, ValueError):
    """A campaign file, or a setting in it, is not usable."""


class DataError(CerealsError, ValueError):
    """A data set's file is missing, broken, or does not match its neighbours."""


class ProductError(CerealsError, RuntimeError):
    """A stage's product on disk is missing, damaged, or made from something else."""


class StorageError(CerealsError, OSError):
    """A disk is full, or a file cannot be read or written."""


class ServerError(CerealsError, ConnectionError):
    """The Prefect server does not answer."""


class LockedError(CerealsError, BlockingIOError):
    """Another process is writing this campaign."""


class WorkersError(CerealsError, RuntimeError):
    """The Dask workers that stages run on are missing or lost."""


class ResourcesError(CerealsError, MemoryError):
    """Memory or disk will not do for what was asked for."""


class ServicesError(CerealsError, RuntimeError):
    """The server or a worker does not start, or does not answer."""
