"""Object stores behind fsspec: whose errors are whose."""

from __future__ import annotations

_DRIVERS = frozenset({"adlfs", "aiobotocore", "azure", "botocore", "gcsfs", "google", "s3fs"})


def is_of_driver(error: Exception) -> bool:
    """Whether a store's driver raised an error of its own kind: no credentials, a name that cannot be, no endpoint."""
    return type(error).__module__.partition(".")[0] in _DRIVERS
