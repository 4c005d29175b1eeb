"""How a bundle is found by its name: the newest version, or exactly the one that is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import BundleError
from models.store import STORE, Bundle, find_bundle, find_versions, open_bundle

Values = dict[str, Any]
Write = Callable[[Path], Bundle]


@pytest.fixture
def store(write: Write, values: Values, tmp_path: Path) -> Callable[..., Path]:
    """Fill a store: `store("tiny/2", "tiny/10")` -> its folder."""

    def fill(*names: str) -> Path:
        for name in names:
            write(tmp_path / "store" / name)
        return tmp_path / "store"

    return fill


@pytest.mark.parametrize(
    ("versions", "newest"),
    [
        ("2 10", "10"),
        ("9 10 1", "10"),
        ("1.2.0 1.10.0", "1.10.0"),
        ("v2 v10", "v10"),
        ("1 beta", "1"),
        ("1 1.1", "1.1"),
        ("1 2-rc1", "2-rc1"),
    ],
)
def test_a_name_means_its_newest_version_by_number(store: Callable[..., Path], versions: str, newest: str) -> None:
    folder = store(*(f"tiny/{version}" for version in versions.split()))
    assert find_bundle("tiny", folder) == folder / "tiny" / newest
    assert find_bundle("tiny/", folder) == folder / "tiny" / newest
    assert find_bundle(folder / "tiny", STORE) == folder / "tiny" / newest


def test_a_non_ascii_digit_in_a_version_is_text(store: Callable[..., Path]) -> None:
    folder = store("tiny/²", "tiny/1")
    assert find_bundle("tiny", folder) == folder / "tiny" / "1"


def test_a_name_with_a_version_means_exactly_that_version(store: Callable[..., Path]) -> None:
    folder = store("tiny/2", "tiny/10", "other/3")
    assert find_bundle("tiny/2", folder) == folder / "tiny/2"
    assert open_bundle("other", folder).folder == folder / "other/3"


def test_a_folder_takes_precedence_over_the_store(store: Callable[..., Path]) -> None:
    folder = store("tiny/2")
    assert find_bundle(folder / "tiny/2", STORE) == folder / "tiny/2"
    assert find_bundle(str(folder / "tiny/2"), STORE) == folder / "tiny/2"


@pytest.mark.parametrize("model", ["unknown", "tiny/3", "tiny/2/golden", "../store/tiny", "/nowhere", "/"])
def test_an_unknown_model_lists_the_known_ones(store: Callable[..., Path], model: str) -> None:
    folder = store("tiny/2", "tiny/10", "other/3")
    with pytest.raises(BundleError) as caught:
        open_bundle(model, folder)
    assert str(caught.value) == (
        f"no model bundle at {model}: give a folder with a manifest.json, or one in the store: other/3, tiny/10, tiny/2"
    )


def test_an_empty_store_lists_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"or one in the store: none$"):
        open_bundle("tiny", tmp_path / "nowhere")


def test_the_versions_that_a_name_stands_for_newest_first(store: Callable[..., Path]) -> None:
    folder = store("tiny/9", "tiny/10", "tiny/beta")
    tiny = folder / "tiny"
    for other in ("11", "3", ".12", "lost+found"):  # 11: a copy that broke off, or goes on
        (tiny / other).mkdir()
    (tiny / "12").write_text("a file")
    for model in ("tiny", tiny):
        assert [path.name for path in find_versions(model, folder)] == ["11", "10", "9", "beta"]
    for model in ("tiny/9", tiny / "9"):
        assert find_versions(model, folder) == [tiny / "9"]
    with pytest.raises(BundleError, match="no model bundle at nothing"):
        find_versions("nothing", folder)
