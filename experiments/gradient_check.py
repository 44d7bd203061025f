"""Hand-derived gradients against central differences and jax.grad, every coefficient, in float64.

python -m experiments.gradient_check

Each case is a loss, a λ and a number of training examples. Training takes several batches at once
where it can: its parameters after those steps are compared with the parameters after as many steps
by the checked gradient, one batch after the other. The exit code is 1 if the largest relative error
of a case is above 1e-6 against the differences, above 1e-10 against jax.grad, or above 1e-8
between the steps, where small moves are what large parameters leave of each other.
"""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags as absl_flags

from experiments.common import command, flags, records
from experiments.common.data import data_title, load_data
from experiments.common.output import output_folder, write_result
from experiments.common.progress import Stopwatch, progress
from linear_cifar.data import Dataset, Split
from linear_cifar.gradient_check import numerical_gradient, relative_error
from linear_cifar.losses import LOSSES, Loss
from linear_cifar.model import Params, init_params
from linear_cifar.objective import autodiff_gradient, cost_gradient
from linear_cifar.optimizers import Hyperparameters
from linear_cifar.training import BATCHES_PER_BLOCK, TrainConfig, TrainState, epoch_step

FLAGS = absl_flags.FLAGS
LAMS, N_EXAMPLES = (0.0, 0.1), (1, 20, 100)
NUMERICAL_TOLERANCE, AUTODIFF_TOLERANCE, STEPS_TOLERANCE = 1e-6, 1e-10, 1e-8
_numerical_gradient = jax.jit(numerical_gradient, static_argnames="loss")
COLUMNS = ("loss", "lam", "n_examples", "numerical_error", "autodiff_error", "passed")
STEP_COLUMNS = ("loss", "lam", "n_steps", "batch_size", "steps_error", "passed")


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define()


def main(argv: list[str]) -> int:
    """Checks every case, writes the record, and fails if a case does."""
    del argv
    jax.config.update("jax_enable_x64", True)
    watch = Stopwatch()
    cases = list(itertools.product(LOSSES.values(), LAMS, N_EXAMPLES))
    with output_folder("gradient_check") as (folder, target):
        with watch.phase("load"):
            dataset = load_data()
        with watch.phase("evaluate"):
            checks = (_check(dataset, *case) for case in cases)
            rows = list(progress(checks, len(cases), _describe))
            steps = [_check_steps(dataset, *case) for case in itertools.product(LOSSES, LAMS)]
        passed = all(row["passed"] for row in (*rows, *steps))
        records.write_csv(folder / "cases.csv", COLUMNS, (row.values() for row in rows))
        records.write_csv(folder / "steps.csv", STEP_COLUMNS, (row.values() for row in steps))
        content = {"seed": FLAGS.seed, "cases": rows, "steps": steps, "passed": passed}
        write_result(folder, "gradient_check", dataset, watch, **content)
    print(_table(rows, steps))
    print(f"{'all cases pass' if passed else 'FAILED'}; {data_title(dataset)}; {target}")
    return 0 if passed else 1


def _check(dataset: Dataset, loss: Loss, lam: float, n: int) -> dict[str, Any]:
    """The largest relative errors of one case, over all weights and biases."""
    params = _initial_params(dataset)
    inputs = dataset.standardiser(jnp.asarray(dataset.train.inputs[:n]), jnp.float64)
    case = (params, inputs, jnp.asarray(dataset.train.labels[:n]), lam)
    by_hand = cost_gradient(*case, loss)
    numerical = relative_error(by_hand, _numerical_gradient(*case, loss))
    by_autodiff = relative_error(by_hand, autodiff_gradient(*case, loss))
    # A comparison with NaN is false, so a NaN fails.
    passed = bool(numerical <= NUMERICAL_TOLERANCE) and bool(by_autodiff <= AUTODIFF_TOLERANCE)
    errors = (float(numerical), float(by_autodiff))
    return dict(zip(COLUMNS, (loss.name, lam, n, *errors, passed), strict=True))


def _check_steps(dataset: Dataset, loss: str, lam: float) -> dict[str, Any]:
    """How far steps taken at once are from steps by `cost_gradient`, as `baseline` takes them.

    The error is that of the gradients summed over the steps, which is what the parameters moved by.
    """
    config = TrainConfig(loss=LOSSES[loss], dtype=jnp.float64)
    n = BATCHES_PER_BLOCK * config.batch_size
    block = Split(*(jnp.asarray(array[:n]) for array in dataset.train))
    moves = _moves(_initial_params(dataset), lam, replace(dataset, train=block), config)
    error = relative_error(*moves)
    passed = bool(error <= STEPS_TOLERANCE)
    row = (loss, lam, BATCHES_PER_BLOCK, config.batch_size, float(error), passed)
    return dict(zip(STEP_COLUMNS, row, strict=True))


@partial(jax.jit, static_argnames="config")
def _moves(params: Params, lam: float, dataset: Dataset, config: TrainConfig) -> list[Params]:
    """What the parameters move by, in units of −η: with the steps at once, and one by one."""
    run = Hyperparameters(lam, 0.01)
    state = TrainState(params, config.optimizer(run, 1).init(params))
    ends = [epoch_step(state, run, dataset, config, fused=fused) for fused in (True, False)]
    return [
        jax.tree.map(lambda a, b: (a - b) / run.learning_rate, params, end.params) for end in ends
    ]


def _initial_params(dataset: Dataset) -> Params:
    key = jax.random.key(FLAGS.seed)
    return init_params(key, dataset.n_features, dataset.n_classes, dtype=jnp.float64)


def _describe(row: dict[str, Any]) -> str:
    return f"{row['loss']}, λ={row['lam']:g}, n={row['n_examples']}: {row['numerical_error']:.1e}"


def _table(rows: list[dict[str, Any]], steps: list[dict[str, Any]]) -> str:
    lines = [f"{'loss':<10}{'λ':>5}{'examples':>10}{'differences':>13}{'jax.grad':>11}"]
    for row in rows:
        lines.append(
            f"{row['loss']:<10}{row['lam']:>5g}{row['n_examples']:>10}"
            f"{row['numerical_error']:>13.1e}{row['autodiff_error']:>11.1e}"
            + ("" if row["passed"] else "  FAILED")
        )
    lines.append(f"{'loss':<10}{'λ':>5}{'steps':>10}{'at once against one by one':>28}")
    for row in steps:
        lines.append(
            f"{row['loss']:<10}{row['lam']:>5g}{row['n_steps']:>4} of{row['batch_size']:>4}"
            f"{row['steps_error']:>27.1e}" + ("" if row["passed"] else "  FAILED")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command.launch(main, define_flags)
