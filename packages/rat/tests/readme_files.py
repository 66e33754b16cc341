"""The files that the README's commands name."""

import re
from pathlib import Path

import torch
from attention_core import golden_cases
from image_restoration_kit import write_picture
from rat.data import DrawnSlices


def make(folder: Path) -> None:
    import pydicom.data

    case = next(case for case in golden_cases("rat") if case.name == "rat_published_64x48")
    later = re.compile(r"middle_blks\.[1-9]|layers\.[12]")
    state = {key: value for key, value in case.state_dict().items() if not later.search(key)}
    torch.save(state, folder / "model_best.pth")
    for number, (degraded, clean, _) in enumerate(DrawnSlices(2)):
        for place, picture in (
            ("scans", degraded),
            ("data/test/qd", degraded),
            ("data/test/fd", clean),
        ):
            write_picture(folder / place / f"slice{number}.png", picture)
    ct = Path(str(pydicom.data.get_testdata_file("CT_small.dcm")))
    (folder / "slice.dcm").write_bytes(ct.read_bytes())
