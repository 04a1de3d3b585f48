"""Single downloads from real servers that cut, lie, refuse and change."""

from __future__ import annotations

import io
import json
import random
import shutil
import ssl
import subprocess
import tarfile
from pathlib import Path

import pytest

from hqsam_base.errors import UserError
from hqsam_base.progress import with_rate
from hqsam_datasets.fetch import transfer
from hqsam_datasets.fetch.http import download
from hqsam_datasets.fetch.transfer import DownloadError, RetryPolicy, Transfer
from tests.datasets.fetch.archives import QUICK, a_zip, get, left_over, spec
from tests.datasets.fetch.server import Behaviour, serving


@pytest.mark.parametrize("ranges", [True, False])
def test_fifty_cuts_at_random_places(tmp_path: Path, ranges: bool) -> None:
    body = a_zip(size=400_000)
    dice = random.Random(1)
    # Without ranges every request starts anew: the cuts must come later and later for progress to
    # be made.
    cuts = [dice.randrange(1, 9000) if ranges else 7000 * (i + 1) for i in range(50)]
    served = Behaviour(body, ranges=ranges, cut=lambda n: cuts[n] if n < 50 else None)
    with serving({"/set.zip": served}) as base:
        get(spec(f"{base}/set.zip"), tmp_path / "set")
    assert (tmp_path / "set" / "set.zip").read_bytes() == body
    assert len(served.requests) == 51
    assert sum("Range" in request for request in served.requests) == 50
    assert left_over(tmp_path) == []


def test_a_server_without_ranges_that_always_cuts_is_given_up(tmp_path: Path) -> None:
    served = Behaviour(a_zip(), ranges=False, cut=lambda n: 1000)
    with (
        serving({"/set.zip": served}) as base,
        pytest.raises(UserError, match="gave up after 4 failures"),
    ):
        get(spec(f"{base}/set.zip"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_resume_after_the_process_died(tmp_path: Path) -> None:
    body = a_zip()
    part = tmp_path / "set.zip.part"
    served = Behaviour(body, cut=lambda n: 20_000 if n == 0 else None)
    with serving({"/x": served}) as base:
        with pytest.raises(DownloadError):
            download(f"{base}/x", part, Transfer(policy=RetryPolicy(attempts=1)))
        assert part.read_bytes() == body[:20_000]
        download(f"{base}/x", part, Transfer(policy=QUICK))
    assert part.read_bytes() == body
    assert served.requests[1]["Range"] == "bytes=20000-" and "If-Range" in served.requests[1]
    assert not (tmp_path / "set.zip.part.json").exists()


def test_a_file_that_changed_is_begun_anew(tmp_path: Path) -> None:
    old, new = a_zip(seed=1), a_zip(seed=2)
    part = tmp_path / "p.part"
    with (
        serving({"/x": Behaviour(old, cut=lambda n: 30_000)}) as base,
        pytest.raises(DownloadError),
    ):
        download(f"{base}/x", part, Transfer(policy=RetryPolicy(attempts=1)))
    state = json.loads((tmp_path / "p.part.json").read_bytes())
    with serving({"/x": Behaviour(new)}) as base:
        (tmp_path / "p.part.json").write_text(json.dumps({**state, "url": f"{base}/x"}))
        download(f"{base}/x", part, Transfer(policy=QUICK))
    assert part.read_bytes() == new


def test_no_validator_means_no_resume_unless_a_digest_is_known(tmp_path: Path) -> None:
    body = a_zip()
    for known, expected in ((False, None), (True, "bytes=20000-")):
        served = Behaviour(body, etag=None, cut=lambda n: 20_000 if n == 0 else None)
        part = tmp_path / f"{known}.part"
        with serving({"/x": served}) as base:
            download(
                f"{base}/x",
                part,
                Transfer(verified_later=known, policy=QUICK, sleep=lambda s: None),
            )
        assert part.read_bytes() == body
        assert served.requests[1].get("Range") == expected


def test_a_weak_etag_is_not_used_for_resuming(tmp_path: Path) -> None:
    served = Behaviour(a_zip(), etag='W/"1"', cut=lambda n: 20_000 if n == 0 else None)
    with serving({"/x": served}) as base:
        download(f"{base}/x", tmp_path / "p.part", Transfer(policy=QUICK, sleep=lambda s: None))
    assert "Range" not in served.requests[1]


def test_busy_servers_are_asked_again_and_retry_after_is_honoured(tmp_path: Path) -> None:
    body, waits = a_zip(), []
    statuses = [503, 429, 500]
    served = Behaviour(
        body, status=lambda n: statuses[n] if n < 3 else 200, headers={"Retry-After": "7"}
    )
    with serving({"/set.zip": served}) as base:
        get(spec(f"{base}/set.zip"), tmp_path / "set", waits)
    assert (tmp_path / "set" / "set.zip").read_bytes() == body
    assert len(waits) == 3 and min(waits) >= 7


def test_waits_grow_and_differ() -> None:
    policy = RetryPolicy(base_s=1.0, cap_s=20.0)
    for failures, bound in ((1, 1.0), (2, 2.0), (5, 16.0), (9, 20.0)):
        waits = [policy.wait(failures) for _ in range(50)]
        assert bound / 2 <= min(waits) and max(waits) <= bound and len(set(waits)) > 1


def test_truncated_files_without_digest_are_noticed(tmp_path: Path) -> None:
    said = b'{"error": "rate limited"}'
    wrong = {
        "set.zip": a_zip()[:-100],
        "a.json": b'[{"image_id": 1, "sco',
        "b.json": b"oops",
        "a.tar": said,
        "a.tgz": said,
    }
    for name, body in wrong.items():
        with serving({"/x": Behaviour(body)}) as base, pytest.raises(UserError, match="not "):
            get(spec(f"{base}/x", name=name), tmp_path / name)


def test_a_length_that_is_too_large_is_a_cut(tmp_path: Path) -> None:
    body = a_zip()
    honest = Behaviour(body, announced=len(body) + 5000)
    with serving({"/x": honest}) as base:
        get(spec(f"{base}/x"), tmp_path / "set")
    assert (tmp_path / "set" / "set.zip").read_bytes() == body, (
        "asked for the rest, it says that there is none"
    )
    stubborn = Behaviour(body, announced=len(body) + 5000, ranges=False)
    with serving({"/x": stubborn}) as base, pytest.raises(UserError, match="gave up"):
        get(spec(f"{base}/x"), tmp_path / "other")


def test_a_length_that_is_too_small_fails_the_check(tmp_path: Path) -> None:
    body = a_zip()
    with (
        serving({"/x": Behaviour(body, announced=len(body) - 5000)}) as base,
        pytest.raises(UserError, match="truncated"),
    ):
        get(spec(f"{base}/x"), tmp_path / "set")


def test_an_announced_length_that_is_not_the_expected_one_is_refused_at_once(
    tmp_path: Path,
) -> None:
    served = Behaviour(a_zip())
    with serving({"/x": served}) as base, pytest.raises(UserError, match="were expected"):
        get(spec(f"{base}/x", bytes=10), tmp_path / "set")
    assert len(served.requests) == 1


def test_compressed_transfers_are_refused(tmp_path: Path) -> None:
    served = Behaviour(a_zip(), headers={"Content-Encoding": "gzip"})
    with (
        serving({"/x": served}) as base,
        pytest.raises(UserError, match="sends the file compressed"),
    ):
        get(spec(f"{base}/x"), tmp_path / "set")


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz"])
def test_a_file_that_is_stored_compressed_may_be_called_so(name: str, tmp_path: Path) -> None:
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    body = stored.getvalue()
    served = Behaviour(body, headers={"Content-Encoding": "x-gzip"})
    with serving({f"/{name}": served}) as base:
        get(spec(f"{base}/{name}", name=name), tmp_path / "set")
    assert (tmp_path / "set" / name).read_bytes() == body


def test_redirects_to_another_address_are_followed_and_resumed(tmp_path: Path) -> None:
    """A model hub's `resolve` address answers each request with the way to its store; ranges must survive that."""
    body = a_zip()
    stored = Behaviour(body, cut=lambda n: 20_000 if n == 0 else None)
    with serving({"/store": stored}) as store:
        moved = Behaviour(
            b"", status=lambda n: 302, headers={"Location": f"{store}/store?signature=x"}
        )
        with serving({"/resolve/main/set.zip": moved}) as hub:
            get(spec(f"{hub}/resolve/main/set.zip"), tmp_path / "set")
    assert (tmp_path / "set" / "set.zip").read_bytes() == body
    assert len(moved.requests) == len(stored.requests) == 2
    assert stored.requests[1]["Range"] == "bytes=20000-" and "If-Range" in stored.requests[1]


def test_rate_and_time_left_are_told() -> None:
    told: list[str] = []
    times = iter([100.0, 100.0, 102.0, 110.0, 130.0])
    progress = with_rate(
        lambda done, total, what: told.append(what), "a.zip", clock=lambda: next(times)
    )
    # 4 GB were there from an earlier run: they must not count as fast.
    for done in (4_000_000_000, 4_010_000_000, 4_050_000_000, 5_000_000_000):
        progress(done, 5_000_000_000)
    assert told == [
        "a.zip",
        "a.zip, 5.0 MB/s, 3 min left",
        "a.zip, 5.0 MB/s, 3 min left",
        "a.zip, 33.3 MB/s",
    ]


def test_a_server_that_sends_in_circles_is_a_mirror_that_fails(tmp_path: Path) -> None:
    """Login pages do so to programs that keep no cookies."""
    around = Behaviour(b"", status=lambda n: 302, headers={"Location": "/around"})
    with serving({"/around": around, "/good": Behaviour(a_zip())}) as base:
        get(spec(f"{base}/around", f"{base}/good"), tmp_path / "set")
        with pytest.raises(UserError, match="TooManyRedirects"):
            get(spec(f"{base}/around"), tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks4://127.0.0.1:9"), ("SSL_CERT_FILE", "/no/such/file.pem")],
)
def test_an_environment_that_allows_no_connection_is_one_message(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer._tls.cache_clear()
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="no connection with these proxy and certificate variables"):
        get(spec("http://127.0.0.1:9/x"), tmp_path / "set")
    transfer._tls.cache_clear()


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate for 127.0.0.1, at `cert.pem`, that vouches for itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    key, cert = folder / "key.pem", folder / "cert.pem"
    words = (
        f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=here -addext "
        f"subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    )
    subprocess.run([openssl, *words.split()], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def test_a_certificate_that_nobody_vouches_for_is_not_asked_again(tmp_path: Path) -> None:
    context = certificate(tmp_path)
    waits: list[float] = []
    with (
        serving({"/x": Behaviour(a_zip())}, tls=context) as base,
        pytest.raises(UserError, match="clock right") as told,
    ):
        get(spec(f"{base}/x"), tmp_path / "set", waits)
    assert "CERTIFICATE_VERIFY_FAILED" in str(told.value) and waits == []


def test_json_from_windows_begins_with_a_mark(tmp_path: Path) -> None:
    with serving({"/x": Behaviour(b"\xef\xbb\xbf[1]\r\n")}) as base:
        get(spec(f"{base}/x", name="a.json"), tmp_path / "set")


def test_a_mirror_that_lies_about_the_length_is_a_mirror_that_fails(tmp_path: Path) -> None:
    body = a_zip()
    lies = {
        "/more": Behaviour(body, announced=1 << 60),
        "/range": Behaviour(b"", headers={"Content-Range": "bytes ²-²/²"}),
    }
    with serving({**lies, "/good": Behaviour(body)}) as base:
        get(spec(f"{base}/more", f"{base}/range", f"{base}/good"), tmp_path / "set")
        assert (tmp_path / "set" / "set.zip").read_bytes() == body
        with pytest.raises(
            UserError,
            match=r"(?s)/more: not enough disk space.*if it is as long as the server says",
        ):
            get(spec(f"{base}/more"), tmp_path / "other")


def test_headers_that_are_no_numbers_are_waits_like_any_other(tmp_path: Path) -> None:
    strange = iter(
        ["²", "9" * 400, "Fri, 99 Foo 2020 00:00:00 GMT", "Thu, 01 Jan 0001 00:00:00 -2359"]
    )
    later = Behaviour(a_zip(), status=lambda n: 503 if n < 4 else 200)
    waits: list[float] = []
    with serving({"/x": later}) as base:
        later.status = lambda n: (
            later.headers.update({"Retry-After": next(strange, "0")}) or (503 if n < 4 else 200)
        )
        with pytest.raises(UserError, match="HTTP 503"):
            get(spec(f"{base}/x"), tmp_path / "set", waits)
    assert waits == [0.0, 300.0, 0.0]


def test_nobody_is_sent_on_from_https_to_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    transfer._tls.cache_clear()
    plain = Behaviour(a_zip())
    try:
        with serving({"/plain": plain}) as base:
            down = Behaviour(
                b"", status=lambda n: 302, headers={"Location": f"{base}/plain?sig=s1gned"}
            )
            stay = Behaviour(b"", status=lambda n: 302, headers={"Location": "/good"})
            with serving({"/down": down, "/stay": stay, "/good": plain}, tls=context) as safe:
                with pytest.raises(
                    UserError,
                    match=r"an unencrypted address: http://127.0.0.1:\d+/plain\?sig=\*\*\*",
                ):
                    get(spec(f"{safe}/down"), tmp_path / "set")
                assert plain.requests == []
                get(spec(f"{safe}/down", f"{safe}/stay"), tmp_path / "set")
    finally:
        transfer._tls.cache_clear()


def test_a_failing_address_is_told_without_its_secrets(tmp_path: Path) -> None:
    with serving({}) as base:
        address = base.replace("://", "://me:passw0rd@") + "/x.zip?signature=s1gned"
        with pytest.raises(UserError, match=r"x\.zip\?signature=\*\*\*: HTTP 404") as told:
            get(spec(address), tmp_path / "set")
    assert "passw0rd" not in str(told.value) and "s1gned" not in str(told.value)
    noted = tmp_path / ".set.download"
    assert not noted.exists() or noted.stat().st_mode & 0o077 == 0
