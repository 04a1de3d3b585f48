"""A seam on a package made for the test: what is an entry, and what is said of one that is none."""

import sys
from dataclasses import dataclass

import pytest

from hqsam_base.errors import UserError
from hqsam_base.seam import Seam


@dataclass(frozen=True)
class Fruit:
    name: str


FILES = {
    "__init__": "",
    "base": "",
    "_shared": "",
    "apple": "FRUIT = Fruit('apple')",
    "pear": "FRUIT = Fruit('pear')",
    "plum": "FRUIT = Fruit('pear')",
    "stone": "FRUIT = 'stone'",
    "water": "",
}


@pytest.fixture
def seam(tmp_path, monkeypatch):
    folder = tmp_path / "orchard"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(
            f"from {__name__} import Fruit\n{text}\n" if text else ""
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Seam(
        package="orchard", what="fruit", constant="FRUIT", kind=Fruit, helpers=frozenset({"base"})
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "orchard"]:
        del sys.modules[name]


def test_files_are_entries_unless_they_are_helpers(seam):
    assert seam.names() == ["apple", "pear", "plum", "stone", "water"]
    assert seam.load("pear").name == "pear"
    assert seam.load("pear") is seam.load("pear")


@pytest.mark.parametrize("name", ["peach", "base", "_shared", "apple.core", ""])
def test_what_is_no_entry_is_refused_with_the_ones_that_are(seam, name):
    with pytest.raises(UserError, match="unknown fruit") as error:
        seam.load(name)
    assert "apple, pear" in str(error.value)
    assert error.value.key == "fruit"


@pytest.mark.parametrize("name", ["plum", "stone", "water"])
def test_a_file_that_breaks_its_promise_is_named(seam, name):
    with pytest.raises(
        TypeError, match=rf"orchard/{name}\.py: FRUIT must be a Fruit named '{name}'"
    ):
        seam.load(name)
