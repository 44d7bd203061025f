"""What a classifier is worth, and what keeps it: against scikit-learn and plain NumPy."""

import json
import math
import warnings

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import assert_close
from scipy import optimize, special, stats
from sklearn import metrics

from linear_cifar import plots
from linear_cifar.calibration import fit_temperature, reliability, scaled_probabilities
from linear_cifar.data import normalised_rows
from linear_cifar.data.errors import DataError
from linear_cifar.data.on_disk import OnDisk
from linear_cifar.data.types import Standardiser
from linear_cifar.evaluation import confusion_matrix, evaluate, ground_truth_probabilities
from linear_cifar.losses import LOSSES, MULTIPLE_BINARY_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY
from linear_cifar.model import Params, init_params
from linear_cifar.models import Model, read_model, write_model
from linear_cifar.quality import (
    balanced_accuracy,
    class_quality,
    confusion_counts,
    row_shares,
    top_k_accuracy,
)
from linear_cifar.records import RecordError
from linear_cifar.settings import SettingsError
from linear_cifar.statistics import share_interval
from linear_cifar.subsets import few_shot, stratified_subset

RNG = np.random.default_rng(0)
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_size = pytest.mark.parametrize("n_classes", [2, 7, 1000])
each_format = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])


def examples(n_classes, n=3000, size=2.0):
    """Logits, and labels that are drawn by their softmax: calibrated at T = 1."""
    rng = np.random.default_rng(n_classes)
    logits = size * rng.normal(size=(n, n_classes))
    labels = (special.softmax(logits, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits, np.minimum(labels, n_classes - 1)


def binary_examples(n=4000, n_classes=3):
    """Logits, and labels that σ gives among examples with exactly one positive class."""
    rng = np.random.default_rng(5)
    logits = 2 * rng.normal(size=(30 * n, n_classes))
    of_class = rng.random(logits.shape) < special.expit(logits)
    one = of_class.sum(axis=1) == 1
    return logits[one][:n], of_class[one][:n].argmax(axis=1)


# Figures of a split.


@each_size
def test_figures_by_class_are_scikit_learn_s(n_classes):
    logits, labels = examples(n_classes)
    predicted = logits.argmax(axis=1)
    counts = confusion_counts(logits, labels)
    every = {"labels": range(n_classes)}
    expected = metrics.confusion_matrix(labels, predicted, **every)
    assert np.array_equal(counts, expected)
    quality = class_quality(counts)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, zero_division=np.nan, **every
    )
    assert_close(quality.precision, precision)
    assert_close(quality.accuracy, recall)
    assert_close(quality.f1, f1)
    assert np.array_equal(quality.support, support)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted but don't occur
        expected = metrics.balanced_accuracy_score(labels, predicted)
    assert_close(balanced_accuracy(counts), expected)
    assert_close(
        row_shares(counts)[support > 0],
        metrics.confusion_matrix(labels, predicted, normalize="true", **every)[support > 0],
    )
    assert np.isnan(row_shares(counts)[support == 0]).all()


@each_size
def test_top_k_accuracy_is_scikit_learn_s_with_wilson_s_interval(n_classes):
    logits, labels = examples(n_classes)
    for k in (1, 2, 5):
        if k >= n_classes:
            continue
        found = top_k_accuracy(logits, labels, k)
        scores = logits[:, 1] - logits[:, 0] if n_classes == 2 else logits
        expected = metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(n_classes))
        assert_close(found.estimate, expected)
    found = top_k_accuracy(logits, labels)
    right = int((logits.argmax(axis=1) == labels).sum())
    expected = stats.binomtest(right, 3000).proportion_ci(0.95, "wilson")
    assert found == pytest.approx((right / 3000, expected.low, expected.high, 3000))
    all_of_them = top_k_accuracy(logits, labels, n_classes)
    assert all_of_them.low < all_of_them.estimate == all_of_them.high == 1


def test_of_equal_logits_the_first_counts_as_the_larger():
    logits = np.zeros((4, 4))
    labels = np.arange(4)
    assert [top_k_accuracy(logits, labels, k).estimate for k in (1, 2, 3)] == [0.25, 0.5, 0.75]
    assert confusion_counts(logits, labels)[:, 0].tolist() == [1, 1, 1, 1]


def test_intervals_of_classes_are_wilson_s_and_have_a_width_where_all_are_right():
    quality = class_quality([[10, 0, 0], [3, 7, 0], [0, 0, 0]])
    for k, right in enumerate((10, 7)):
        expected = stats.binomtest(right, 10).proportion_ci(0.95, "wilson")
        assert_close([quality.low[k], quality.high[k]], expected)
    for values in quality[1:]:
        assert math.isnan(values[2])
    assert quality.support[2] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_makes_every_figure_nan(value):
    logits, labels = examples(3, 50)
    logits[7, 1] = value
    assert math.isnan(top_k_accuracy(logits, labels, 2).estimate)
    counts = confusion_counts(logits, labels)
    assert np.isnan(counts).all()
    assert math.isnan(balanced_accuracy(counts))
    assert all(np.isnan(values).all() for values in class_quality(counts))
    assert np.isnan(row_shares(counts)).all()


def test_no_examples_and_one_example():
    logits, labels = np.zeros((0, 3)), np.zeros(0, int)
    assert all(math.isnan(value) for value in top_k_accuracy(logits, labels)[:3])
    counts = confusion_counts(logits, labels)
    assert counts.tolist() == np.zeros((3, 3)).tolist()
    assert math.isnan(balanced_accuracy(counts))
    assert np.isnan(class_quality(counts).accuracy).all()
    nothing = reliability(logits, labels)
    assert nothing.n.sum() == 0
    assert math.isnan(nothing.error)
    one = top_k_accuracy([[1.0, 0.0]], np.array([0]))
    assert one == pytest.approx((1, 0.2065, 1, 1), rel=1e-3)


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [
        (np.zeros((2, 3)), np.array([0, 3]), "true labels have to be from 0 to 2: that of row 1"),
        (np.zeros((2, 3)), np.array([-1, 0]), "true labels have to be from 0 to 2: that of row 0"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), "true labels are float64"),
        (np.zeros((2, 3)), np.array([0]), r"true labels have to be an array \[2\]"),
        (np.zeros(3), np.array([0]), r"scores have to be \[n, K\]"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(logits, labels, says):
    for function in (top_k_accuracy, confusion_counts, reliability, fit_temperature):
        with pytest.raises(DataError, match=says):
            function(logits, labels)
    with pytest.raises(SettingsError, match=r"k is 4: it has to be from 1 to 3"):
        top_k_accuracy(np.zeros((1, 3)), np.array([0]), 4)


# Calibration.


def expected_calibration_error(probabilities, labels, n_bins):
    """Example by example, as the paper has it: bin m is ((m − 1)/M, m/M]."""
    by_bin = {}
    for p, label in zip(probabilities, labels, strict=True):
        m = max(math.ceil(max(p) * n_bins), 1)
        by_bin.setdefault(m, []).append((max(p), float(np.argmax(p) == label)))
    return sum(
        abs(np.mean([right for _, right in own]) - np.mean([sure for sure, _ in own])) * len(own)
        for own in by_bin.values()
    ) / len(labels)


@each_size
@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_the_calibration_error_is_the_paper_s(n_classes, n_bins):
    logits, labels = examples(n_classes, 500)
    probabilities = scaled_probabilities(logits, temperature=0.5)
    found = reliability(probabilities, labels, n_bins)
    assert_close(found.error, expected_calibration_error(probabilities, labels, n_bins))
    assert found.n.sum() == 500
    assert len(found.edges) == n_bins + 1
    filled = found.n > 0
    assert np.array_equal(np.isfinite(found.confidence), filled)
    assert np.array_equal(np.isfinite(found.accuracy), filled)
    assert (found.confidence[filled] >= found.edges[:-1][filled]).all()
    assert (found.confidence[filled] <= found.edges[1:][filled]).all()


def test_a_bin_is_closed_above_and_the_first_one_below_too():
    probabilities = np.array([[0.0, 0.0], [0.5, 0.5], [0.25, 0.1], [1.0, 0.0]])
    assert reliability(probabilities, np.zeros(4, int), 4).n.tolist() == [2, 1, 0, 1]


def test_calibrated_probabilities_have_little_error_and_scaled_ones_much():
    logits, labels = examples(10, 20_000)
    assert reliability(scaled_probabilities(logits), labels).error < 0.015
    assert reliability(scaled_probabilities(3 * logits), labels).error > 0.1


def test_probabilities_that_are_none_are_refused_and_nan_stays():
    probabilities = np.full((4, 2), 0.5)
    probabilities[2, 0] = np.nan
    found = reliability(probabilities, np.zeros(4, int))
    assert math.isnan(found.error)
    assert np.isnan(found.accuracy).all()
    assert found.n.sum() == 0
    for value in (-0.1, 1.1):
        with pytest.raises(SettingsError, match="probabilities have to be from 0 to 1"):
            reliability(np.full((4, 2), value), np.zeros(4, int))
    with pytest.raises(SettingsError, match="n_bins is 0: it has to be from 1 to 1000000"):
        reliability(np.full((4, 2), 0.5), np.zeros(4, int), 0)


def mean_loss(logits, labels, loss):
    if loss.name == "softmax":
        own = special.log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
        return -own.mean()
    signs = np.where(np.eye(logits.shape[1])[labels] > 0, 1, -1)
    return -special.log_expit(signs * logits).mean()


@each_loss
@each_size
def test_the_temperature_is_the_best_of_a_fine_grid_and_of_another_method(loss, n_classes):
    logits, labels = examples(n_classes, 400)
    found = fit_temperature(logits, labels, loss)
    losses = [mean_loss(logits / t, labels, loss) for t in found * 1.1 ** np.linspace(-1, 1, 21)]
    assert np.argmin(losses) == 10

    def of_inverse(inverse):
        return mean_loss(inverse * logits, labels, loss)

    inverse = optimize.minimize_scalar(of_inverse, (0.5 / found, 1.4 / found)).x
    assert found == pytest.approx(1 / inverse, rel=1e-5)


def test_a_planted_temperature_is_found():
    logits, labels = examples(10, 20_000)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.03)
    assert fit_temperature(3 * logits, labels) == pytest.approx(
        3 * fit_temperature(logits, labels), rel=1e-10
    )


@each_loss
def test_the_temperature_follows_the_scale_of_extreme_logits(loss):
    logits, labels = binary_examples() if loss.name == "multi_bce" else examples(3)
    unit = fit_temperature(logits, labels, loss)
    for scale in (1e-6, 1e4):
        assert_close(fit_temperature(scale * logits, labels, loss) / scale, unit, factor=1e2)
    extreme = np.where(RNG.random((100, 2)) < 0.5, 1e4, -1e4)
    found = fit_temperature(extreme, extreme.argmax(axis=1) ^ (np.arange(100) < 10), loss)
    assert 1e3 < found < 1e5
    assert np.isfinite(scaled_probabilities(extreme, loss, found)).all()


@each_loss
def test_where_no_temperature_is_best_that_is_said(loss):
    logits, labels = np.array([[1.0, -1], [-1, 1]]), np.array([0, 1])
    with pytest.raises(SettingsError, match="as it goes to 0, for the logits separate"):
        fit_temperature(logits, labels, loss)
    with pytest.raises(SettingsError, match="as it goes to infinity, for the logits are no better"):
        fit_temperature(logits, 1 - labels, loss)
    with pytest.raises(SettingsError, match="as it goes to infinity"):
        fit_temperature(0 * logits, labels, loss)
    with pytest.raises(SettingsError, match="there are no examples"):
        fit_temperature(logits[:0], labels[:0], loss)
    for value in (np.nan, np.inf):
        with pytest.raises(SettingsError, match="a logit is not finite"):
            fit_temperature(np.full((2, 2), value), labels, loss)


@each_loss
@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_separable_or_equal_logits_of_many_classes_have_none_either(loss, n_classes):
    rng = np.random.default_rng(n_classes)
    labels = rng.integers(0, n_classes, 300)
    logits = rng.normal(size=(300, n_classes)) - 10
    logits[np.arange(300), labels] += 20
    for scale in (1e-4, 1, 1e4):
        with pytest.raises(SettingsError, match="the logits separate"):
            fit_temperature(scale * logits, labels, loss)
    if loss.name == "softmax":
        with pytest.raises(SettingsError, match="no better than equal ones"):
            fit_temperature(np.full((300, n_classes), math.pi), labels, loss)


@each_loss
def test_probabilities_are_float64_and_nan_where_a_logit_is_not_finite(loss):
    logits = np.array([[1, 2, 3], [np.inf, 0, 0], [1e4, -1e4, 0]], np.float32)
    found = scaled_probabilities(logits, loss, 2.0)
    link = special.softmax if loss.name == "softmax" else lambda s, axis: special.expit(s)
    assert_close(found[[0, 2]], link(logits[[0, 2]].astype(float) / 2, axis=1))
    assert np.isnan(found[1]).all()
    assert found.dtype == np.float64
    with pytest.raises(SettingsError, match="temperature is 0: it has to be above 0"):
        scaled_probabilities(logits, loss, 0)


def test_the_library_s_x64_mode_does_not_matter():
    logits, labels = examples(5, 200)
    with jax.enable_x64(False):
        assert fit_temperature(logits, labels) == fit_temperature(logits, labels)
        narrow = fit_temperature(logits, labels)
        assert scaled_probabilities(logits).dtype == np.float64
    assert narrow == fit_temperature(logits, labels)


# Models on disk.


def model(loss=SOFTMAX_CROSS_ENTROPY, dtype=np.float64, **changes):
    rng = np.random.default_rng(3)
    fields = {
        "params": Params(rng.normal(size=(3, 5)).astype(dtype), rng.normal(size=3).astype(dtype)),
        "standardiser": Standardiser(rng.normal(size=5), rng.uniform(0.5, 2, 5)),
        "class_names": ("cat", "dög", "a longer name"),
        "feature_names": ("ä", *"bcde"),
        "loss": loss,
        "lam": 1 / 3,
        "normalise_rows": True,
        "temperature": math.pi,
    }
    return Model(**(fields | changes))


@each_format
@each_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_is_read_back_bit_for_bit(tmp_path, suffix, loss, dtype):
    # Rows of a larger array, columns first: not contiguous.
    params = Params(np.asfortranarray(RNG.normal(size=(3, 5)).astype(dtype)), np.ones(6)[::2])
    written = model(loss, params=params)
    path = tmp_path / f"model{suffix}"
    write_model(path, written)
    write_model(path, written)  # in the place of another
    read = read_model(path)
    for a, b in zip(
        written.params + written.standardiser, read.params + read.standardiser, strict=True
    ):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    for name in ("class_names", "feature_names", "loss", "lam", "normalise_rows", "temperature"):
        assert getattr(read, name) == getattr(written, name)
        assert type(getattr(read, name)) is type(getattr(written, name))
    inputs = RNG.normal(size=(7, 5))
    assert np.array_equal(read.logits(inputs), written.logits(inputs))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_both_formats_are_open_to_others(tmp_path):
    written = model()
    write_model(tmp_path / "m.npz", written)
    write_model(tmp_path / "m.safetensors", written)
    with np.load(tmp_path / "m.npz") as file:
        assert file["class_names"].tolist() == list(written.class_names)
        assert file["class_names"].dtype.kind == "U"
    tensors = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert sorted(tensors) == ["bias", "mean", "scale", "weights"]
    with safetensors.safe_open(tmp_path / "m.safetensors", "numpy") as file:
        details = json.loads(file.metadata()["linear_cifar"])
        assert details["class_names"] == list(written.class_names)


@each_loss
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_takes_inputs_as_they_are_stored(loss, normalise, dtype):
    fitted = model(loss, normalise_rows=normalise)
    stored = np.random.default_rng(1).uniform(0, 6, (9, 5)).astype(np.float16)
    stored[4] = 0
    rows = stored.astype(float)
    if normalise:
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    mean, scale = fitted.standardiser
    expected = (rows - mean) / scale @ fitted.params.weights.T + fitted.params.bias
    found = fitted.logits(stored, dtype)
    assert found.dtype == dtype
    assert_close(found, expected, factor=10)
    assert np.array_equal(fitted.predict(stored, dtype), expected.argmax(axis=1))
    assert_close(
        fitted.probabilities(stored), scaled_probabilities(expected, loss, math.pi), factor=10
    )
    on_disk = OnDisk(lambda start, stop: stored[start:stop].copy(), stored.shape, stored.dtype)
    assert np.array_equal(fitted.logits(on_disk, dtype), found)
    assert fitted.logits(stored[:0]).shape == (0, 3)
    assert fitted.probabilities(stored[:0]).shape == (0, 3)
    with pytest.raises(SettingsError, match=r"inputs have to be an array \[n, 5\], not \(9, 4\)"):
        fitted.logits(stored[:, :4])


@each_loss
def test_a_model_on_the_host_is_what_evaluation_measures(small, loss):
    params = init_params(jax.random.key(0), small.n_features, 10, dtype=np.float64)
    of_host = Params(*map(np.asarray, params))
    standardiser = Standardiser(*map(np.asarray, small.standardiser))
    logits = Model(of_host, standardiser, small.class_names, loss, 0.1).logits(small.test.inputs)
    labels = small.test.labels
    measured = evaluate(params, small.test, small.standardiser, 0.1, loss)
    assert_close(top_k_accuracy(logits, labels).estimate, measured.accuracy)
    counts = confusion_matrix(params, small.test, small.standardiser)
    assert np.array_equal(confusion_counts(logits, labels), counts)
    p, _ = ground_truth_probabilities(params, small.test, small.standardiser, loss)
    assert_close(scaled_probabilities(logits, loss)[np.arange(len(labels)), labels], p)


def test_long_and_short_rows_are_normalised_too():
    rows = np.array([[3e200, 4e200], [3e-200, 4e-200], [0, 0]])
    assert_close(normalised_rows(rows), [[0.6, 0.8], [0.6, 0.8], [0, 0]])
    assert np.isnan(normalised_rows(np.array([[np.nan, 1.0]]))).any()


def test_a_model_of_before_there_were_feature_names_is_read(tmp_path):
    written_with(tmp_path / "m.npz", "feature_names", None)
    assert read_model(tmp_path / "m.npz").feature_names == ()


def test_an_interval_is_that_of_any_kind_of_number():
    of_float = share_interval(0.5, 60000.0)
    for n in (60000, np.int32(60000), np.uint16(60000)):
        assert np.array_equal(share_interval(0.5, n), of_float)


FAULTS = {
    "weights": (np.full((3, 5), np.nan), "weights has to be finite"),
    "bias": (np.zeros(4), r"bias \[4\] doesn't fit weights \[3, 5\]"),
    "mean": (np.zeros(5, int), "mean has to be a numpy array of float32 or float64, not int64"),
    "scale": (np.zeros(5), "scale has to be above 0"),
    "class_names": (np.array(["a", "b"]), "there are 2 class_names for weights of 3 classes"),
    "feature_names": (np.array(["a"]), "there are 1 feature_names for weights of 5 features"),
    "loss": (np.array("hinge"), "loss is 'hinge': it has to be one of softmax, multi_bce"),
    "lam": (np.array(np.nan), "lam is nan: it has to be at least 0"),
    "normalise_rows": (np.array(1), "normalise_rows has to be True or False"),
    "temperature": (np.array(-1.0), "temperature is -1.0: it has to be above 0"),
}


def written_with(path, name, value):
    """A model with another value of one array or detail; None leaves it out."""
    source = path.with_name("source.npz")
    write_model(source, model())
    with np.load(source) as file:
        members = dict(file)
    members.pop(name)
    if value is not None:
        members[name] = value
    if path.suffix == ".npz":
        np.savez(path, **members)
        return
    arrays = {k: v for k, v in members.items() if k in ("weights", "bias", "mean", "scale")}
    details = {k: v.tolist() for k, v in members.items() if k not in arrays}
    safetensors.numpy.save_file(arrays, path, {"linear_cifar": json.dumps(details)})


@each_format
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_of_a_file_is_a_line(tmp_path, suffix, name):
    path = tmp_path / f"m{suffix}"
    value, says = FAULTS[name]
    written_with(path, name, value)
    with pytest.raises(RecordError, match=says) as fault:
        read_model(path)
    assert str(path) in str(fault.value)
    if name == "feature_names":  # models have not always had them
        return
    written_with(path, name, None)
    with pytest.raises(RecordError, match=f"it has no {name}"):
        read_model(path)


class Trap:
    """Reading it, were it unpickled, would end the test."""

    def __reduce__(self):
        return (pytest.exit, ("unpickled",))


@pytest.mark.parametrize("name", FAULTS)
def test_object_arrays_are_never_unpickled(tmp_path, name):
    path = tmp_path / "m.npz"
    written_with(path, name, np.array([Trap()], object))
    with pytest.raises(RecordError, match="cannot be read: Object arrays cannot be loaded"):
        read_model(path)


@each_format
def test_a_damaged_file_is_a_line_or_a_model(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    write_model(path, model())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for i in range(150):
        content = bytearray(whole)
        if i % 2:
            del content[rng.integers(len(whole)) :]
        else:
            content[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            read_model(path)
        except RecordError as fault:
            assert "\n" not in str(fault)
        else:
            assert not i % 2, "a truncated file was read"


@each_format
def test_files_that_are_no_models_and_places_that_take_none(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    with pytest.raises(RecordError, match="there is no"):
        read_model(path)
    for content in (b"", b"\0" * 64, b"\x93NUMPY", b"[" * 5000):
        path.write_bytes(content)
        with pytest.raises(RecordError, match="cannot be read"):
            read_model(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "m.npz")
    with pytest.raises(RecordError, match="a single array"):
        read_model(tmp_path / "m.npz")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    for act in (lambda p: write_model(p, model()), read_model):
        with pytest.raises(RecordError):
            act(folder)
    for nowhere in (tmp_path / "none" / path.name, path / path.name):
        with pytest.raises(RecordError, match="cannot write"):
            write_model(nowhere, model())
    with pytest.raises(RecordError, match=r"has to end in .npz or .safetensors"):
        write_model(tmp_path / "m.pkl", model())
    assert {p.name for p in tmp_path.iterdir()} <= {"m.npz", path.name, folder.name}


def test_safetensors_of_other_kinds_are_a_line(tmp_path):
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file({"weights": np.zeros((2, 2))}, path)
    with pytest.raises(RecordError, match="it has no bias"):
        read_model(path)
    header = json.dumps({"weights": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\0\0")
    with pytest.raises(RecordError):
        read_model(path)


# Subsets for learning curves.


@pytest.mark.parametrize("n", [10, 11, 57, 100, 999, 1000])
def test_a_stratified_subset_has_every_class_in_its_share(n):
    labels = np.repeat(np.arange(10), [1, 2, 3, 4, 40, 50, 100, 200, 300, 300])
    labels = RNG.permutation(labels)
    rows = stratified_subset(jax.random.key(n), labels, n)
    assert len(np.unique(rows)) == n
    assert (np.diff(rows) > 0).all()
    counts, share = np.bincount(labels[rows], minlength=10), n * np.bincount(labels) / 1000
    assert counts.min() >= 1
    assert (counts <= np.bincount(labels)).all()
    # Rare classes get more than their share at the expense of the others, in proportion.
    common = share >= 1
    paid = n - np.sum(~common)
    own = paid * share[common] / share[common].sum()
    assert (np.abs(counts[common] - own) < 1 + 1e-9).all() or n < 57


def test_classes_that_occur_alike_differ_by_one_and_by_chance():
    labels = np.arange(1000) % 10
    draws = [
        np.bincount(labels[stratified_subset(jax.random.fold_in(jax.random.key(0), i), labels, 25)])
        for i in range(40)
    ]
    assert {value for draw in draws for value in draw} == {2, 3}
    assert all(draw.sum() == 25 for draw in draws)
    assert np.ptp(np.sum(draws, axis=0)) < 20  # were the first five favoured, it would be 40


def test_few_shots_are_as_many_of_each_class_nested_and_drawn_anew_by_key():
    labels = RNG.permutation(np.repeat(np.arange(5), 20))
    key = jax.random.key(0)
    rows = few_shot(key, labels, 4)
    assert np.bincount(labels[rows]).tolist() == [4] * 5
    assert (np.diff(rows) > 0).all()
    assert set(few_shot(key, labels, 3)) < set(rows)
    assert np.array_equal(rows, few_shot(key, labels, 4))
    assert not np.array_equal(rows, few_shot(jax.random.fold_in(key, 1), labels, 4))
    assert len(few_shot(key, labels, 20)) == 100
    drawn = [few_shot(jax.random.fold_in(key, i), labels, 5) for i in range(100)]
    often = np.bincount(np.concatenate(drawn), minlength=100)
    assert abs(often - 25).max() < 20  # each row with probability 1/4


def test_subsets_that_cannot_be_had_are_a_line():
    key, labels = jax.random.key(0), np.array([0, 0, 0, 1, 1, 3])
    with pytest.raises(SettingsError, match="of class 2 there are only 0 examples"):
        few_shot(key, labels, 1)
    with pytest.raises(SettingsError, match="per_class is 3, but of class 1 there are only 2"):
        few_shot(key, labels[:-1], 3)
    with pytest.raises(SettingsError, match="per_class is 0: it has to be at least 1"):
        few_shot(key, labels, 0)
    for n in (2, 7):
        with pytest.raises(SettingsError, match=f"is {n}: it has to be from 3 to 6"):
            stratified_subset(key, labels, n)
    for wrong in (np.zeros(0, int), np.zeros(3), np.array([-1, 0]), np.zeros((2, 2), int)):
        with pytest.raises(SettingsError, match="labels have to be class ids"):
            stratified_subset(key, wrong, 1)
        with pytest.raises(SettingsError, match="labels have to be class ids"):
            few_shot(key, wrong, 1)


def test_multiple_binary_probabilities_are_measured_too():
    logits, labels = binary_examples()
    found = reliability(scaled_probabilities(logits, MULTIPLE_BINARY_CROSS_ENTROPY), labels)
    assert 0 <= found.error <= 1
    assert found.n.sum() == len(labels)


# Figures.


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_confusion_matrix_has_numbers_and_names_where_there_is_room():
    counts = np.array([[6, 2, 0], [0, 5, 0], [0, 0, 0]])
    axes = plots.plot_confusion(counts, ("cat", "$x$ and $", "a" * 40), "title").axes[0]
    assert texts(axes) == ["75.0", "25.0", "100.0"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["cat", "$x$ and $", "a" * 23 + "…"]
    assert axes.images[0].get_array().mask[2].all()  # no examples
    large = plots.plot_confusion(np.eye(1000), [str(k) for k in range(1000)], "title")
    assert not large.axes[0].texts
    assert len(large.axes[0].get_yticklabels()) < 20
    assert max(large.get_size_inches()) <= 12


def test_a_reliability_diagram_has_both_errors_and_the_bins_with_examples():
    logits, labels = examples(10)
    before, after = (reliability(scaled_probabilities(s * logits), labels) for s in (3, 1))
    above, below = plots.plot_reliability(before, after, "title").axes
    legend = [text.get_text() for text in above.get_legend().get_texts()]
    assert legend[1:] == [
        f"{name} scaling: ECE {measured.error:.4f}"
        for name, measured in (("before", before), ("after", after))
    ]
    for line, measured in zip(above.lines[1:], (before, after), strict=True):
        assert len(line.get_xdata()) == np.sum(measured.n > 0)
    for patch in below.patches:
        assert_close(patch.get_data().values.sum(), 1)
    nothing = reliability(np.zeros((0, 2)), np.zeros(0, int))
    assert plots.plot_reliability(nothing, nothing, "title").axes


def test_a_learning_curve_has_every_draw_on_a_logarithmic_axis():
    draws = np.array([[0.1, 0.2], [0.3, np.nan]])
    mean = np.array([0.15, 0.3])
    half = np.array([0.1, np.nan])
    curve = plots.Curve(mean, mean - half, mean + half)
    axes = plots.plot_learning_curve(np.array([10, 1000]), curve, draws, "title").axes[0]
    assert axes.get_xscale() == "log"
    assert axes.lines[1].get_xdata().tolist() == [10, 10, 1000, 1000]
    assert np.array_equal(axes.lines[1].get_ydata(), draws.ravel(), equal_nan=True)


@pytest.mark.parametrize("n_classes", [2, 30, 31, 1000])
def test_classes_are_drawn_in_order_of_accuracy_the_ends_of_many(n_classes):
    rng = np.random.default_rng(0)
    right = rng.permutation(n_classes)
    counts = np.diag(right + 1.0)
    counts[:, 0] += n_classes - right
    quality = class_quality(counts)
    names = [f"class {k}" for k in range(n_classes)]
    axes = plots.plot_per_class(quality, names, "title").axes[0]
    drawn = [label.get_text() for label in axes.get_yticklabels()]
    order = [names[k] for k in np.argsort(quality.accuracy, kind="stable")]
    if n_classes <= 30:
        assert drawn == order
        assert not axes.texts
    else:
        assert drawn == order[:15] + order[-15:]
        assert texts(axes) == [f"… {n_classes - 30} classes between …"]
    assert len(axes.patches) == len(drawn)


def test_classes_without_examples_are_not_drawn():
    axes = plots.plot_per_class(class_quality([[1, 1], [0, 0]]), ["a", "b"], "title").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a"]
    nothing = class_quality(np.full((2, 2), np.nan))
    assert not plots.plot_per_class(nothing, ["a", "b"], "title").axes[0].patches
