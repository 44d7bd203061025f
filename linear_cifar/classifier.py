"""A fitted classifier with everything that its use needs, as one object and one file."""

import io
import json
import secrets
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from linear_cifar.checks import Setting, is_text, real_numbers
from linear_cifar.data.blocks import block_rows, blocks, in_memory
from linear_cifar.data.dataset import Standardiser, normalised_rows
from linear_cifar.data.formats import npz_array
from linear_cifar.errors import DataError, InputError, reason
from linear_cifar.losses import BINARY_CROSS_ENTROPY, LOSSES, SOFTMAX_CROSS_ENTROPY, Loss, as_loss
from linear_cifar.metrics.calibration import TEMPERATURE, scaled_probabilities
from linear_cifar.model import Params
from linear_cifar.optimizers import LAM

_ARRAYS = (*Params._fields, *Standardiser._fields)
_DETAILS = ("class_names", "feature_names", "normalise_rows", "loss", "lam", "temperature")
_METADATA = "linear_cifar"  # the key of the details, as JSON, in a .safetensors file


@dataclass(eq=False)
class Classifier:
    """A linear classifier of examples as they are stored.

    Arrays may be JAX's or NumPy's; they become NumPy arrays of float32 or float64.

    Examples:
      >>> params, standardiser = Params(np.eye(2), np.zeros(2)), Standardiser(*np.ones((2, 2)))
      >>> classifier = Classifier(params, standardiser, ("cat", "dog"))
      >>> classifier.predict([[1.0, 4.0]]).tolist()
      ['dog']
    """

    params: Params  # [K, d] and [K]
    standardiser: Standardiser  # [d] each: of the training inputs, after `normalise_rows`
    class_names: Sequence[str]  # K names, of classes or targets
    loss: Loss | str = SOFTMAX_CROSS_ENTROPY  # or a name; its link gives probabilities
    lam: float = 0.0  # λ that the parameters were fitted with
    normalise_rows: bool = False  # whether examples are scaled to length 1 before standardising
    temperature: float = 1.0  # T of the probabilities, which come from logits / T
    feature_names: Sequence[str] = ()  # d names of a table's columns, or none

    def __post_init__(self) -> None:
        self.params = Params(*map(_floats, Params._fields, self.params))
        self.standardiser = Standardiser(*map(_floats, Standardiser._fields, self.standardiser))
        weights, bias, mean, scale = (a.shape for a in (*self.params, *self.standardiser))
        if len(weights) != 2 or bias != weights[:1] or not mean == scale == weights[1:]:
            raise InputError(f"bias {bias}, mean {mean}, scale {scale} don't fit weights {weights}")
        Setting("", above=0).check("scale", self.standardiser.scale)
        LAM.check("lam", self.lam)
        TEMPERATURE.check("temperature", self.temperature)
        self.lam, self.temperature = float(self.lam), float(self.temperature)
        self.loss = as_loss(self.loss)
        if self.normalise_rows not in (False, True):
            raise InputError(f"normalise_rows is {self.normalise_rows}: it has to be True or False")
        self.normalise_rows = bool(self.normalise_rows)
        self.class_names, self.feature_names = tuple(self.class_names), tuple(self.feature_names)
        for name, sizes in (("class_names", weights[:1]), ("feature_names", (0, weights[1]))):
            names = getattr(self, name)
            if len(names) not in sizes or not all(map(is_text, names)):
                raise InputError(f"{name} have to be {sizes[-1]} strings")

    def logits(self, inputs: Any, dtype: Any = np.float64) -> np.ndarray:
        """Scores [n, K] of every class, s = Wx + b, not divided by the temperature.

        Inputs are examples as they are stored, [n, d]: an array, or `LazyRows` of a file. The
        arithmetic is in float64 or float32. An `InputError` names a row without finite logits.
        """
        arrays = (*self.params, *self.standardiser)
        weights, bias, mean, scale = (np.asarray(array, dtype) for array in arrays)
        inputs = real_numbers("inputs", inputs, "biuf") if in_memory(inputs) else inputs
        if inputs.ndim != 2 or inputs.shape[1] != len(mean):
            raise InputError(f"inputs are {list(inputs.shape)}: they have to be [n, {len(mean)}]")
        scores = np.empty((len(inputs), len(bias)), dtype)
        for part, block in blocks(inputs, n_rows=block_rows(inputs)):
            with np.errstate(over="ignore", invalid="ignore"):  # the check below reports them
                rows = block.astype(dtype)
                rows = ((normalised_rows(rows) if self.normalise_rows else rows) - mean) / scale
                scores[part] = rows @ weights.T + bias
            broken = np.flatnonzero(~np.isfinite(scores[part]).all(axis=1))
            if broken.size:
                raise InputError(f"inputs, row {part.start + broken[0]}: the logits aren't finite")
        return scores

    def predict(self, inputs: Any) -> np.ndarray:
        """The class name of the largest logit, the first of equal ones, [n] text; see `logits`.

        A model of targets predicts each of them, 1 or 0, [n, T].
        """
        if self.loss == BINARY_CROSS_ENTROPY:
            return (self.logits(inputs) > 0).astype(np.int8)
        return np.array(self.class_names)[self.logits(inputs).argmax(axis=1)]

    def predict_proba(self, inputs: Any) -> np.ndarray:
        """The probability of each class, from logits / T, [n, K] float64; see `logits`."""
        return scaled_probabilities(self.logits(inputs), self.temperature, self.loss)

    def save(self, path: str | Path) -> None:
        """Writes an `.npz` or `.safetensors` file. If that fails, an earlier file stays whole.

        The details besides `weights`, `bias`, `mean` and `scale` are arrays too in a `.npz`, and
        JSON in the metadata of a `.safetensors`.
        """
        path = Path(path)
        if self.loss not in (*LOSSES.values(), BINARY_CROSS_ENTROPY):
            raise InputError(f"loss is {as_loss(self.loss).title}: a file can't hold it")
        arrays: dict[str, Any] = self.params._asdict() | self.standardiser._asdict()
        details = {name: getattr(self, name) for name in _DETAILS}
        details["loss"] = as_loss(self.loss).name
        if path.suffix == ".npz":
            np.savez(buffer := io.BytesIO(), **arrays, **details)
            content = buffer.getvalue()
        elif path.suffix == ".safetensors":
            # The details are one string, because the package writes several in any order.
            content = safetensors.numpy.save(arrays, {_METADATA: json.dumps(details)})
        else:
            raise InputError(f"{path} has to end in .npz or .safetensors")
        partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except OSError as error:
            raise InputError(f"cannot write {path}: {reason(error)}") from error
        finally:
            if partial.is_file():
                partial.unlink()

    @classmethod
    def load(cls, path: str | Path) -> "Classifier":
        """Reads a file that `save` wrote, bit for bit, else `DataError`; it executes nothing."""
        path = Path(path)
        details: dict[str, Any] = {"feature_names": ()}  # older files have none
        try:
            if path.suffix == ".npz":
                with zipfile.ZipFile(path) as archive:
                    names = {name.removesuffix(".npy") for name in archive.namelist()}
                    names &= {*_ARRAYS, *_DETAILS}
                    members = {name: npz_array(archive, name) for name in names}
                details |= {name: members[name].tolist() for name in _DETAILS if name in members}
            else:
                with safetensors.safe_open(path, "numpy") as file:
                    members = {name: file.get_tensor(name) for name in _ARRAYS}
                    details |= json.loads((file.metadata() or {}).get(_METADATA, "{}"))
            if missing := {*_ARRAYS, *_DETAILS} - {*members, *details}:
                raise DataError(f"it has no {', '.join(sorted(missing))}")
            weights, bias, mean, scale = (members[name] for name in _ARRAYS)
            details = {name: details[name] for name in _DETAILS}
            return cls(Params(weights, bias), Standardiser(mean, scale), **details)
        except FileNotFoundError as error:
            raise DataError(f"there is no {path}") from error
        except Exception as error:  # a damaged file makes the readers raise any of a dozen types
            raise DataError(f"{path} cannot be read as a classifier: {reason(error)}") from error


def _floats(name: str, array: Any) -> np.ndarray:
    """A finite array of float32 or float64; contiguous, because safetensors ignores strides."""
    Setting("").check(name, array)
    array = np.asarray(array)
    return np.ascontiguousarray(array, None if array.dtype == np.float32 else np.float64)
