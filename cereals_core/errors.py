"""Errors of this project; each is also the builtin a caller would expect."""


class CerealsError(Exception):
    """Base of every error that `cereals` raises on purpose; its text ends with the remedy."""


class SettingsError(CerealsError, ValueError):
    """An unusable campaign file, or an unusable setting in it."""


class DataError(CerealsError, ValueError):
    """A file of a data set that is missing, broken, or does not match its neighbours."""


class ProductError(CerealsError, RuntimeError):
    """A stage's product on disk that is missing, damaged, or made from something else."""


class StorageError(CerealsError, OSError):
    """A full disk, or a file that cannot be read or written."""


class ServerError(CerealsError, ConnectionError):
    """A Prefect server that does not answer."""


class LockedError(CerealsError, BlockingIOError):
    """A campaign that another process is writing."""


class WorkersError(CerealsError, RuntimeError):
    """Dask workers that stages run on, missing or lost."""


class ResourcesError(CerealsError, MemoryError):
    """Too little memory or disk for what was asked for."""


class ServicesError(CerealsError, RuntimeError):
    """A server or a worker that does not start, or does not answer."""
