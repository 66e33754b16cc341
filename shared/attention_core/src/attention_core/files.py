"""Writing so that a kill or a full disk leaves what was there before."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """A path beside ``target`` to write to; it takes the target's place when the block succeeds.

    The yielded path keeps the target's suffix, since many writers choose the format by it.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=f".part{target.suffix}")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        _flush(part)
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(target: str | Path) -> Iterator[Path]:
    """A folder beside ``target`` to fill; its files move to ``target`` when the block succeeds."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield stage
        for file in filter(Path.is_file, stage.rglob("*")):
            _flush(file)
        os.chmod(stage, 0o777 & ~_umask())
        if target.exists():
            for file in sorted(filter(Path.is_file, stage.rglob("*"))):
                place = target / file.relative_to(stage)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
        else:
            os.replace(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_text(target: str | Path, text: str) -> Path:
    """Write ``text`` to ``target`` atomically and return the path."""
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8")
    return Path(target)


def _flush(file: Path) -> None:
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
