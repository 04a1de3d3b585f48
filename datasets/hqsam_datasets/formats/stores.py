"""Object stores behind fsspec: whose errors are whose, and addresses that name no place."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

_DRIVERS = frozenset(
    {
        "adlfs",
        "aiobotocore",
        "aiohttp",
        "azure",
        "botocore",
        "gcsfs",
        "google",
        "s3fs",
        "tarfile",
        "zipfile",
    }
)

_WITHOUT_USER = frozenset({"s3", "s3a", "gs", "gcs"})
"""Schemes whose addresses hold no user: their drivers would take `me:word@bucket` for the bucket, and quote it."""

_WITH_HOST = {
    "s3": "bucket",
    "s3a": "bucket",
    "gs": "bucket",
    "gcs": "bucket",
    "az": "container",
    "abfs": "container",
    "http": "host",
    "https": "host",
    "gdrive": "file",
}
"""What stands between `://` and the next slash, by the scheme."""


def is_of_driver(error: Exception) -> bool:
    """Return whether the error is a store driver's own: no credentials, an invalid name, no endpoint."""
    return type(error).__module__.partition(".")[0] in _DRIVERS


class AddressError(ValueError):
    """An address that cannot be used whatever the store says; `cure` says what to write instead."""

    def __init__(
        self, problem: str, cure: str = "write it like s3://BUCKET/FOLDER or https://HOST/FILE"
    ) -> None:
        super().__init__(problem)
        self.cure = cure


def _has_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port >= 0
    except (
        ValueError
    ):  # its text quotes what stands there, which may be the beginning of a password
        return False


def check_address(url: str) -> None:
    """Refuse an address that names no place, such as `s3://` without a bucket, or a password where none can be.

    Raises:
        AddressError: with the address and what is wrong with it.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") else parts.netloc
    except ValueError as error:  # half an IPv6 address
        raise AddressError(f"the address {url!r} cannot be read: {error}") from None
    if parts.scheme in ("http", "https") and not _has_port(parts):
        cure = "a port is a number up to 65535; in a password write / as %2F, ? as %3F and # as %23"
        raise AddressError(f"the port of the address {url!r} is not a number", cure)
    if parts.scheme in _WITHOUT_USER and "@" in parts.netloc:
        problem = (
            f"the address {url!r} holds a user or password, which {parts.scheme}:// has no place "
            f"for"
        )
        raise AddressError(problem, "put credentials into the environment (AWS_ACCESS_KEY_ID, ...)")
    what = _WITH_HOST.get(parts.scheme)
    if what is not None and not host:
        raise AddressError(f"the address {url!r} names no {what}")
