"""Which slides have which label: label and survival CSV, folds."""

import csv
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rrt_mil.bags import BagError, FeatureFolder

SLIDE = ("slide_id", "slide", "image_id", "filename")
CASE = ("case_id", "patient_id", "patient", "case", "name", "id")
LABEL = ("label", "class", "target", "y")
SURVIVAL = ("ID", "Event", "Status", "WSI")
BINS = 4


@dataclass(frozen=True, kw_only=True)
class Item:
    """What is classified: one slide, or in survival all slides of a patient."""

    name: str
    """The patient (or slide) as the table names it; a patient's slides are never parted."""
    paths: tuple[Path, ...]
    label: int
    """Class, or time bin."""
    time: float = 0.0
    """Survival: to the event or the last contact."""
    observed: bool = False
    """Survival: whether the event was seen."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The items of a label file."""

    items: tuple[Item, ...]
    task: str
    """``classification`` or ``survival``."""
    classes: tuple[str, ...]
    """Names of the classes; of the time bins, their ranges."""

    def __len__(self) -> int:
        return len(self.items)

    def only(self, names: Sequence[str]) -> "Table":
        """The items of the patients ``names``."""
        wanted = set(names)
        return replace(self, items=tuple(item for item in self.items if item.name in wanted))


def read_table(
    labels: str | Path,
    features: str | Path,
    *,
    classes: Sequence[str] | None = None,
    skip_missing: bool = False,
) -> Table:
    """Match a CSV of labels with a folder of features.

    Three kinds of file are told apart by their header:

    - ``name,label`` without a header, the authors' own: a slide, or a patient with all its slides;
    - columns ``slide_id`` and ``label``, with ``case_id`` CLAM's: a slide, kept with its patient;
    - ``Study,ID,Event,Status,WSI``, the authors' survival file: the patient's files are joined by
      ``;``, of which only the names count, Status 1 means that the event was observed.

    Args:
        labels: the CSV.
        features: the folder, as `FeatureFolder` takes it.
        classes: names of the labels in the order of the classes; by default numbers as they are,
            names sorted.
        skip_missing: leave out items without features instead of refusing them.

    Raises:
        FileNotFoundError: no such file or folder.
        BagError: naming slides without features, unknown or missing labels, or patients twice.
    """
    path = Path(labels)
    if not path.is_file():
        raise FileNotFoundError(f"no label file at {path}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    if not rows:
        raise BagError(f"{path} is empty")
    folder = FeatureFolder(features)
    if set(SURVIVAL) <= set(rows[0]):
        return _survival(path, rows, folder, skip_missing)
    return _classification(path, rows, folder, classes, skip_missing)


def folds(table: Table, count: int = 5, seed: int = 2021) -> list[tuple[Table, Table]]:
    """Training and test part of each fold, patients whole: the authors' own splits.

    Classification shuffles the table's rows by ``seed`` and deals each class out over the folds;
    survival draws one order (the authors' seed is 1) and cuts it.

    Raises:
        BagError: fewer patients (in a class) than folds.
    """
    cases = {item.name: item.label for item in table.items}
    names, generator = list(cases), random.Random(seed)
    if count < 2 or len(names) < count:
        raise BagError(f"{count} folds of {len(names)} patients: needs 2 folds, and a patient each")
    if table.task == "survival":
        names = generator.sample(names, len(names))
        size = max(1, round((len(names) - 1) / count))
        cuts = [*range(0, size * count, size), len(names)]
        parts = [names[a:b] for a, b in itertools.pairwise(cuts)]
    else:
        generator.shuffle(names)
        parts = _stratified([cases[name] for name in names], names, count)
    return [(table.only(sorted(set(names) - set(part))), table.only(part)) for part in parts]


def hold_out(table: Table, share: float, seed: int = 2021) -> tuple[Table, Table]:
    """The rest of the table, and a ``share`` of each class's patients to validate on."""
    cases = defaultdict(list)
    for name, label in {item.name: item.label for item in table.items}.items():
        cases[label].append(name)
    generator, held = random.Random(seed), []
    for _, names in sorted(cases.items()):
        generator.shuffle(names)
        held += names[: int(len(names) * share)]
    if not held:
        raise BagError(f"val_share={share}: holds nothing out of {len(table)} items")
    kept = [item.name for item in table.items if item.name not in set(held)]
    return table.only(kept), table.only(held)


def _stratified(labels: Sequence[int], names: Sequence[str], count: int) -> list[list[str]]:
    """Folds with equal shares of each class, as scikit-learn's StratifiedKFold deals them."""
    sizes = Counter(labels)
    if rare := [f"{label} ({size})" for label, size in sizes.items() if size < count]:
        raise BagError(f"{count} folds: too few patients in class {', '.join(rare)}")
    order = {label: index for index, label in enumerate(dict.fromkeys(labels))}
    codes = np.array([order[label] for label in labels])
    shares = [np.bincount(np.sort(codes)[f::count], minlength=len(order)) for f in range(count)]
    fold_of = np.empty(len(codes), dtype=int)
    for code in range(len(order)):
        fold_of[codes == code] = np.repeat(np.arange(count), [share[code] for share in shares])
    return [[n for n, f in zip(names, fold_of, strict=True) if f == fold] for fold in range(count)]


def _classification(
    path: Path,
    rows: list[list[str]],
    folder: FeatureFolder,
    classes: Sequence[str] | None,
    skip_missing: bool,
) -> Table:
    header = [cell.lower() for cell in rows[0]]
    label_column = next((header.index(name) for name in LABEL if name in header), None)
    if label_column is None:  # the authors' files have no header
        label_column, name_column, case_column, body = 1, 0, 0, rows
    else:
        columns = [header.index(name) for name in (*SLIDE, *CASE) if name in header]
        cases = [header.index(name) for name in CASE if name in header]
        if not columns:
            raise BagError(f"{path}: no column of slides ({', '.join((*SLIDE, *CASE))})")
        name_column, case_column, body = columns[0], (cases or columns)[0], rows[1:]
    if short := [row for row in body if len(row) <= max(label_column, name_column, case_column)]:
        raise BagError(f"{path}: a row without slide or label: {','.join(short[0])!r}")
    known = _classes(path, [row[label_column] for row in body], classes)
    number = {label: index for index, label in enumerate(known)}
    items, missing, seen = [], [], set()
    for row in body:
        name, label = row[name_column], row[label_column]
        if name in seen:
            raise BagError(f"{path}: {name} stands there twice")
        seen.add(name)
        files = folder.find(name)
        if not files:
            missing.append(name)
        items += [Item(name=row[case_column], paths=(f,), label=number[label]) for f in files]
    _refuse_missing(missing, len(body), folder, skip_missing)
    return _nonempty(path, Table(items=tuple(items), task="classification", classes=tuple(known)))


def _classes(path: Path, labels: list[str], classes: Sequence[str] | None) -> list[str]:
    found = sorted(set(labels))
    if classes is not None:
        if unknown := [label for label in found if label not in classes]:
            raise BagError(f"{path}: label {unknown[0]!r} is none of {', '.join(classes)}")
        return list(classes)
    if all(label.isdigit() for label in found):
        return [str(index) for index in range(max(map(int, found)) + 1)]
    if "" in found:
        raise BagError(f"{path}: a label is missing")
    return found


def _survival(
    path: Path, rows: list[list[str]], folder: FeatureFolder, skip_missing: bool
) -> Table:
    column = {name: rows[0].index(name) for name in SURVIVAL}
    records, missing = [], []
    for row in rows[1:]:
        name, slides = row[column["ID"]], row[column["WSI"]].split(";")
        try:
            time, observed = float(row[column["Event"]]), bool(int(row[column["Status"]]))
        except ValueError as error:
            raise BagError(f"{path}: {name} has no time or status ({error})") from error
        found = [folder.find(slide.replace("\\", "/").rpartition("/")[2]) for slide in slides]
        if not all(found):
            missing.append(name)
            continue
        paths = tuple(file for files in found for file in files)
        records.append(Item(name=name, paths=paths, label=0, time=time, observed=observed))
    if twice := [name for name, n in Counter(r.name for r in records).items() if n > 1]:
        raise BagError(f"{path}: {twice[0]} stands there twice")
    _refuse_missing(missing, len(rows) - 1, folder, skip_missing)
    edges = time_bins([r.time for r in records], [r.observed for r in records])
    labels = np.digitize([r.time for r in records], edges[1:-1])
    items = tuple(replace(r, label=int(b)) for r, b in zip(records, labels, strict=True))
    ranges = tuple(f"{a:.4g} to {b:.4g}" for a, b in itertools.pairwise(edges))
    return _nonempty(path, Table(items=items, task="survival", classes=ranges))


def time_bins(times: Sequence[float], observed: Sequence[bool], bins: int = BINS) -> np.ndarray:
    """Edges of the time bins: quantiles of the observed events, widened to hold every time.

    Raises:
        BagError: fewer different event times than bins.
    """
    events = np.array([time for time, seen in zip(times, observed, strict=True) if seen])
    if (different := len(np.unique(events))) < bins:
        raise BagError(f"{different} different event times: {bins} time bins need more")
    edges = np.quantile(events, np.linspace(0, 1, bins + 1))
    edges[0], edges[-1] = min(times) - 1e-6, max(times) + 1e-6
    return edges


def _refuse_missing(missing: list[str], total: int, folder: FeatureFolder, skip: bool) -> None:
    if missing and not skip:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise BagError(
            f"no features in {folder.root} for {len(missing)} of {total}: "
            f"{', '.join(missing[:5])}{more}"
        )


def _nonempty(path: Path, table: Table) -> Table:
    if not table.items:
        raise BagError(f"{path}: no slide has both a label and features")
    return table
