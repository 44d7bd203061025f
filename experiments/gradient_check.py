"""Hand-derived gradients against central differences and jax.grad, every coefficient, in float64.

python -m experiments.gradient_check

A case is a loss, a λ and a number of training examples. Training can take several batches in one
step, so the parameters after such steps are also compared with the parameters after single steps by
the checked gradient. The exit code is 1 if the largest relative error of a case exceeds 1e-6
against the differences, 1e-10 against jax.grad, or 1e-8 between the steps.
"""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags as absl_flags

from experiments.common import cli, flags, folder
from experiments.common.data import data_title, load_data
from experiments.common.progress import Stopwatch, progress
from linear_cifar import (
    LOSSES,
    Dataset,
    Hyperparameters,
    Loss,
    Params,
    Split,
    TrainConfig,
    autodiff_gradient,
    cost_gradient,
    init_params,
    numerical_gradient,
    relative_error,
)
from linear_cifar.training import BATCHES_PER_BLOCK, TrainState, epoch_step

FLAGS = absl_flags.FLAGS
LAMS, N_EXAMPLES = (0.0, 0.1), (1, 20, 100)
NUMERICAL_TOLERANCE, AUTODIFF_TOLERANCE, STEPS_TOLERANCE = 1e-6, 1e-10, 1e-8
_numerical_gradient = jax.jit(numerical_gradient, static_argnames="loss")


def define_flags() -> None:
    """Defines the command's flags."""
    flags.define()


def main(argv: list[str]) -> int:
    """Checks every case, writes the record, and fails if a case does."""
    del argv
    import pandas as pd

    jax.config.update("jax_enable_x64", True)
    watch = Stopwatch()
    cases = list(itertools.product(LOSSES.values(), LAMS, N_EXAMPLES))
    with folder.new_run("gradient_check") as (path, target):
        with watch.phase("load"):
            dataset = load_data()
        with watch.phase("evaluate"):
            checks = (_check(dataset, *case) for case in cases)
            shown = progress(checks, len(cases), "{loss}, λ={lam}, n={n_examples}".format_map)
            gradients = pd.DataFrame(list(shown))
            others = itertools.product(LOSSES, LAMS)
            steps = pd.DataFrame([_check_steps(dataset, *case) for case in others])
        content: dict[str, Any] = {"passed": bool(gradients.passed.all() and steps.passed.all())}
        for name, table in (("cases", gradients), ("steps", steps)):
            folder.write_table(path / f"{name}.csv", table)
            content[name] = table.to_dict("records")
        folder.write_result(path, "gradient_check", dataset, watch, seed=FLAGS.seed, **content)
    for table in (gradients, steps):
        print(table.to_string(index=False, float_format="{:.3g}".format), end="\n\n")
    print(f"{'all cases pass' if content['passed'] else 'FAILED'}; {data_title(dataset)}; {target}")
    return 0 if content["passed"] else 1


def _check(dataset: Dataset, loss: Loss, lam: float, n: int) -> dict[str, Any]:
    """The largest relative errors of one case, over all weights and biases."""
    inputs = dataset.standardiser(jnp.asarray(dataset.train.inputs[:n]), jnp.float64)
    case = (_initial_params(dataset), inputs, jnp.asarray(dataset.train.labels[:n]), lam)
    by_hand = cost_gradient(*case, loss)
    numerical = float(relative_error(by_hand, _numerical_gradient(*case, loss)))
    by_autodiff = float(relative_error(by_hand, autodiff_gradient(*case, loss)))
    return {
        **{"loss": loss.name, "lam": lam, "n_examples": n},
        **{"numerical_error": numerical, "autodiff_error": by_autodiff},
        # A comparison with NaN is false, so a NaN fails.
        "passed": numerical <= NUMERICAL_TOLERANCE and by_autodiff <= AUTODIFF_TOLERANCE,
    }


def _check_steps(dataset: Dataset, loss: str, lam: float) -> dict[str, Any]:
    """Compares several steps at once, as training takes them, with single steps.

    The error compares the sums of the gradients, which is how far the parameters moved.
    """
    config = TrainConfig(loss=LOSSES[loss], dtype=jnp.float64)
    n = BATCHES_PER_BLOCK * config.batch_size
    block = Split(*(jnp.asarray(array[:n]) for array in dataset.train))
    moves = _moves(_initial_params(dataset), lam, replace(dataset, train=block), config)
    error = float(relative_error(*moves))
    return {
        **{"loss": loss, "lam": lam, "n_steps": BATCHES_PER_BLOCK, "batch_size": config.batch_size},
        **{"steps_error": error, "passed": error <= STEPS_TOLERANCE},
    }


@partial(jax.jit, static_argnames="config")
def _moves(params: Params, lam: float, dataset: Dataset, config: TrainConfig) -> list[Params]:
    """How far the parameters move, over −η: with all steps at once, and one by one."""
    run = Hyperparameters(lam, 0.01)
    state = TrainState(params, config.optimizer(run, 1).init(params))
    ends = [epoch_step(state, run, dataset, config, fused=fused) for fused in (True, False)]
    return [
        jax.tree.map(lambda a, b: (a - b) / run.learning_rate, params, end.params) for end in ends
    ]


def _initial_params(dataset: Dataset) -> Params:
    key = jax.random.key(FLAGS.seed)
    return init_params(key, dataset.n_features, dataset.n_classes, dtype=jnp.float64)


if __name__ == "__main__":
    cli.launch(main, define_flags)
