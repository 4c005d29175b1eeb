from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from models.errors import ImageError
from service.classify.files import classify_files, find_images, open_classifier, progress_bar
from service.classify.outcomes import Classified
from service.errors import UsageError
from service.settings import Settings


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_folders_are_searched_and_everything_is_sorted(photos: Path) -> None:
    found = find_images([photos / "dog", photos / "cat" / "1.jpg", photos])
    assert [str(path.relative_to(photos)) for path in found] == [
        *[f"cat/{number}.jpg" for number in range(5)],
        *[f"dog/{number}.PNG" for number in range(4)],
    ]


def test_a_named_file_counts_whatever_its_suffix(photos: Path) -> None:
    assert find_images([photos / "cat" / "notes.txt"]) == [photos / "cat" / "notes.txt"]


def test_a_missing_path_is_named(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file or folder .*photos/bird"):
        find_images([photos / "cat", photos / "bird"])
    with pytest.raises(UsageError, match=r"https:/+example.com/cat.jpg: an address must be downloaded first"):
        find_images([Path("https://example.com/cat.jpg")])


def test_the_error_for_a_folder_without_images_lists_the_suffixes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no images found; in a folder, only these count: .*\.jpg.*\.png"):
        find_images([tmp_path])


def test_a_pipe_in_a_folder_blocks_nothing(tmp_path: Path, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "photo.jpg").write_bytes(jpeg_bytes)
    settings = Settings(model=str(tiny_bundle), engine="fake")

    async def scenario() -> list[object]:
        async with open_classifier(settings) as classifier:
            outcomes = classify_files(classifier, find_images([tmp_path]), top_k=1, settings=settings)
            return [outcome async for _, outcome in outcomes]

    photo, pipe = asyncio.run(scenario())
    assert str(pipe) == "the file cannot be read: not a regular file"
    assert isinstance(photo, Classified)


def test_a_pipe_that_is_named_is_read(tmp_path: Path, tiny_bundle: Path, jpeg_bytes: bytes) -> None:
    os.mkfifo(tmp_path / "63")
    writer = threading.Thread(target=(tmp_path / "63").write_bytes, args=(jpeg_bytes,))
    writer.start()
    settings = Settings(model=str(tiny_bundle), engine="fake")

    async def scenario() -> list[object]:
        async with open_classifier(settings) as classifier:
            outcomes = classify_files(classifier, [tmp_path / "63"], top_k=1, settings=settings)
            return [outcome async for _, outcome in outcomes]

    assert isinstance(asyncio.run(scenario())[0], Classified)
    writer.join()


@pytest.mark.parametrize("max_queue_bytes", [1, 1 << 30])
def test_answers_come_in_order_however_short_the_queue(photos: Path, tiny_bundle: Path, max_queue_bytes: int) -> None:
    settings = Settings(model=str(tiny_bundle), engine="fake", max_queue_bytes=max_queue_bytes, max_batch_size=2)
    paths = [*find_images([photos]), photos / "cat" / "notes.txt", photos / "gone.jpg"]

    async def scenario() -> list[tuple[Path, object]]:
        async with open_classifier(settings) as classifier:
            outcomes = classify_files(classifier, paths, top_k=1, settings=settings)
            return [(path, outcome) async for path, outcome in outcomes]

    answers = asyncio.run(scenario())
    assert [path for path, _ in answers] == paths
    assert all(isinstance(outcome, Classified) for _, outcome in answers[:-2])
    assert all(isinstance(outcome, ImageError) for _, outcome in answers[-2:])
    assert "No such file" in str(answers[-1][1])


@pytest.mark.parametrize(("err", "shown"), [(Terminal, True), (StringIO, False)])
def test_progress_is_shown_on_terminals_only(err: Callable[[], StringIO], shown: bool) -> None:
    stream = err()
    with progress_bar(2, stream) as bar:
        bar.delay = 0  # as if it had taken long
        bar.update()
        bar.refresh()
    assert ("1/2" in stream.getvalue()) is shown
