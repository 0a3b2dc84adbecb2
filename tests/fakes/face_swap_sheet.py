"""Draw the page of docs/face-swap.md: `python -m tests.fakes.face_swap_sheet MODEL [FILE]`."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from backends.face_swap.loading import load_swapper
from tests.fakes.drawn_faces import DrawnFace, draw

SOURCE = DrawnFace(x=160, y=170, width=150)
TARGETS = (
    DrawnFace(x=130, y=160, width=120, tilt=-12, skin=(150, 105, 80), hair=(20, 16, 16), iris=(60, 35, 20), brows=0.03),
    DrawnFace(x=340, y=180, width=110, tilt=15, skin=(240, 205, 190), hair=(190, 150, 90), iris=(70, 110, 160)),
)


def main(model: Path, file: Path) -> None:
    """Swap the faces with the model in the folder `model`, and write source, target and result into `file`."""
    source, target = draw((320, 320), SOURCE), draw((480, 320), *TARGETS, background=(90, 110, 90))
    swapped, _ = load_swapper(model / "1", {}, "CPU", "0").swap(np.asarray(source), np.asarray(target), 16)
    sheet = Image.new("RGB", (1300, 320), "white")
    for picture, x in ((source, 0), (target, 330), (Image.fromarray(swapped), 820)):
        sheet.paste(picture, (x, 0))
    sheet.save(file, optimize=True)


if __name__ == "__main__":
    default = Path(__file__).parents[2] / "docs" / "pictures" / "face-swap.png"
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else default)
