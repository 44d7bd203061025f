"""Readers of models, and of what checkpoints and records are made of."""

import contextlib
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from experiments.common import resumable, seals, store
from experiments.common.records import RESULT, RecordError, read_result
from linear_cifar.classifier import Classifier
from linear_cifar.data import Standardiser
from linear_cifar.errors import InputError
from linear_cifar.model import Params
from tests.campaign import parts
from tests.campaign.reading import Loader, Reader, refused, thorough, unsummed

FIT = Params(np.eye(2, 3), np.zeros(2)), Standardiser(np.arange(3.0), np.ones(3))
MODELS = (
    Classifier(*FIT, ("cat", "dog"), lam=0.1),
    Classifier(*FIT, ("a", "b"), "multi_bce", normalise_rows=True, temperature=2.5),
)
OF = seals.fingerprint("what a table is of")
COST = np.array([0.5, 2.0])


def models(kind: str) -> list[bytes]:
    with parts.folder() as place:
        path = Path(place) / f"model.{kind}"
        found = []
        for model in MODELS:
            model.save(path)
            found.append(path.read_bytes())
        return found


@contextlib.contextmanager
def model_reader(kind: str, folder: Path) -> Iterator[Reader]:
    path, again = folder / f"model.{kind}", folder / f"again.{kind}"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        with refused(InputError):
            model = Classifier.load(path)
            if not thorough(content):
                return
            model.save(again)
            same = Classifier.load(again)
            for a, b in zip((*model.params, *model.standardiser), same.params, strict=False):
                assert np.array_equal(a, b)
            assert (same.class_names, same.lam) == (model.class_names, model.lam)
            origin = np.zeros((1, len(model.standardiser.mean)))
            (logits,), (predicted,) = model.logits(origin), model.predict(origin)
            assert predicted == model.class_names[logits.argmax()]

    with unsummed(kind):
        yield read


def chunks() -> list[bytes]:
    with parts.folder() as place:
        store.write(Path(place), [0, 1], of=OF, weights=np.eye(2), cost=COST)
        (path,) = Path(place).iterdir()
        return [path.read_bytes()]


@contextlib.contextmanager
def chunk_reader(folder: Path) -> Iterator[Reader]:
    """Of a part of a table, of which nothing but what was written may be read."""
    (honest,) = chunks()
    path = folder / "000000-000001.npz"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = list(store.read(folder, OF))
        assert bool(found) == (content == honest)
        with refused(RecordError):
            assert store.read_row(folder, 1)["cost"] == COST[1]
            assert content == honest

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield read


def jsons() -> list[bytes]:
    values = [
        {"lam": [0.1, 1.0], "loss": "softmax", "machine": {"n_devices": 1, "versions": {}}},
        {"of": OF, "files": {"result.json": OF}},
        {"best": {"lam": 0.1, "name": "λ\u0000"}, "seconds": None, "deep": [[[[1e308]]], -0, True]},
    ]
    return [json.dumps(value).encode() for value in values]


@contextlib.contextmanager
def json_reader(folder: Path) -> Iterator[Reader]:
    """Of what a record, a seal and a folder that was begun have."""
    held = resumable.Held(folder, "a sweep")
    machine = {"n_devices": 1, "versions": {}}

    def read(content: bytes) -> None:
        for name in (RESULT, seals.SEAL, resumable.BEGUN):
            (folder / name).write_bytes(content)
        with refused(RecordError):
            read_result(folder)
        assert seals.unfit(folder, "another fingerprint")
        before = held._begun()
        assert before is None or isinstance(before, dict)
        with refused(RecordError):
            held._go_on(before or {}, {"loss": "softmax"}, machine)

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield read


LOADERS = {
    "model_npz": Loader(partial(models, "npz"), partial(model_reader, "npz")),
    "model_safetensors": Loader(
        partial(models, "safetensors"), partial(model_reader, "safetensors")
    ),
    "chunk": Loader(chunks, chunk_reader),
    "json": Loader(jsons, json_reader),
}
