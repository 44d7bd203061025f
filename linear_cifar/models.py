"""A fitted classifier with all that it takes to use it, as one file."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from linear_cifar.calibration import TEMPERATURE, scaled_probabilities
from linear_cifar.data.on_disk import block_rows
from linear_cifar.data.types import Standardiser, normalised_rows
from linear_cifar.errors import reason
from linear_cifar.losses import LOSSES, Loss
from linear_cifar.model import Params
from linear_cifar.records import RecordError, replacing
from linear_cifar.settings import Setting, SettingsError, is_text

_LAM = Setting("λ of the cost", low=0)
_ARRAYS = ("weights", "bias", "mean", "scale")
_METADATA = "linear_cifar"  # of .safetensors: the rest, as JSON
_DETAILS = ("class_names", "feature_names", "normalise_rows", "loss", "lam", "temperature")


@dataclass(frozen=True, eq=False)
class Model:
    """A linear classifier of examples as they are stored.

    Raises:
      SettingsError: a field is not of the form that it should have; one line says which.

    Examples:
      >>> params, standardiser = Params(np.eye(2), np.zeros(2)), Standardiser(*np.ones((2, 2)))
      >>> model = Model(params, standardiser, ("cat", "dog"), LOSSES["softmax"], lam=0.1)
      >>> model.logits(np.array([[1.0, 4.0]])).tolist()
      [[0.0, 3.0]]
    """

    params: Params  # numpy, [K, d] and [K], float32 or float64
    standardiser: Standardiser  # numpy, [d] each: of the training inputs, normalised if they are
    class_names: tuple[str, ...]  # K of them
    loss: Loss  # one of `LOSSES`; its link makes probabilities of logits
    lam: float  # λ that the parameters were fitted with
    normalise_rows: bool = False  # examples have length 1 before they are standardised
    temperature: float = 1.0  # T: probabilities are those of logits / T
    feature_names: tuple[str, ...] = ()  # d of them, of a table's columns; () for none

    def __post_init__(self) -> None:
        _check_arrays(dict(zip(_ARRAYS, (*self.params, *self.standardiser), strict=True)))
        n_classes, n_features = self.params.weights.shape
        for name, of, wanted in (
            ("class_names", "classes", (n_classes,)),
            ("feature_names", "features", (n_features, 0)),
        ):
            names = getattr(self, name)
            if not isinstance(names, tuple) or not all(map(is_text, names)):
                raise SettingsError(f"{name} have to be a tuple of strings")
            if len(names) not in wanted:
                raise SettingsError(
                    f"there are {len(names)} {name} for weights of {wanted[0]} {of}"
                )
        if not isinstance(self.loss, Loss) or LOSSES.get(self.loss.name) != self.loss:
            raise SettingsError(f"loss has to be one of {', '.join(LOSSES)}")
        if not isinstance(self.normalise_rows, bool):
            raise SettingsError("normalise_rows has to be True or False")
        for name, setting in (("lam", _LAM), ("temperature", TEMPERATURE)):
            value = getattr(self, name)
            if not isinstance(value, float):
                raise SettingsError(f"{name} has to be a float")
            setting.check(name, value)

    def logits(self, inputs: Any, dtype: Any = np.float64) -> np.ndarray:
        """Scores of every class, s = Wx + b, not divided by the temperature.

        Args:
          inputs: examples as they are stored, [n, d]: an array, or one `OnDisk`.
          dtype: float64 or float32, of the arithmetic.

        Returns:
          Logits [n, K] in `dtype`.

        Raises:
          SettingsError: inputs of another shape.
        """
        weights, bias = (np.asarray(a, dtype) for a in self.params)
        found = np.empty((len(inputs), len(bias)), dtype)
        start = 0
        with np.errstate(over="ignore", invalid="ignore"):  # no class and NaN say so
            for rows in self._prepared(inputs, dtype):
                found[start : start + len(rows)] = rows @ weights.T + bias
                start += len(rows)
        return found

    def predict(self, inputs: Any, dtype: Any = np.float64) -> np.ndarray:
        """The class with the largest logit, the first of equal ones, [n] int32; −1 of no number."""
        scores = self.logits(inputs, dtype)
        finite = np.isfinite(scores).all(axis=1)
        return np.where(finite, scores.argmax(axis=1), -1).astype(np.int32)

    def probabilities(self, inputs: Any, dtype: Any = np.float64) -> np.ndarray:
        """Those of logits / T, [n, K] float64, of logits computed in `dtype`."""
        return scaled_probabilities(self.logits(inputs, dtype), self.loss, self.temperature)

    def _prepared(self, inputs: Any, dtype: Any) -> Iterator[np.ndarray]:
        """Blocks of rows as the weights take them."""
        mean, scale = (np.asarray(a, dtype) for a in self.standardiser)
        if getattr(inputs, "ndim", 0) != 2 or inputs.shape[1] != len(mean):
            shape = getattr(inputs, "shape", type(inputs).__name__)
            raise SettingsError(f"inputs have to be an array [n, {len(mean)}], not {shape}")
        size = block_rows(inputs)
        for start in range(0, len(inputs), size):
            rows = np.asarray(inputs[start : start + size]).astype(dtype)
            yield ((normalised_rows(rows) if self.normalise_rows else rows) - mean) / scale


def _check_arrays(arrays: Mapping[str, Any]) -> None:
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.name not in ("float32", "float64"):
            kind = getattr(array, "dtype", type(array).__name__)
            raise SettingsError(f"{name} has to be a numpy array of float32 or float64, not {kind}")
    if arrays["weights"].ndim != 2:
        raise SettingsError(f"weights have to be [K, d], not {list(arrays['weights'].shape)}")
    n_classes, n_features = arrays["weights"].shape
    if n_classes < 2 or n_features < 1:
        raise SettingsError(f"weights [{n_classes}, {n_features}] have to be [K, d], K ≥ 2, d ≥ 1")
    for name, array in arrays.items():
        if name != "weights" and array.shape != (n_classes if name == "bias" else n_features,):
            raise SettingsError(
                f"{name} {list(array.shape)} doesn't fit weights [{n_classes}, {n_features}]"
            )
        if not np.isfinite(array).all():
            raise SettingsError(f"{name} has to be finite")
    if not (arrays["scale"] > 0).all():
        raise SettingsError("scale has to be above 0")


def write_model(path: str | Path, model: Model) -> None:
    """Writes a model as `.npz` or `.safetensors`, by the name's ending.

    Either has the arrays `weights`, `bias`, `mean` and `scale`. The rest is arrays too in the
    first, and JSON in the metadata of the second. The file appears whole or not at all.

    Args:
      path: a file there is replaced.
      model: is read back bit for bit.

    Raises:
      RecordError: another ending, or a disk that can't be written to.
    """
    path = Path(path)
    arrays = dict(zip(_ARRAYS, (*model.params, *model.standardiser), strict=True))
    details = {name: getattr(model, name) for name in _DETAILS} | {"loss": model.loss.name}
    content = _format(path)[0](arrays, details)
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {reason(error)}") from error


def read_model(path: str | Path) -> Model:
    """Reads what `write_model` wrote, bit for bit; nothing in the file is ever executed.

    Raises:
      RecordError: no file, a damaged one, or one that holds no model; one line says what is wrong.
    """
    path = Path(path)
    read = _format(path)[1]
    try:
        arrays, details = read(path)
        details = {"feature_names": []} | details  # which models did not always have
        missing = [name for name in (*_ARRAYS, *_DETAILS) if name not in {*arrays, *details}]
        if missing:
            raise SettingsError(f"it has no {missing[0]}")
        return _model(arrays, details)
    except SettingsError as error:
        raise RecordError(f"{path} holds no model: {error}") from error
    except FileNotFoundError as error:
        raise RecordError(f"there is no {path}") from error
    except Exception as error:  # a damaged file can make the readers raise any of a dozen types
        raise RecordError(f"{path} cannot be read: {reason(error)}") from error


def _model(arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]) -> Model:
    loss = details["loss"]
    classes, features = (
        tuple(names) if isinstance(names, list) else names
        for names in (details["class_names"], details["feature_names"])
    )
    if not isinstance(loss, str) or loss not in LOSSES:
        raise SettingsError(f"loss is {str(loss)[:40]!r}: it has to be one of {', '.join(LOSSES)}")
    return Model(
        params=Params(arrays["weights"], arrays["bias"]),
        standardiser=Standardiser(arrays["mean"], arrays["scale"]),
        class_names=classes,
        feature_names=features,
        loss=LOSSES[loss],
        lam=details["lam"],
        normalise_rows=details["normalise_rows"],
        temperature=details["temperature"],
    )


def _format(path: Path) -> Any:
    """The functions that write and read a file with this ending."""
    if path.suffix not in _FORMATS:
        raise RecordError(f"{path} is no model's name: it has to end in {' or '.join(_FORMATS)}")
    return _FORMATS[path.suffix]


def _npz_bytes(arrays: Mapping[str, Any], details: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    members: dict[str, Any] = {name: np.array(value) for name, value in details.items()}
    np.savez(file, **arrays, **members)
    return file.getvalue()


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with path.open("rb") as opened:  # np.load leaves a damaged file open that it opened itself
        file = np.load(opened, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise SettingsError("it is a single array")
        arrays = {name: file[name] for name in _ARRAYS if name in file}
        return arrays, {name: file[name].tolist() for name in _DETAILS if name in file}


def _safetensors_bytes(arrays: Mapping[str, np.ndarray], details: Mapping[str, Any]) -> bytes:
    # It writes the memory as it lies there, whatever the strides.
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    from safetensors.numpy import save

    # As one string: of several the package writes in any order, and the same model is other bytes.
    return save(tensors, {_METADATA: json.dumps(details)})


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        found, metadata = set(file.keys()), file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in _ARRAYS if name in found}
    details = json.loads(metadata.get(_METADATA, "{}"))
    if not isinstance(details, dict):
        raise SettingsError(f"its metadata {_METADATA} is no JSON object")
    return arrays, {name: details[name] for name in _DETAILS if name in details}


_FORMATS = {
    ".npz": (_npz_bytes, _read_npz),
    ".safetensors": (_safetensors_bytes, _read_safetensors),
}
