"""Which file a name means, whatever system or tool wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hqsam_base.filenames import AmbiguousNameError, meant, visible

NAMES = ("Photos/Vo\u0308gel 1.png", "100%.png", "d%C3%A9.png", "\u00e9t\u00e9 2.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Photos/V\u00f6gel 1.png", 0),
        ("photos/v\u00f6gel 1.PNG", 0),
        ("Photos/V%C3%B6gel%201.png", 0),
        ("100%.png", 1),
        ("d\u00e9.png", 2),
        ("d%C3%A9.png", 2),
        ("%C3%89T%C3%89%202.png", 3),
        ("Photos/none.png", None),
        ("..%2FPhotos", None),
        ("Photos/../100%.png", None),
        ("/100%.png", None),
    ],
)
def test_a_name_is_found_in_any_spelling(folder: Path, name: str, found: int | None) -> None:
    assert meant(folder, name) == (None if found is None else folder / NAMES[found])


def test_two_that_fit_equally_are_no_guess(folder: Path) -> None:
    (folder / "A.png").touch()
    (folder / "a.PNG").touch()
    assert meant(folder, "A.png") == folder / "A.png"
    with pytest.raises(AmbiguousNameError, match=r"neither is called a\.png"):
        meant(folder, "a.png")


def test_companions_are_no_data(folder: Path) -> None:
    (folder / "._100%.png").touch()
    (folder / ".DS_Store").touch()
    assert [path.name for path in visible(folder.glob("*.png"))] == sorted(NAMES[1:])
