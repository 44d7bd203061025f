"""A model applied to further features."""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from experiments.common import folder
from experiments.common.progress import Stopwatch, print_table
from linear_cifar import BINARY_CROSS_ENTROPY, Classifier, InputError
from linear_cifar.data import LazyRows, blocks, load_inputs
from linear_cifar.metrics import scaled_probabilities

FLAGS = flags.FLAGS
TABLE = "predictions.csv"
# Flags that --model allows; the others would be ignored.
WITH_MODEL = (
    *("model", "predict", "inputs_name", "labels_name"),
    *("output_dir", "overwrite"),
)


def define_flags() -> None:
    """Defines the flags of predictions."""
    flags.DEFINE_string(
        "predict",
        None,
        f"File of further features, with or without labels, to predict into {TABLE}.",
    )
    flags.DEFINE_string(
        "model",
        None,
        "Model that a probe left (.npz or .safetensors), to --predict with; nothing is fitted.",
    )


def load_further(n_features: int, names: Sequence[str]) -> LazyRows | None:
    """The features that --predict names, [n, d]; None without the flag.

    The model has `n_features`, whose names are `names` if they are known.
    """
    if FLAGS.predict is None:
        return None
    inputs = load_inputs(FLAGS.predict, FLAGS.inputs_name, FLAGS.labels_name, names)
    if inputs.shape[1] != n_features:
        raise InputError(
            f"--predict={FLAGS.predict} has {inputs.shape[1]} features, and the model {n_features}"
        )
    return inputs


def predict_with_model() -> int:
    """Predicts with the model of an earlier run; returns the exit code."""
    if FLAGS.predict is None:
        raise InputError("--model needs --predict, the file of features to predict")
    for flag in FLAGS.get_key_flags_for_module(sys.argv[0]):
        if flag.present and flag.name not in WITH_MODEL:
            raise InputError(f"--{flag.name} can't be used with --model, which fits nothing")
    if FLAGS.output_dir and Path(FLAGS.output_dir).resolve() in Path(FLAGS.model).resolve().parents:
        raise InputError("--output_dir holds --model: choose another folder")
    if Path(FLAGS.model).is_dir():
        raise InputError(f"--model={FLAGS.model} is a folder: name the model.npz in it")
    model = Classifier.load(FLAGS.model)
    inputs = load_further(model.params.weights.shape[1], model.feature_names)
    assert inputs is not None
    with folder.new_run("probe") as (path, target):
        write_predictions(path, model, inputs)
        content = {"model": FLAGS.model, "predict": FLAGS.predict, "n": len(inputs)}
        folder.write_result(path, "probe", None, Stopwatch(), **content)
    print_table([("predicted", f"{len(inputs)} examples"), ("written to", target / TABLE)])
    return 0


def write_predictions(path: Path, model: Classifier, inputs: LazyRows) -> None:
    """Writes a row per example: its number, its class, and the probability of each class.

    For a model of targets it is the number and the probability of each target.
    """
    has_classes = model.loss != BINARY_CROSS_ENTROPY
    with folder.replacing(path / TABLE) as partial, partial.open("w", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = (f"p_{name}" for name in model.class_names)
        writer.writerow(["row", *(["class"] if has_classes else []), *names])
        writer.writerows(_rows(model, inputs))


def _rows(model: Classifier, inputs: LazyRows) -> Iterator[tuple]:
    for part, block in blocks(inputs):
        try:
            scores = model.logits(block)
        except InputError as error:
            raise InputError(f"{FLAGS.predict}, from row {part.start} on: {error}") from error
        probabilities = scaled_probabilities(scores, model.temperature, model.loss)
        # The class of the largest logit, because rounding may make probabilities equal.
        classes = scores.argmax(axis=1)
        for i, (row, k) in enumerate(zip(probabilities, classes, strict=True), part.start):
            name = [model.class_names[k]] if model.loss != BINARY_CROSS_ENTROPY else []
            yield (i, *name, *np.round(row, 7))
