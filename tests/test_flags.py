"""The commands' flags: which there are, what is refused, and what comes of those that are taken."""

import pkgutil

import numpy as np
import pytest
from commands import QUICK, module_of, only_line, run, run_process

import experiments
from experiments.common import records
from linear_cifar.optimizers import OPTIMIZERS, Hyperparameters

pytestmark = pytest.mark.usefixtures("undrawn")
COMMANDS = {module.name for module in pkgutil.iter_modules(experiments.__path__)} - {"common"}
TRAINERS = ("baseline", "full_data", "grid_search", "loss_comparison", "step_decay")
# Of each optimiser: what no other one reads, and not as it is by default.
OWN = {
    "sgd": {},
    "momentum": {"momentum": 0.5},
    "adam": {"b1": 0.8, "b2": 0.99, "eps": 1e-6},
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_module_of_experiments_is_a_command(name):
    module = module_of(f"experiments.{name}")
    assert f"\npython -m experiments.{name}" in module.__doc__
    for word, message in (
        ("--bogus=1", "Unknown command line flag 'bogus'"),
        ("bogus", "unexpected argument 'bogus': a flag begins with --"),
        ("--seed=-1", "--seed=-1"),
    ):
        done = run(f"experiments.{name}", word)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_help_explains_every_flag_with_its_default():
    shown = run_process("experiments.baseline", "--helpshort").stdout
    for flag in (
        "dataset",
        "data_dir",
        "output_dir",
        "seed",
        "lam",
        "learning_rate",
        "batch_size",
        "n_epochs",
        "loss",
        "decay_factor",
        "decay_every",
        "optimizer",
        "momentum",
        "b1",
    ):
        assert f"--{flag}:" in shown.replace("--[no]", "--")
    assert "default: '0.001'" in shown
    assert "python -m experiments.baseline" in shown


def test_a_bad_flag_is_refused_in_a_process_too(tmp_path):
    done = run_process("experiments.baseline", "--lam=-0.1", f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert "--lam=-0.1" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flag",
    [
        "--learning_rate=-1",
        "--learning_rate=nan",
        "--learning_rate=inf",
        "--learning_rate=0",
        "--lam=-0.1",
        "--lam=nan",
        "--n_epochs=0",
        "--batch_size=0",
        "--decay_factor=0.1",
        "--decay_every=0",
        "--momentum=1",
        "--b1=-0.1",
        "--b2=1",
        "--eps=0",
        "--loss=hinge",
        "--optimizer=newton",
        "--dataset=mnist",
        "--seed=-1",
        "--n_seeds=0",
        "--lam=much",
    ],
)
def test_a_bad_flag_is_refused_by_name(tmp_path, flag):
    done = run("experiments.baseline", *QUICK, flag, f"--output_dir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert flag.split("=")[0].lstrip("-") in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flag", ["--lam=0,-1", "--learning_rate=0.1,x", "--batch_size=0", "--batch_size=1.5", "--lam="]
)
def test_a_bad_list_is_refused_by_name(tmp_path, flag):
    out = tmp_path / "run"
    done = run("experiments.grid_search", "--dataset=synthetic", flag, f"--output_dir={out}")
    assert done.returncode == 1
    assert flag.split("=")[0].lstrip("-") in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def described(command, out):
    """Optimiser, hyper-parameters and weights of each run that a command's folder holds."""
    if command == "grid_search":
        best = records.read_result(out)["best"]
        of_run = {name: best[name] for name in Hyperparameters._fields if name in best}
        return [(best["optimizer"], of_run, records.read_params(out / "params.npz").weights)]
    folders = [out / "softmax", out / "multi_bce"] if command == "loss_comparison" else [out]
    results = map(records.read_result, folders)
    weights = (records.read_params(folder / "params.npz").weights for folder in folders)
    return [
        (result["optimizer"], result["hyperparameters"], of_run)
        for result, of_run in zip(results, weights, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("command", TRAINERS)
def test_each_optimiser_trains_with_its_own_settings_and_records_them(tmp_path, command):
    assert OWN.keys() <= OPTIMIZERS.keys()
    common = {"lam": 0.1, "learning_rate": 0.01, "decay_factor": 2.0, "decay_every": 3}
    trained = []
    for optimizer in OPTIMIZERS:
        own = OWN.get(optimizer, {})
        words = ["--n_epochs=1", "--batch_size=100", f"--optimizer={optimizer}"]
        words += [f"--{name}={value}" for name, value in (common | own).items()]
        out = tmp_path / optimizer
        done = run(f"experiments.{command}", "--dataset=synthetic", *words, f"--output_dir={out}")
        assert done.returncode == 0, done.stderr
        for name, hyperparameters, weights in described(command, out):
            assert name == optimizer
            assert hyperparameters == common | own
            trained.append(weights)
    for i, weights in enumerate(trained):
        assert not any(np.allclose(weights, other, atol=1e-4) for other in trained[:i])


@pytest.mark.parametrize("command", TRAINERS)
def test_a_setting_that_the_optimiser_does_not_read_is_refused(tmp_path, command):
    for words, message in (
        (["--momentum=0.5"], "--momentum isn't read by --optimizer=sgd"),
        (["--optimizer=adam", "--momentum=0.9"], "--momentum isn't read by --optimizer=adam"),
        (["--optimizer=momentum", "--b2=0.9"], "--b2 isn't read by --optimizer=momentum"),
    ):
        done = run(f"experiments.{command}", *QUICK, *words, f"--output_dir={tmp_path / 'run'}")
        assert only_line(done) == f"error: {message}"
        assert list(tmp_path.iterdir()) == []
