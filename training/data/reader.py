"""The program that training.data.verification starts: `python -m training.data.reader DEPTH SPEC`.

It writes `ready`, then reads one path per line (JSON) and answers each with a line: what is wrong with the file, or
null. It exits when its input ends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from models.errors import ImageError
from models.manifest import Preprocess
from models.preprocess import open_image, read_file, read_pixels, resized_size


def problem(path: Path, depth: str, spec: Preprocess) -> str | None:
    """Why the file cannot be used, or None. `headers` reads the header only; `pixels` decodes as training does."""
    try:
        image = open_image(read_file(path))
        resized_size(image.size, spec)
        if depth == "pixels":
            read_pixels(image, icc=spec.icc)
    except ImageError as error:
        return error.detail
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except MemoryError:
        return "needs more memory than there is"
    return None


def main(depth: str, spec: str) -> None:
    checked = Preprocess.model_validate_json(spec)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(problem(Path(json.loads(line)), depth, checked)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
