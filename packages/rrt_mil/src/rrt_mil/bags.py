"""Bags of features on disk: CLAM's and TRIDENT's folders, ``.pt``, ``.h5`` and ``.npy`` files."""

import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SUFFIXES = (".pt", ".pth", ".h5", ".hdf5", ".npy")
FEATURES = ("features", "feats", "feature", "embeddings", "x", "X")
COORDINATES = ("coords", "coordinates", "coord")
FOLDERS = ("pt_files", "pt", "h5_files", "*/features_*", "features_*")
"""Where feature files stand below a folder: CLAM, the authors' CAMELYON16, TRIDENT."""


class BagError(ValueError):
    """Features, labels or slides that can't be used; the message names them."""


@dataclass(frozen=True)
class Bag:
    """The features of a slide's patches, in file order."""

    name: str
    features: Float[Tensor, "instances width"]
    coordinates: Int[Tensor, "instances 2"] | None = None
    """Of each patch's corner, in pixels of the slide's full resolution (x, y)."""
    patch: int | None = None
    """Side of a patch in the same pixels, where the file tells it."""


def read_bag(path: str | Path, *, width: int | None = None, drop_invalid: bool = False) -> Bag:
    """The bag in a file, as float32.

    ``.pt`` holds a tensor or array [instances, width] or [1, instances, width], or a dict of them
    with the entry ``features`` (and ``coords``); ``.h5`` those data sets; ``.npy`` the features.

    Args:
        path: the file.
        width: of the features that are wanted.
        drop_invalid: leave out instances with a value that is not finite, instead of refusing them.

    Raises:
        FileNotFoundError: no such file.
        BagError: no features in it, an empty bag, another width, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no feature file at {path}")
    features, coordinates, patch = _read(path)
    if features.ndim == 3 and features.shape[0] == 1:
        features = features[0]
    if features.ndim != 2:
        raise BagError(f"{path}: shape {list(features.shape)}, must be [instances, width]")
    if width is not None and features.shape[1] != width:
        raise BagError(f"{path}: features are {features.shape[1]} wide, expected {width}")
    if coordinates is not None:
        coordinates = coordinates.reshape(-1, coordinates.shape[-1])[:, :2]
        if len(coordinates) != len(features):
            raise BagError(f"{path}: {len(features)} features but {len(coordinates)} coordinates")
    features = features.float()
    finite = features.isfinite().all(1)
    if not finite.all():
        if not drop_invalid:
            first = (~finite).nonzero()[0].item()
            raise BagError(
                f"{path}: {(~finite).sum()} of {len(finite)} instances hold NaN or infinity "
                f"(first: {first}); they can be dropped on request"
            )
        features = features[finite]
        coordinates = None if coordinates is None else coordinates[finite]
    if not len(features):
        raise BagError(f"{path}: an empty bag")
    return Bag(path.stem, features, coordinates, patch)


def join_bags(bags: Sequence[Bag], name: str) -> Bag:
    """Several slides of one patient as one bag, one after another; coordinates are given up."""
    if len(bags) == 1:
        return bags[0]
    return Bag(name, torch.cat([bag.features for bag in bags]))


def pad_bags(
    bags: Sequence[Float[Tensor, "_ width"]],
) -> tuple[Float[Tensor, "bags longest width"], Bool[Tensor, "bags longest"]]:
    """Bags padded to the longest with zeros, and which instances are real.

    Raises:
        BagError: for no bags, an empty one, or bags of different widths.
    """
    if not bags or not all(map(len, bags)):
        raise BagError(f"bags of {[len(bag) for bag in bags]} instances: each needs at least one")
    if len(widths := {bag.shape[1] for bag in bags}) > 1:
        raise BagError(f"bags of different widths: {sorted(widths)}")
    lengths = torch.tensor([len(bag) for bag in bags])
    x = torch.nn.utils.rnn.pad_sequence(list(bags), batch_first=True)
    return x, torch.arange(x.shape[1]) < lengths[:, None]


class FeatureFolder:
    """The feature files below a folder, found by slide or patient.

    Args:
        root: the files' own folder, or one laid out as CLAM (``pt_files``, ``h5_files``), the
            authors' CAMELYON16 (``pt``) or TRIDENT (``20x_256px_0px_overlap/features_uni_v1``).

    Raises:
        FileNotFoundError: no such folder.
        BagError: no feature files in it, or TRIDENT features of several extractors.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"no folder of features at {self.root}")
        self.files = _files(self.root) or self._below()

    def _below(self) -> dict[str, Path]:
        for pattern in FOLDERS:
            found = [f for f in sorted(self.root.glob(pattern)) if f.is_dir() and _files(f)]
            if len(found) > 1:
                names = ", ".join(str(f.relative_to(self.root)) for f in found)
                raise BagError(f"{self.root} holds several sets of features, name one: {names}")
            if found:
                return _files(found[0])
        raise BagError(
            f"no feature files ({', '.join(SUFFIXES)}) in {self.root}, nor in "
            f"{', '.join(FOLDERS)} below it"
        )

    def find(self, name: str) -> list[Path]:
        """The files of a slide, or all slides of a patient.

        A slide is a file of that name. Else the name is a patient's, and its slides are the files
        that contain it, not continued by a letter or digit (``patient_1`` is not ``patient_10``).
        """
        stem = Path(name).stem if Path(name).suffix in SUFFIXES else name
        if stem in self.files:
            return [self.files[stem]]
        whole = re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])")
        return [path for slide, path in self.files.items() if whole.search(slide)]


def coordinates_of(path: str | Path) -> tuple[Int[Tensor, "instances 2"], int | None] | None:
    """Coordinates and patch size of a feature file: its own, or those of CLAM's ``h5_files``."""
    path = Path(path)
    beside = path.parent.parent / "h5_files" / f"{path.stem}.h5"
    for file in (path, beside):
        if file.is_file():
            bag = read_bag(file, drop_invalid=False)
            if bag.coordinates is not None:
                return bag.coordinates, bag.patch
    return None


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES and path.is_file()
    }


def _read(path: Path) -> tuple[Tensor, Tensor | None, int | None]:
    match path.suffix.lower():
        case ".h5" | ".hdf5":
            return _read_h5(path)
        case ".npy":
            return _tensor(np.load(path, allow_pickle=False), path), None, None
        case ".pt" | ".pth":
            content = _load(path)
        case suffix:
            raise BagError(f"{path}: {suffix or 'no suffix'} is none of {', '.join(SUFFIXES)}")
    if not isinstance(content, Mapping):
        return _tensor(content, path), None, None
    coordinates = _first(content, COORDINATES)
    features = _tensor(_entry(content, FEATURES, path), path)
    size = content.get("patch_size_level0")
    found = None if coordinates is None else _tensor(coordinates, path)
    return features, found, None if size is None else int(size)


def _read_h5(path: Path) -> tuple[Tensor, Tensor | None, int | None]:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reading {path.name} needs h5py: install formers-rrt-mil with its extra [data]"
        ) from error
    try:
        with h5py.File(path) as file:
            features = _tensor(_entry(file, FEATURES, path)[()], path)
            coordinates = _first(file, COORDINATES)
            if coordinates is None:
                return features, None, None
            size = coordinates.attrs.get("patch_size_level0")
            return features, _tensor(coordinates[()], path), None if size is None else int(size)
    except OSError as error:
        raise BagError(f"{path} is damaged or no HDF5 file: {error}") from error


def _load(path: Path) -> Any:
    """What ``torch.save`` wrote, tensors and arrays only."""
    plain = [np.ndarray, np.dtype, np._core.multiarray._reconstruct]  # type: ignore[attr-defined]
    plain += [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8")]
    try:
        with torch.serialization.safe_globals(plain):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BagError(f"{path} was refused: it is not a plain file of tensors") from error
    except (RuntimeError, EOFError, OSError) as error:
        raise BagError(f"{path} is damaged or no file of tensors: {error}") from error


def _tensor(value: Any, path: Path) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return torch.from_numpy(np.ascontiguousarray(value))
    raise BagError(f"{path}: holds {type(value).__name__}, not features")


def _first(content: Any, names: Iterable[str]) -> Any:
    return next((content[name] for name in names if name in content), None)


def _entry(content: Any, names: Sequence[str], path: Path) -> Any:
    found = _first(content, names)
    if found is None:
        there = ", ".join(map(str, content)) or "nothing"
        raise BagError(f"{path}: no {names[0]!r}; it has {there}")
    return found
