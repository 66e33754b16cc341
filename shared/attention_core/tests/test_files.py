from pathlib import Path

import pytest
from attention_core import atomic_directory, atomic_path, write_text


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = write_text(tmp_path / "a" / "result.json", "old")

    def interrupted() -> None:
        with atomic_path(target) as part:
            part.write_text("half of the n")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        interrupted()
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["result.json"]


def test_the_file_appears_whole_and_keeps_its_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "plot.png") as part:
        assert part.suffix == ".png"
        part.write_bytes(b"x")
        assert not (tmp_path / "plot.png").exists()
    assert (tmp_path / "plot.png").read_bytes() == b"x"


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_is_filled_or_left_alone(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "model"
    if exists:
        write_text(target / "config.json", "old")

    def interrupted() -> None:
        with atomic_directory(target) as stage:
            (stage / "config.json").write_text("new")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        interrupted()
    assert (target / "config.json").exists() == exists
    with atomic_directory(target) as stage:
        (stage / "config.json").write_text("new")
        (stage / "sub").mkdir()
        (stage / "sub" / "w").write_text("1")
    assert (target / "config.json").read_text() == "new"
    assert (target / "sub" / "w").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
