"""Hand-derived gradients against central differences and jax.grad, every coefficient, in float64.

python -m experiments.gradient_check

Each case is a loss, a λ and a number of training examples. The exit code is 1 if the largest
relative error of a case is above 1e-6 against the differences, or above 1e-10 against jax.grad.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags as absl_flags

from experiments import flags, runner
from linear_cifar import records
from linear_cifar.datasets import Dataset
from linear_cifar.gradient_check import numerical_gradient, relative_error
from linear_cifar.losses import LOSSES, Loss
from linear_cifar.model import init_params
from linear_cifar.objective import cost_gradient
from linear_cifar.training import autodiff

FLAGS = absl_flags.FLAGS
LAMS, N_EXAMPLES = (0.0, 0.1), (1, 20, 100)
NUMERICAL_TOLERANCE, AUTODIFF_TOLERANCE = 1e-6, 1e-10
_numerical_gradient = jax.jit(numerical_gradient, static_argnames="loss")
COLUMNS = ("loss", "lam", "n_examples", "numerical_error", "autodiff_error", "passed")


def main(argv: list[str]) -> int:
    """Checks every case, writes the record, and fails if a case does."""
    del argv
    jax.config.update("jax_enable_x64", True)
    watch = runner.Stopwatch()
    cases = list(itertools.product(LOSSES.values(), LAMS, N_EXAMPLES))
    with runner.output_folder("gradient_check") as (folder, target):
        with watch.phase("load"):
            dataset = runner.load_data()
        with watch.phase("evaluate"):
            checks = (_check(dataset, *case) for case in cases)
            rows = list(runner.progress(checks, len(cases), _describe))
        passed = all(row["passed"] for row in rows)
        records.write_csv(folder / "cases.csv", COLUMNS, (row.values() for row in rows))
        result = {
            **runner.describe_source("gradient_check", dataset),
            "seed": FLAGS.seed,
            "cases": rows,
            "passed": passed,
            "seconds": watch.seconds,
        }
        records.write_json(folder / records.RESULT, result)
    print(_table(rows))
    print(f"{'all cases pass' if passed else 'FAILED'}; {runner.data_title(dataset)}; {target}")
    return 0 if passed else 1


def _check(dataset: Dataset, loss: Loss, lam: float, n: int) -> dict[str, Any]:
    """The largest relative errors of one case, over all weights and biases."""
    key = jax.random.key(FLAGS.seed)
    params = init_params(key, dataset.n_features, dataset.n_classes, dtype=jnp.float64)
    inputs = dataset.standardiser(jnp.asarray(dataset.train.inputs[:n]), jnp.float64)
    case = (params, inputs, jnp.asarray(dataset.train.labels[:n]), lam)
    by_hand = cost_gradient(*case, loss)
    numerical = relative_error(by_hand, _numerical_gradient(*case, loss))
    by_autodiff = relative_error(by_hand, autodiff(*case, loss))
    # A comparison with NaN is false, so a NaN fails.
    passed = bool(numerical <= NUMERICAL_TOLERANCE) and bool(by_autodiff <= AUTODIFF_TOLERANCE)
    errors = (float(numerical), float(by_autodiff))
    return dict(zip(COLUMNS, (loss.name, lam, n, *errors, passed), strict=True))


def _describe(row: dict[str, Any]) -> str:
    return f"{row['loss']}, λ={row['lam']:g}, n={row['n_examples']}: {row['numerical_error']:.1e}"


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'loss':<10}{'λ':>5}{'examples':>10}{'differences':>13}{'jax.grad':>11}"]
    for row in rows:
        lines.append(
            f"{row['loss']:<10}{row['lam']:>5g}{row['n_examples']:>10}"
            f"{row['numerical_error']:>13.1e}{row['autodiff_error']:>11.1e}"
            + ("" if row["passed"] else "  FAILED")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    flags.define()
    runner.launch(main)
