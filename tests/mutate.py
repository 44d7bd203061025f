"""Breaks the code in one place at a time, and lists the breaks that no test notices.

    python -m tests.mutate AREA [--sample=N] [--seed=S]

It works on a copy of the checkout, with cosmic-ray (`pip install -e '.[mutation]'`).
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
# One break per operator: the ones that a person could make.
EXCLUDED = (
    r"core/ReplaceBinaryOperator_(?!(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Pow_Mul|Mod_Mul"
    r"|BitOr_BitAnd|BitAnd_BitOr)$)",
    r"core/ReplaceComparisonOperator_(?!(Eq_NotEq|NotEq_Eq|Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Is_IsNot"
    r"|IsNot_Is)$)",
    r"core/ReplaceUnaryOperator_(?!(USub_UAdd|Delete_Invert|Delete_Not)$)",
    "core/RemoveDecorator",  # jit and cache change the time, not the result
    "core/Variable.*",
)


class Area(NamedTuple):
    """Modules, and the tests that have to notice a break in them."""

    modules: str
    tests: str
    seconds: int = 120  # after which a break counts as noticed


AREAS = {
    "mathematics": Area(
        "linear_cifar/losses.py linear_cifar/objective.py linear_cifar/model.py",
        "test_losses.py test_gradient_check.py",
    ),
    "training": Area(
        "linear_cifar/optimizers.py linear_cifar/training",
        "test_train.py test_sweep.py",
        600,
    ),
    "optimum": Area(
        "linear_cifar/optimum", "test_optimum.py test_targets.py test_interval.py", 300
    ),
    "metrics": Area(
        "linear_cifar/metrics linear_cifar/selection.py",
        "test_metrics.py test_calibration.py test_selection.py test_optimum.py"
        " test_binary_metrics.py test_comparison.py",
        300,
    ),
    "stratify": Area(
        "linear_cifar/data/stratify.py", "test_dataset.py test_misuse.py test_files.py"
    ),
    "data": Area(
        "linear_cifar/data/dataset.py linear_cifar/data/blocks.py linear_cifar/data/formats.py"
        " linear_cifar/data/features.py",
        "test_dataset.py test_files.py test_damaged_files.py test_misuse.py",
    ),
    "folders_and_flags": Area(
        "experiments/common/folder.py experiments/common/cli.py experiments/common/flags.py"
        " experiments/common/progress.py",
        "test_flags.py test_commands.py test_folder.py test_resuming.py test_surroundings.py",
        300,
    ),
    "path_and_probe": Area(
        "experiments/common/path.py experiments/common/path_record.py experiments/probe"
        " experiments/lambda_path.py",
        "test_lambda_path.py test_probe.py test_probe_targets.py test_interval.py test_page.py",
        300,
    ),
    "runs_and_sweeps": Area(
        "experiments/common/training.py experiments/common/run_record.py"
        " experiments/common/sweep_record.py",
        "test_runs.py test_sweep_command.py",
        300,
    ),
}


def _skip_all_but(sample: int, seed: int, session: Path) -> None:
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    excluded = re.compile("|".join(EXCLUDED))
    with use_db(session, WorkDB.Mode.open) as database:
        items = sorted(database.pending_work_items, key=lambda item: str(item.mutations))
        usual = [x for x in items if not excluded.match(x.mutations[0].operator_name)]
        chosen = random.Random(seed).sample(usual, min(sample, len(usual)))
        skipped = {item.job_id for item in items} - {item.job_id for item in chosen}
        database.set_multiple_results(list(skipped), WorkResult(WorkerOutcome.SKIPPED))


def _report(session: Path) -> None:
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import TestOutcome

    killed, tried = Counter(), Counter()
    with use_db(session, WorkDB.Mode.open) as database:
        for item, result in database.completed_work_items:
            if result.test_outcome is None:  # left out
                continue
            module = str(item.mutations[0].module_path)
            tried[module] += 1
            killed[module] += result.test_outcome != TestOutcome.SURVIVED
            if result.test_outcome == TestOutcome.SURVIVED:
                changes = [
                    x for x in result.diff.splitlines() if x[:1] in "+-" and x[1:2] not in "+-"
                ]
                print(f"survives: {module}:{item.mutations[0].start_pos[0]}", *changes, sep="\n  ")
    for module, n in sorted(tried.items()):
        print(f"{module}: {killed[module]} of {n} noticed")
    print(f"all: {killed.total()} of {tried.total()} noticed")


def main() -> None:
    """Breaks an area's modules."""
    areas = "\n".join(f"  {name:<18} {area.modules}" for name, area in AREAS.items())
    text = f"{__doc__}\nAreas, and the modules that are broken:\n{areas}"
    parser = argparse.ArgumentParser("python -m tests.mutate", description=text)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("area", choices=AREAS)
    help_ = "how many breaks to draw and try, about ten seconds each; all by default"
    parser.add_argument("--sample", type=int, default=10**9, help=help_)
    parser.add_argument("--seed", type=int, default=0, help="another one draws other breaks")
    args = parser.parse_args()
    if not find_spec("cosmic_ray"):
        parser.error("cosmic-ray is missing: pip install -e '.[mutation]'")
    area = AREAS[args.area]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "*.egg-info"))
        tests = " ".join(f"tests/{name}" for name in area.tests.split())
        config = copy / "mutate.toml"
        config.write_text(
            "[cosmic-ray]\n"
            f"module-path = {area.modules.split()}\n"
            f"timeout = {area.seconds}\n"
            f"test-command = '{sys.executable} -m pytest -qx -n0 -p no:cacheprovider {tests}'\n"
            "distributor.name = 'local'\n"
        )
        compiled = {
            "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "PYTHONPATH": str(copy),
        }

        def call(*words: str) -> None:
            program = str(Path(sys.executable).with_name(words[0]))
            subprocess.run([program, *words[1:]], cwd=copy, env=os.environ | compiled, check=True)

        call("cosmic-ray", "init", config.name, "session")
        _skip_all_but(args.sample, args.seed, copy / "session")
        call("cosmic-ray", "baseline", config.name)  # the tests pass without a break
        call("cosmic-ray", "exec", config.name, "session")
        _report(copy / "session")


if __name__ == "__main__":
    main()
