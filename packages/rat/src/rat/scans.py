"""DICOM, NIfTI and pictures in and out, with their intensities and geometry."""

import copy
import gzip
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from attention_core import atomic_path
from einops import rearrange, repeat
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from rat.model import RAT

NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm", ".dicom", ".ima")
ARRAY = ".npy"


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The slices of a file in its own units (Hounsfield, grey levels, ...)."""

    path: Path
    values: Float[Tensor, "slices c h w"]
    low: float
    """What the network takes as 0."""
    high: float
    """What it takes as 1."""
    source: Any
    """The file as it was read: header, geometry, everything else."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(
                f"{self.path}: intensities from {self.low:g} to {self.high:g} leave no contrast"
            )

    @property
    def unit(self) -> Float[Tensor, "slices c h w"]:
        """The values with ``low`` at 0 and ``high`` at 1, not clipped."""
        return ((self.values - self.low) / (self.high - self.low)).float()


def suffix(path: Path) -> str:
    """The suffix in lower case, ``.nii.gz`` in one piece."""
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()


def stem(path: Path) -> str:
    """The name without its suffix."""
    return path.name[: len(path.name) - len(suffix(path))]


def find_scans(paths: Iterable[str | Path]) -> list[Path]:
    """The scans and pictures among ``paths`` and directly below the folders among them, sorted.

    Raises:
        FileNotFoundError: for a path that is not there.
        ValueError: for a folder that holds none.
    """
    from image_restoration_kit.images import SUFFIXES

    known = (*NIFTI, *DICOM, *SUFFIXES)
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"no file or folder at {path}")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        taken = [file for file in inside if path.is_file() or suffix(file) in known]
        if not taken:
            raise ValueError(f"{path} holds no scans or pictures ({', '.join(known)})")
        found += taken
    return found


def read_scan(path: str | Path, window: tuple[float, float] | None = None) -> Scan:
    """The slices of a DICOM file, a NIfTI volume, or a picture.

    Args:
        path: the file; NIfTI and DICOM need the extra ``medical``.
        window: intensities that the network takes as 0 and 1; by default the least and the largest,
            and for pictures black and white.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: for one that can't be read or is not finite, or without contrast.
        ModuleNotFoundError: without the extra.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    kind = suffix(path)
    read = _read_nifti if kind in NIFTI else _read_dicom if kind in DICOM else _read_picture
    values, limits, source = read(path)
    if not values.isfinite().all():
        raise ValueError(f"{path} holds NaN or infinite values")
    low, high = window or limits or (values.min().item(), values.max().item())
    return Scan(path=path, values=values, low=low, high=high, source=source)


def write_scan(path: str | Path, scan: Scan) -> Path:
    """Write ``scan`` in the format that it was read from, its header and geometry kept.

    Raises:
        ValueError: for the suffix of another format.
    """
    path = Path(path)
    for kinds, write in ((NIFTI, _write_nifti), (DICOM, _write_dicom)):
        if suffix(scan.path) in kinds:
            if suffix(path) not in kinds:
                raise ValueError(f"{path}: a scan of {scan.path.name} is written as {kinds[0]}")
            write(path, scan)
            return path
    _write_picture(path, scan)
    return path


def read_regions(path: str | Path) -> Int[Tensor, "slices h w"]:
    """A map of labels per slice: NIfTI (as SAM's are stored), ``.npy``, or a grey picture.

    Raises:
        ValueError: for labels that are negative or not whole numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no region map at {path}")
    if suffix(path) in NIFTI:
        maps = _read_nifti(path)[0][:, 0]
    elif suffix(path) == ARRAY:
        array = np.load(path, allow_pickle=False)
        maps = torch.from_numpy(np.atleast_3d(array.T).T.astype(np.float64))
    else:
        maps = _read_picture(path)[0].round()[:, 0]
    if maps.min() < 0 or not maps.eq(maps.round()).all():
        raise ValueError(f"{path}: labels of regions are whole numbers of at least 0")
    return maps.round().long()


def write_regions(path: str | Path, maps: Int[Tensor, "slices h w"], scan: Scan) -> Path:
    """Write label maps as NIfTI, in the geometry of ``scan`` if that is one."""
    nibabel = _medical("nibabel")
    data = rearrange(maps.numpy().astype(np.int32), "slices h w -> w h slices")
    affine = scan.source.affine if suffix(scan.path) in NIFTI else np.eye(4)
    _save_nifti(Path(path), nibabel.Nifti1Image(data.squeeze(), affine))
    return Path(path)


@torch.inference_mode()
def restore_scan(
    model: RAT,
    scan: Scan,
    regions: Shaped[Tensor, "slices h w"],
    progress: Any = lambda numbers: numbers,
) -> Scan:
    """Each slice through the network, intensities beyond the window carried over.

    Args:
        model: its device is used; one for colour takes grey three times.
        scan: what was read.
        regions: a map per slice, or one for all, of the restored size.
        progress: wraps the numbers of the slices.

    Raises:
        ValueError: for a map of another size, or channels that the model does not take.
    """
    device = next(model.parameters()).device
    grey = scan.values.shape[1] == 1
    if len(regions) not in (1, len(scan.values)):
        raise ValueError(f"{len(regions)} region maps for {len(scan.values)} slices")
    restored = []
    for number in progress(range(len(scan.values))):
        unit = scan.unit[number : number + 1]
        inside = unit.clamp(0, 1)
        given = inside.expand(-1, model.channels, -1, -1) if grey else inside
        out = model(given.to(device), regions[number % len(regions)].to(device)).float().cpu()
        out = (out.mean(1, keepdim=True) if grey else out).clamp(0, 1)
        beyond = F.interpolate(unit - inside, scale_factor=model.scale, mode="bilinear")
        restored.append(out + beyond)
    values = torch.cat(restored).double() * (scan.high - scan.low) + scan.low
    return replace(scan, values=values)


def _medical(library: str) -> Any:
    import importlib

    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this file needs {library}: install formers-rat with its extra [medical]"
        ) from error


def _read_nifti(path: Path) -> tuple[Tensor, None, Any]:
    nibabel = _medical("nibabel")
    try:
        image = nibabel.load(path)
        data = image.get_fdata(dtype=np.float64)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is no NIfTI file, or damaged: {error}") from error
    if data.ndim < 2:
        raise ValueError(f"{path} holds {data.ndim} axes; a scan has at least 2")
    slices = rearrange(data.reshape(*data.shape[:2], -1), "w h slices -> slices 1 h w")
    return torch.from_numpy(np.ascontiguousarray(slices)), None, image


def _write_nifti(path: Path, scan: Scan) -> None:
    source, scale = scan.source, _enlargement(scan)
    # A voxel that is split leaves the middle of its parts where its own was.
    split = np.diag([1 / scale, 1 / scale, 1, 1])
    split[:2, 3] = (1 / scale - 1) / 2
    slope, offset = _nifti_scaling(source)
    values = rearrange(scan.values.numpy(), "slices 1 h w -> w h slices")
    values = values.reshape(*values.shape[:2], *source.shape[2:])
    kind = source.get_data_dtype()
    raw = _integers(values, slope, offset, kind) if kind.kind in "iu" else values.astype(kind)
    written = type(source)(raw, source.affine @ split, source.header)
    if kind.kind in "iu":
        written.header.set_slope_inter(slope, offset)  # an image forgets that of its header
    _save_nifti(path, written)


def _save_nifti(path: Path, image: Any) -> None:
    content = image.to_bytes()
    with atomic_path(path) as part:
        part.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _nifti_scaling(source: Any) -> tuple[float, float]:
    slope, offset = (getattr(source.dataobj, name, None) for name in ("slope", "inter"))
    return (1.0 if slope is None else float(slope)), (0.0 if offset is None else float(offset))


def _read_dicom(path: Path) -> tuple[Tensor, None, Any]:
    pydicom = _medical("pydicom")
    try:
        source = pydicom.dcmread(path)
        pixels = source.pixel_array
    except (
        pydicom.errors.InvalidDicomError,
        OSError,
        AttributeError,
        ValueError,
        RuntimeError,
    ) as e:
        raise ValueError(f"{path} is no DICOM image, or damaged: {e}") from e
    if source.SamplesPerPixel != 1:
        raise ValueError(f"{path} is a DICOM file in colour; save it as a picture")
    slope, offset = _dicom_scaling(source)
    values = torch.from_numpy(pixels.astype(np.float64) * slope + offset)
    return values.reshape(-1, 1, *values.shape[-2:]), None, source


def _write_dicom(path: Path, scan: Scan) -> None:
    pydicom = _medical("pydicom")
    written, scale = copy.deepcopy(scan.source), _enlargement(scan)
    slope, offset = _dicom_scaling(written)
    signed, bits = bool(written.PixelRepresentation), written.BitsStored
    raw = np.rint((scan.values[:, 0].numpy() - offset) / slope)
    least = -(2 ** (bits - 1)) if signed else 0
    raw = raw.clip(least, least + 2**bits - 1)
    kind = f"<{'i' if signed else 'u'}{written.BitsAllocated // 8}"
    pixels = np.ascontiguousarray(raw.astype(kind))
    written.Rows, written.Columns = pixels.shape[1:]
    if scale > 1 and "PixelSpacing" in written:
        spacing = [float(value) for value in written.PixelSpacing]
        if {"ImagePositionPatient", "ImageOrientationPatient"} <= set(written.dir()):
            axes = np.reshape([float(v) for v in written.ImageOrientationPatient], (2, 3))
            # Along a row columns change, so the first axis goes with the second spacing.
            move = (1 / scale - 1) / 2 * (axes[0] * spacing[1] + axes[1] * spacing[0])
            corner = np.array([float(v) for v in written.ImagePositionPatient]) + move
            written.ImagePositionPatient = [f"{value:.10g}" for value in corner]
        written.PixelSpacing = [f"{value / scale:.10g}" for value in spacing]
    written.PixelData = pixels.tobytes()
    written["PixelData"].VR = "OW"
    written.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    written.SOPInstanceUID = pydicom.uid.generate_uid()
    written.file_meta.MediaStorageSOPInstanceUID = written.SOPInstanceUID
    written.ImageType = ["DERIVED", *list(written.get("ImageType", ["", "SECONDARY"]))[1:]]
    for stale in ("SmallestImagePixelValue", "LargestImagePixelValue"):
        if stale in written:
            delattr(written, stale)
    with atomic_path(path) as part:
        written.save_as(part, enforce_file_format=True, little_endian=True, implicit_vr=False)


def _dicom_scaling(source: Any) -> tuple[float, float]:
    return float(source.get("RescaleSlope", 1)), float(source.get("RescaleIntercept", 0))


def _read_picture(path: Path) -> tuple[Tensor, tuple[float, float], Any]:
    from image_restoration_kit.images import read_picture

    picture = read_picture(path)
    white = 2.0**picture.bits - 1
    return (picture.color.double() * white)[None], (0.0, white), picture


def _write_picture(path: Path, scan: Scan) -> None:
    from image_restoration_kit.images import to_integers, write_picture

    picture, scale = scan.source, _enlargement(scan)
    white = 2.0**picture.bits - 1
    alpha = picture.alpha
    if alpha is not None:
        alpha = repeat(to_integers(alpha, picture.bits), "c h w -> c (h y) (w x)", y=scale, x=scale)
    color = to_integers(scan.values[0] / white, picture.bits)
    write_picture(path, color, alpha=alpha, bits=picture.bits, info=picture.info)


def _integers(values: np.ndarray, slope: float, offset: float, kind: np.dtype) -> np.ndarray:
    limits = np.iinfo(kind)
    return np.rint((values - offset) / slope).clip(limits.min, limits.max).astype(kind)


def _enlargement(scan: Scan) -> int:
    """How many times larger the values are than the file that they come from."""
    source = scan.source
    if suffix(scan.path) in NIFTI:
        before = source.shape[1]
    elif suffix(scan.path) in DICOM:
        before = source.Rows
    else:
        before = source.color.shape[1]
    return scan.values.shape[2] // before
