"""A model applied to further features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.common import records
from experiments.common.output import output_folder
from experiments.common.progress import print_table
from linear_cifar.classifier import Classifier
from linear_cifar.data import LazyRows, blocks, load_inputs
from linear_cifar.errors import InputError
from linear_cifar.metrics import scaled_probabilities

FLAGS = flags.FLAGS
TABLE = "predictions.csv"


def define_flags() -> None:
    """Defines the flags of predictions."""
    flags.DEFINE_string(
        "predict",
        None,
        f"File of further features, with or without labels, to predict: {TABLE} has a row each.",
    )
    flags.DEFINE_string(
        "model",
        None,
        "Model that a probe left (.npz or .safetensors), to --predict with; nothing is fitted.",
    )


def further(n_features: int, names: Sequence[str]) -> LazyRows | None:
    """The features that --predict names, [n, d]; None where it isn't given.

    Args:
      n_features: that they have to have.
      names: of these, where they are known.

    Raises:
      InputError: they have another number of features.
      DataError: they can't be read.
    """
    if FLAGS.predict is None:
        return None
    inputs = load_inputs(FLAGS.predict, FLAGS.inputs_name, FLAGS.labels_name, names)
    if inputs.shape[1] != n_features:
        raise InputError(
            f"--predict={FLAGS.predict} has {inputs.shape[1]} features, and the model {n_features}"
        )
    return inputs


def with_model() -> int:
    """Predicts with the model of an earlier run."""
    if FLAGS.predict is None or FLAGS.features is not None:
        raise InputError("--model goes with --predict, and without --features")
    model = Classifier.load(FLAGS.model)
    inputs = further(model.params.weights.shape[1], model.feature_names)
    assert inputs is not None
    with output_folder("predictions") as (folder, target):
        write(folder, model, inputs)
        records.write_json(
            folder / records.RESULT,
            {"model": FLAGS.model, "features": FLAGS.predict, "n": len(inputs)},
        )
    print_table([("predicted", f"{len(inputs)} examples"), ("written to", target / TABLE)])
    return 0


def write(folder: Path, model: Classifier, inputs: LazyRows) -> None:
    """Writes a row an example: its number, its class, and the probability of each class."""
    names = model.class_names

    def rows() -> Any:
        for part, block in blocks(inputs):
            try:
                scores = model.logits(block)
            except InputError as error:
                raise InputError(f"{FLAGS.predict}, from row {part.start} on: {error}") from error
            p = scaled_probabilities(scores, model.temperature, model.loss)
            # The largest logit's class, because rounding may make probabilities equal.
            classes = scores.argmax(axis=1)
            for i, (of_row, best) in enumerate(zip(p, classes, strict=True), part.start):
                yield (i, names[best], *np.round(of_row, 7))

    header = ("row", "class", *(f"p_{name}" for name in names))
    records.write_csv(folder / TABLE, header, rows())
