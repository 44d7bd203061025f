"""`experiments.probe` of binary targets and of several feature sets, beside scikit-learn."""

import json
import os
import re
import shutil
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from linear_cifar import Classifier, DataError, load_features
from linear_cifar.metrics import binary_metrics
from tests.commands import arrays, check_every_file, files, finish, only_line, result, run
from tests.test_page import parse

NAMES = ["a", "b", "rare", "constant", "unknown"]
LAM = np.array([0.001, 0.01, 0.1, 1.0])
WORDS = ("--lam=0.001:1:4:log",)


def matrix(table):
    return table.to_numpy(float)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of features, targets, and three feature sets, two of them noisier; 400 examples."""
    folder, rng = tmp_path_factory.mktemp("targets"), np.random.default_rng(0)
    inputs = 5 + 2 * rng.normal(size=(400, 6))
    scores = (inputs - 5) @ rng.normal(size=(6, 2)) + rng.logistic(size=(400, 2))
    targets = pd.DataFrame(scores > 0, columns=NAMES[:2]).astype(float)
    targets = targets.mask(rng.random((400, 2)) < 0.2)
    targets["rare"] = 0.0
    targets["constant"], targets["unknown"] = 1.0, np.nan
    np.save(folder / "x_features.npy", inputs.astype(np.float32))
    targets.to_csv(folder / "targets.csv", index=False)
    (folder / "sets").mkdir()
    for i, noise in ((2, 0.0), (10, 0.5), (1, 3.0)):
        noisy = inputs + noise * rng.normal(size=inputs.shape)
        np.save(folder / "sets" / f"layer{i}_features.npy", noisy.astype(np.float32))
    np.save(folder / "sets" / "labels.npy", np.argmax(inputs[:, :3], axis=1))
    # One positive example, which trains.
    dataset = load_features(folder / "x_features.npy", folder / "targets.csv")
    (row,) = np.flatnonzero((inputs.astype(np.float32) == dataset.train.inputs[0]).all(axis=1))
    targets.loc[row, "rare"] = 1.0
    targets.to_csv(folder / "targets.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def probed(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "out"
    predict = f"--predict={place / 'x_features.npy'}"
    words = (f"--features={place / 'x_features.npy'}", f"--targets={place / 'targets.csv'}")
    return out, finish("probe", out, *words, *WORDS, predict)


@pytest.fixture(scope="module")
def folds(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("folds") / "out"
    words = (f"--features={place / 'x_features.npy'}", f"--targets={place / 'targets.csv'}")
    finish("probe", out, *words, *WORDS, "--n_folds=3", "--select=loss", "--memory_gb=1e-6")
    return out


def fitted(inputs, labels, lam):
    is_known = labels >= 0
    model = LogisticRegression(C=1 / (2 * lam * is_known.sum()), tol=1e-12, max_iter=10_000)
    return model.fit(inputs[is_known], labels[is_known])


def standardised(dataset, reference):
    inputs = reference.astype(float)
    return lambda split: (split.inputs.astype(float) - inputs.mean(axis=0)) / inputs.std(axis=0)


def test_each_target_has_the_best_lambda_and_the_test_of_scikit_learn(place, probed):
    dataset = load_features(place / "x_features.npy", place / "targets.csv")
    table = pd.read_csv(probed[0] / "targets.csv").set_index("target")
    both = np.concatenate([dataset.train.inputs, dataset.validation.inputs])
    first, refit = standardised(dataset, dataset.train.inputs), standardised(dataset, both)
    for target, row in zip(range(2), table.itertuples(), strict=False):
        train, validation, test = (
            np.asarray(split.labels)[:, target]
            for split in (dataset.train, dataset.validation, dataset.test)
        )
        is_known, scores = validation >= 0, []
        for lam in LAM:
            model = fitted(first(dataset.train), train, lam)
            logits = model.decision_function(first(dataset.validation))
            scores.append(roc_auc_score(validation[is_known], logits[is_known]))
        assert row.validation_auroc == pytest.approx(max(scores), abs=1e-9)
        assert row.lam in LAM[np.isclose(scores, max(scores))]
        labels = np.concatenate([train, validation])
        inputs = np.concatenate([refit(dataset.train), refit(dataset.validation)])
        logits = fitted(inputs, labels, row.lam).decision_function(refit(dataset.test))
        is_known = test >= 0
        assert row.test_auroc == pytest.approx(roc_auc_score(test[is_known], logits[is_known]))
        average = average_precision_score(test[is_known], logits[is_known])
        assert row.test_average_precision == pytest.approx(average)
        assert row.test_accuracy == np.mean(((logits > 0) == test)[is_known])
        assert 2 * row.lam * (labels >= 0).sum() * row.C == pytest.approx(1)
        assert (row.n_train, row.n_test) == ((labels >= 0).sum(), is_known.sum())


def test_folds_choose_the_lambda_of_least_loss_on_the_examples_left_out(folds):
    path = pd.read_csv(folds / "path.csv").set_index("target")
    table = pd.read_csv(folds / "targets.csv").set_index("target")
    for target in ("a", "b"):
        rows = path.loc[target]
        assert table.lam[target] == rows.lam.iloc[rows.folds_loss.argmin()]
        assert table.folds_loss[target] == rows.folds_loss.min()


def test_targets_that_cannot_be_probed_say_why_and_the_others_are_probed(probed):
    out, done = probed
    table = pd.read_csv(out / "targets.csv", keep_default_na=False).set_index("target")
    assert "1" in table.problem["constant"]
    assert "known" in table.problem["unknown"]
    assert "auroc" in table.problem["rare"]  # no validation example is positive
    assert (table.problem[["a", "b"]] == "").all()
    assert "not probed" in done.stdout
    assert (result(out)["n_targets"], result(out)["n_probed"]) == (5, 2)
    assert result(out)["optima"]["n_unfinished"] == 0


def test_a_target_with_one_positive_example_is_probed_by_its_loss(folds):
    table = pd.read_csv(folds / "targets.csv").set_index("target")
    assert table.n_train_positive["rare"] == 1
    assert np.isfinite(table.lam["rare"])
    assert np.isnan(table.test_auroc["rare"])


def test_the_mean_auroc_is_over_targets_and_its_interval_over_examples(place, probed):
    out = probed[0]
    table, record = pd.read_csv(out / "targets.csv"), result(out)
    assert record["mean_test_auroc"] == pytest.approx(table.test_auroc.mean())
    dataset = load_features(place / "x_features.npy", place / "targets.csv")
    model = Classifier.load(out / "model.npz")
    scores, targets = model.logits(dataset.test.inputs), np.asarray(dataset.test.labels)[:, :2]
    draws, n = np.random.default_rng(0), len(scores)
    means = []
    for _ in range(300):
        rows = draws.integers(n, size=n)
        means.append(binary_metrics(scores[rows], targets[rows]).auroc.estimate.mean())
    half = (record["mean_test_auroc_high"] - record["mean_test_auroc_low"]) / 2
    assert half == pytest.approx(1.96 * np.std(means), rel=0.15)


def test_a_model_of_targets_predicts_the_probability_of_each(place, probed):
    out = probed[0]
    model = Classifier.load(out / "model.safetensors")
    table = pd.read_csv(out / "predictions.csv")
    inputs = np.load(place / "x_features.npy")
    assert list(table) == ["row", "p_a", "p_b"]
    np.testing.assert_allclose(table[["p_a", "p_b"]], model.predict_proba(inputs), atol=1e-7)
    assert np.array_equal(model.predict(inputs), model.predict_proba(inputs) > 0.5)


@pytest.mark.parametrize("form", ["npz", "columns", "npy", "safetensors", "parquet", "beside"])
def test_targets_of_every_format_are_the_same(place, tmp_path, form):
    table = pd.read_csv(place / "targets.csv")
    values, path = matrix(table).astype(np.float32), tmp_path / f"targets.{form}"
    integers = np.where(np.isnan(values), -1, values).astype(np.int8, order="C")
    features, targets = place / "x_features.npy", path
    if form == "npz":
        np.savez(path, targets=integers, names=np.array(NAMES))
    elif form == "columns":
        targets = tmp_path / "columns.npz"
        np.savez(targets, **{name: values[:, i] for i, name in enumerate(NAMES)})
    elif form == "npy":
        np.save(path, integers)
    elif form == "safetensors":
        save_file({"targets": integers}, path)
    elif form == "parquet":
        table.to_parquet(path)
    else:
        features, targets = tmp_path / "both.npz", None
        np.savez(features, features=np.load(place / "x_features.npy"), targets=values)
    dataset = load_features(features, targets)
    expected = load_features(place / "x_features.npy", place / "targets.csv")
    assert np.array_equal(dataset.train.labels, expected.train.labels)
    assert np.array_equal(dataset.test.labels, expected.test.labels)
    numbered = form in ("npy", "safetensors", "beside")
    assert dataset.class_names == tuple("01234" if numbered else NAMES)


def test_targets_may_have_the_splits_of_the_features(tmp_path):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(30, 3)), rng.integers(0, 2, (30, 2))
    np.savez(tmp_path / "x.npz", train_x=inputs[:20], test_x=inputs[20:])
    np.savez(tmp_path / "t.npz", train=targets[:20], test=targets[20:])
    dataset = load_features(tmp_path / "x.npz", tmp_path / "t.npz", validation_fraction=0.0)
    assert np.array_equal(dataset.train.labels, targets[:20])
    assert np.array_equal(dataset.test.labels, targets[20:])


def test_names_beside_a_matrix_are_those_of_every_split(tmp_path):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(30, 3)), rng.integers(0, 2, (30, 2))
    np.savez(tmp_path / "x.npz", train_x=inputs[:20], test_x=inputs[20:])
    np.savez(tmp_path / "t.npz", train=targets[:20], test=targets[20:], names=["a", "b"])
    dataset = load_features(tmp_path / "x.npz", tmp_path / "t.npz", validation_fraction=0.0)
    assert dataset.class_names == ("a", "b")
    assert np.array_equal(dataset.test.labels, targets[20:])


def test_a_target_may_be_called_names(place, tmp_path):
    table = pd.read_csv(place / "targets.csv").rename(columns={"b": "names"})
    table.to_csv(tmp_path / "t.csv", index=False)
    dataset = load_features(place / "x_features.npy", tmp_path / "t.csv")
    assert dataset.class_names == tuple(table)


def test_notes_name_choices_that_rest_on_few_examples_or_the_end_of_the_path(place, tmp_path):
    words = (f"--features={place / 'x_features.npy'}", f"--targets={place / 'targets.csv'}")
    done = finish("probe", tmp_path / "out", *words, "--lam=1,1e4", "--n_folds=3", "--select=loss")
    table = pd.read_csv(tmp_path / "out" / "targets.csv").set_index("target")
    assert table.lam[["a", "b"]].tolist() == [1, 1]
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    (few,) = (note for note in notes if "fewer than" in note)
    assert "1 targets, rare " in few
    (end,) = (note for note in notes if "smallest λ" in note)
    assert f"{(table.lam == 1).sum()} targets" in end


# Feature sets.


@pytest.fixture(scope="module")
def sets(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("sets") / "out"
    done = finish("probe", out, f"--features={place}/sets/*.npy", *WORDS)
    return out, done


def predictions(out, place, name):
    features = place / "sets" / f"{name}_features.npy"
    dataset = load_features(features)
    model = Classifier.load(out / "sets" / name / "model.npz")
    labels = np.array(dataset.class_names)[dataset.test.labels]
    return model.predict(dataset.test.inputs) == labels


def test_all_pairs_of_sets_have_mcnemars_test_corrected_by_holm(place, sets):
    out = sets[0]
    names = ["layer1", "layer2", "layer10"]  # in the natural order
    correct = {name: predictions(out, place, name) for name in names}
    pairs = pd.read_csv(out / "pairs.csv")
    p = []
    for row, (a, b) in zip(pairs.itertuples(), combinations(names, 2), strict=True):
        assert (row.set, row.other) == (a, b)
        wins = [np.sum(correct[a] & ~correct[b]), np.sum(correct[b] & ~correct[a])]
        p.append(stats.binomtest(int(wins[0]), int(sum(wins))).pvalue)
        assert row.estimate == pytest.approx(correct[a].mean() - correct[b].mean())
    np.testing.assert_allclose(pairs.p, p)
    adjusted = np.minimum(np.maximum.accumulate(np.sort(p) * [3, 2, 1]), 1)
    np.testing.assert_allclose(np.sort(pairs.p_holm), adjusted)


def test_the_comparison_says_which_sets_are_worse_than_the_best(place, sets):
    out, done = sets
    table, pairs = pd.read_csv(out / "comparison.csv"), pd.read_csv(out / "pairs.csv")
    assert table.set.tolist() == ["layer1", "layer2", "layer10"]
    best = table.set[table.estimate.argmax()]
    assert result(out)["best"] == best
    for row in table.itertuples():
        assert row.estimate == predictions(out, place, row.set).mean()
        pair = {row.set, best}
        with_best = pairs[[pair == {a, b} for a, b in zip(pairs.set, pairs.other, strict=True)]]
        if row.set == best:
            assert row.verdict == "best"
        else:
            assert row.p_holm == with_best.p_holm.item()
            assert abs(row.difference) == pytest.approx(abs(with_best.estimate.item()))
            assert row.difference <= 0
            assert row.difference_low <= row.difference <= row.difference_high
            assert row.verdict == ("worse" if row.p_holm <= 0.05 else "not shown to be worse")
    assert "worse" in set(table.verdict)
    assert best in done.stdout


def test_a_set_is_probed_as_it_is_alone(place, sets, tmp_path):
    features = place / "sets" / "layer2_features.npy"
    finish("probe", tmp_path / "out", f"--features={features}", *WORDS)
    alone, together = tmp_path / "out", sets[0] / "sets" / "layer2"
    for name in ("model.npz", "path.csv", "per_class.csv"):
        assert (alone / name).read_bytes() == (together / name).read_bytes()


def test_targets_and_sets_make_a_table_of_auroc(place, tmp_path):
    out = tmp_path / "out"
    words = (f"--features={place}/sets/layer2_features.npy,{place}/sets/layer1_features.npy",)
    finish("probe", out, *words, f"--targets={place / 'targets.csv'}", *WORDS)
    table = pd.read_csv(out / "auroc.csv").set_index("target")
    assert list(table) == ["layer2", "layer1"]
    for name in table:
        alone = pd.read_csv(out / "sets" / name / "targets.csv").set_index("target")
        assert table[name].equals(alone.test_auroc[table.index].rename(name))
    comparison = pd.read_csv(out / "comparison.csv").set_index("set")
    np.testing.assert_allclose(comparison.estimate, table.mean())
    check_every_file(out)


def test_pages_link_the_sets_and_list_every_target(place, sets, probed):
    for out in (sets[0], probed[0], sets[0] / "sets" / "layer1"):
        assert all((out / address).is_file() for address in addresses(out))
        assert "index.html" in json.loads((out / "result.json").read_text())["files"]
    assert addresses(sets[0]) == [f"sets/layer{i}/index.html" for i in (1, 2, 10)]
    page = (probed[0] / "index.html").read_text()
    assert all(re.search(rf"<td[^>]*>{name}</td>", page) for name in NAMES)


def addresses(out):
    """The addresses of the links on a page."""
    return [link.get("href") for link in parse(out / "index.html").findall(".//a")]


def test_a_comparison_resumes_to_the_same_bytes(place, sets, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(sets[0], out)
    for name in files(out) - {"started.json"}:
        if not name.startswith("chunks/set_0_/"):
            (out / name).unlink()
    words = (f"--features={place}/sets/*.npy", *WORDS)
    finish("probe", out, *words, "--resume")
    assert files(out) == files(sets[0])
    for name in files(out):
        if name.endswith((".csv", ".html", "model.npz")):
            assert (out / name).read_bytes() == (sets[0] / name).read_bytes(), name
    finish("probe", out, *words, "--overwrite")


def test_targets_resume_from_half_of_their_chunks_to_the_same_bytes(place, folds, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(folds, out)
    chunks = sorted((out / "chunks").glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    assert len(chunks) > 2
    for path in (out / "result.json", *chunks[len(chunks) // 2 :]):
        path.unlink()
    words = (f"--features={place / 'x_features.npy'}", f"--targets={place / 'targets.csv'}")
    more = ("--n_folds=3", "--select=loss", "--memory_gb=1e-6", "--resume")
    finish("probe", out, *words, *WORDS, *more)
    for name in ("targets.csv", "path.csv", "model.npz"):
        assert (out / name).read_bytes() == (folds / name).read_bytes()
    for path in (out / "chunks").iterdir():
        stored, expected = arrays(path), arrays(folds / "chunks" / path.name)
        assert all(np.array_equal(stored[k], expected[k], equal_nan=k != "fingerprint")
                   for k in expected)  # fmt: skip


def test_a_chunk_of_another_set_is_computed_again(place, sets, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(sets[0], out)
    shutil.rmtree(out / "chunks" / "set_1_")
    shutil.copytree(out / "chunks" / "set_0_", out / "chunks" / "set_1_")
    done = finish("probe", out, f"--features={place}/sets/*.npy", *WORDS, "--resume")
    assert re.search(r"set_1_/\S+ isn't used \(it belongs to another run", done.stderr)
    for name in files(out):
        if name.endswith((".csv", ".html", "model.npz")):
            assert (out / name).read_bytes() == (sets[0] / name).read_bytes(), name


# Odd inputs.


def test_each_set_has_a_folder_below_sets_whatever_its_name(place, tmp_path, monkeypatch):
    names = [os.fsdecode(b"\xff.npz"), "..", "a<b> ${.npz"]
    inputs, labels = np.load(place / "x_features.npy"), np.load(place / "sets" / "labels.npy")
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    for name in (names[0], names[2], "../train.npz"):
        np.savez(name, features=inputs, labels=labels)
    out = tmp_path / "out"
    finish("probe", out, f"--features={', '.join(names)}", *WORDS)
    assert {path.name for path in (out / "sets").iterdir()} == {"\\xff", "here", "a<b> ${"}
    check_every_file(out)


def refused(tmp_path, *words):
    return only_line(run("experiments.probe", *words, f"--output_dir={tmp_path / 'out'}"))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.zeros((399, 2)), "399"),
        (np.full((400, 2), 2), "2"),
        (np.full((400, 2), -1), "known"),
        (np.full((400, 2), 0.5), "0.5"),
        (np.array([["yes"]] * 400), "numbers"),
        (np.zeros((400, 2, 2)), "targets"),
        (np.ones((400, 1)), "all known training labels are 1"),
    ],
    ids=["length", "two", "unknown", "half", "text", "axes", "constant"],
)
def test_impossible_targets_are_one_line(place, tmp_path, values, match):
    np.save(tmp_path / "t.npy", values)
    line = refused(
        tmp_path, f"--features={place / 'x_features.npy'}", f"--targets={tmp_path / 't.npy'}"
    )
    assert re.search(match, line)


def test_impossible_sets_are_one_line(place, tmp_path):
    one, other = (place / "sets" / f"layer{i}_features.npy" for i in (1, 2))
    shutil.copy(one, tmp_path / one.name)
    np.save(tmp_path / "labels.npy", np.roll(np.load(place / "sets" / "labels.npy"), 1))
    for words, match in [
        ((f"--features={one},{one}",), "twice"),
        ((f"--features={other},{tmp_path / one.name}",), "layer1.*labels"),
        ((f"--features={place}/nothing*.npy",), "nothing"),
        ((f"--features={one},{other}", "--predict=x.npy"), "--predict"),
        ((f"--features={one},{place / 'missing.npy'}",), "missing"),
        ((f"--features={','.join(['long_name'] * 600)}",), "twice"),
        ((f"--features={one}", "--select=auroc"), "auroc"),
        ((f"--features={one}", f"--targets={place / 'targets.csv'}", "--n_train=20"), "n_train"),
        ((f"--features={one}", f"--targets={place / 'targets.csv'}", "--loss=softmax"), "loss"),
    ]:
        assert re.search(match, refused(tmp_path, *words)), words


def test_sets_without_an_auroc_on_test_examples_are_one_line(tmp_path):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(90, 3)), rng.integers(0, 2, (90, 2))
    targets[60:] = 1
    for name in ("one", "other"):
        splits = dict(zip(("x_train", "x_val", "x_test"), np.split(inputs, 3), strict=True))
        np.savez(tmp_path / f"{name}.npz", **splits)
        inputs = inputs + 1
    parts = dict(zip(("train", "val", "test"), np.split(targets, 3), strict=True))
    np.savez(tmp_path / "t.npz", **parts)
    out, words = tmp_path / "out", (f"--targets={tmp_path / 't.npz'}", *WORDS)
    sets = f"--features={tmp_path / 'one.npz'},{tmp_path / 'other.npz'}"
    done = run("experiments.probe", sets, *words, f"--output_dir={out}")
    assert done.returncode == 1
    assert "both positive and negative test examples" in done.stderr.splitlines()[-1]
    assert (out / "sets" / "other" / "result.json").is_file()


def test_other_commands_refuse_targets(place, tmp_path):
    np.savez(tmp_path / "both.npz", features=np.eye(9), targets=np.eye(9))
    for command in ("lambda_path", "sweep"):
        features = f"--features={tmp_path / 'both.npz'}"
        assert "experiments.probe" in only_line(run(f"experiments.{command}", features))


def test_a_text_column_among_targets_is_named(place, tmp_path):
    (tmp_path / "t.csv").write_text("a,file\n" + "0,x.png\n" * 400)
    with pytest.raises(DataError, match=r"column file: .*x\.png"):
        load_features(place / "x_features.npy", tmp_path / "t.csv")


def test_repeated_names_of_targets_are_one_line(place, tmp_path):
    (tmp_path / "t.csv").write_text("a,a\n" + "0,1\n" * 400)
    line = refused(
        tmp_path, f"--features={place / 'x_features.npy'}", f"--targets={tmp_path / 't.csv'}"
    )
    assert "a" in line
