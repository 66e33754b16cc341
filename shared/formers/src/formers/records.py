"""What was measured, on what and when: one JSON file, rewritten whole after every measurement."""

import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attention_core import write_text

Record = dict[str, Any]

REPRODUCE = "reproduce.json"
BENCH = "bench.json"
PUBLISHED = Path("docs/results")
"""The folder, in the repository, of the results that the site shows."""
WORKING = Path("runs")
"""The folder that commands write to by default."""


class Records:
    """The measurements of one paper in one file; those with equal ``key`` replace each other."""

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path = path
        self.key = tuple(key)

    def read(self) -> list[Record]:
        """Everything recorded, in the order of recording.

        Raises:
            ValueError: the file is not one that this class wrote.
        """
        if not self.path.is_file():
            return []
        try:
            return list(json.loads(self.path.read_text(encoding="utf-8"))["records"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged or not a file of results") from error

    def find(self, **circumstances: Any) -> Record | None:
        """The record with these circumstances."""
        return next((r for r in self.read() if self._key(r) == self._key(circumstances)), None)

    def add(self, record: Record) -> None:
        """Put ``record`` in place of the one with its key; the file is never half written."""
        record = as_json(record)
        others = [r for r in self.read() if self._key(r) != self._key(record)]
        write_text(self.path, json.dumps({"records": [*others, record]}, indent=1) + "\n")

    def _key(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(record.get(name) for name in self.key)


def claim_records(root: Path, slug: str) -> Records:
    """The measured claims of a paper below ``root``."""
    return Records(root / slug / REPRODUCE, key=("claim", "full", "seed", "device"))


def bench_records(root: Path, slug: str) -> Records:
    """The benchmarks of a paper below ``root``."""
    circumstances = ("variant", "batch", "device", "dtype", "compile", "backward")
    return Records(root / slug / BENCH, key=circumstances)


def latest_claims(slug: str, roots: Iterable[Path]) -> dict[str, Record]:
    """For each claim the record to show: the full budget before the quick one, then the newest."""
    shown: dict[str, Record] = {}
    for root in roots:
        for record in claim_records(root, slug).read():
            other = shown.get(record["claim"])
            if other is None or _rank(record) >= _rank(other):
                shown[record["claim"]] = {**record, "folder": str(root / slug)}
    return shown


def _rank(record: Record) -> tuple[bool, bool, str]:
    return record["status"] != "error", record["full"], record["date"]


def environment() -> Record:
    """The machine and the versions that a figure was measured with."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "os": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def hardware() -> str:
    """The machine in words: ``2 cores of an AMD EPYC, no GPU``."""
    cores = cpu_cores()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    name = _processor()
    article = "an" if name[:1] in "AEIOU" else "a"
    plural = "core" if cores == 1 else "cores"
    return f"{cores} {plural} of {article} {name}, {_listed(gpus) or 'no GPU'}"


def cpu_cores() -> int:
    """The processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def package_version(slug: str) -> str:
    """The installed version of the distribution that brings the paper ``slug``."""
    for distribution in importlib.metadata.packages_distributions().get(slug, ()):
        return importlib.metadata.version(distribution)
    return ""


def source_digest(slug: str) -> str:
    """A digest of the package's Python files: it changes when what was measured may have."""
    spec = importlib.util.find_spec(slug)
    if spec is None or spec.origin is None:
        return ""
    digest = hashlib.sha256()
    for file in sorted(Path(spec.origin).parent.rglob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def as_json(value: Any) -> Any:
    """``value`` in JSON's types; a figure that is not finite becomes its name."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            return {str(name): as_json(entry) for name, entry in value.items()}
        case list() | tuple() | set() | frozenset():
            return [as_json(entry) for entry in value]
    if hasattr(value, "tolist"):  # a tensor or an array, of any rank
        return as_json(value.tolist())
    return str(value)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "processor"


def _listed(names: list[str]) -> str:
    counted = {name: names.count(name) for name in names}
    return ", ".join(f"{count} x {name}" for name, count in counted.items())
