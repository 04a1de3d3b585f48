"""DVC's site cache with the real DVC: in the checkout, this user's alone, and a place that the user chose is left alone."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from hqsam_pipelines.config import dvc_site
from hqsam_pipelines.runner import doctor
from tests.pipelines.working_copy import bare_repository, run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from dvc.repo import Repo

    monkeypatch.setenv(dvc_site.VARIABLE, str(tmp_path / "of-this-test"))
    folder = bare_repository(tmp_path / "a checkout é, #1")
    Repo.init(str(folder), no_scm=True).close()
    monkeypatch.delenv(dvc_site.VARIABLE)
    return folder


def local(root: Path) -> str:
    return (root / ".dvc" / "config.local").read_text(encoding="utf-8")


def named(root: Path) -> str | None:
    """The folder, as DVC reads it."""
    from dvc.config import Config

    found: str | None = Config.load_file(str(root / ".dvc" / "config.local"))["core"].get(
        "site_cache_dir"
    )
    return found


def findings(root: Path) -> list[tuple[str, str]]:
    return [(found.level, found.detail) for found in doctor._site_cache(root)]


def test_set_up_puts_it_into_the_checkout_and_dvc_uses_it(root: Path) -> None:
    (root / ".dvc" / "config.local").write_text(
        "[core]\n    remote = mine\n['remote \"mine\"']\n    url = /mnt/store\n"
    )
    assert dvc_site.fault(root) is not None
    assert run(root, "python", "-m", "hqsam_pipelines.config.dvc_site").returncode == 0
    place = root / ".hqsam" / "dvc"
    assert (
        "remote = mine" in local(root) and "/mnt/store" in local(root) and named(root) == str(place)
    )
    assert run(root, "dvc", "status").returncode == 0
    assert list((place / "repo").iterdir())
    assert (
        stat.S_IMODE(place.stat().st_mode) == 0o700
        and stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    )
    assert dvc_site.fault(root) is None
    assert not dvc_site.configure(root)


def test_our_own_commands_use_it_where_nothing_is_configured(root: Path) -> None:
    with dvc_site.open_repo(root) as repo:
        assert Path(repo.site_cache_dir).is_relative_to(root / ".hqsam" / "dvc")
    done = run(
        root, sys.executable, "-m", "hqsam_pipelines.runner.dvc_run", "doctor", HQSAM_HOST="0"
    )
    assert f"Repo.site_cache_dir: {root / '.hqsam' / 'dvc'}" in done.stdout, (
        done.stdout + done.stderr
    )


def test_doctor_mends_it_and_says_so(root: Path) -> None:
    assert findings(root) == [("ok", "of DVC: this user's alone, set in .dvc/config.local now")]
    assert findings(root) == [("ok", "of DVC: this user's alone")]
    moved = root.rename(root.with_name("moved"))
    assert findings(moved)[0][0] == "ok"
    assert named(moved) == str(moved / ".hqsam" / "dvc")


def test_a_place_of_the_users_stays_and_doctor_judges_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = root.parent / "mine"
    text = f"[core]\n    site_cache_dir = {mine}\n"
    (root / ".dvc" / "config.local").write_text(text)
    for mode, level in ((0o777, "warn"), (0o720, "warn"), (0o755, "ok")):
        mine.mkdir(exist_ok=True)
        mine.chmod(mode)
        assert [found for found, _ in findings(root)] == [level], oct(mode)
    monkeypatch.setenv(dvc_site.VARIABLE, "/var/tmp/dvc-that-is-not-there")
    ((level, told),) = findings(root)
    assert level == "warn" and f"unset {dvc_site.VARIABLE}" in told
    assert local(root) == text
