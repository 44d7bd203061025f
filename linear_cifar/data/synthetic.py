"""Synthetic images of CIFAR-10's shape, drawn from a seed by integer arithmetic.

Each of ten classes has a shape, a colour and a place, all with jitter, on background noise whose
power falls with frequency as in natural images. Every bit comes from PCG64's raw stream, which
NumPy guarantees, through integer operations, so the images are the same on every machine.
"""

import math

import numpy as np

SIDE = 32
_N = 10_000  # images of a batch
_CHUNK = 250  # images drawn at a time: they fit into the processor's cache
# Amplitude of the background noise in grey levels, from cells of 16 pixels to single pixels.
_NOISE = (100, 60, 34, 20, 12)
_COLOURS = np.array([
    [0, 3, 8], [8, -2, -3], [3, 5, -2], [5, 2, -4], [2, 6, -3],
    [-5, -4, -3], [-4, 7, 2], [6, 1, 3], [-2, 2, 7], [7, 6, 0],
])  # fmt: skip  # [class, channel], in units of an image's own contrast
_CENTRES = np.array([
    [10, 16], [21, 16], [13, 11], [16, 20], [18, 12],
    [12, 21], [22, 22], [16, 16], [20, 10], [11, 12],
])  # fmt: skip  # [class, (row, column)]
_JITTER = 4  # pixels to either side


def batch(name: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws one batch: images [10000, 3072] uint8 and labels [10000] int32, uniform over classes.

    Batches of different names ("data_batch_1" … "data_batch_5", "test_batch") are independent.
    """
    number = 5 if name == "test_batch" else int(name.removeprefix("data_batch_")) - 1
    bits = np.random.PCG64(np.random.SeedSequence([seed, number]))
    labels = _integers(bits, _N, 10)
    images = np.empty((_N, 3, SIDE, SIDE), np.uint8)
    for start in range(0, _N, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        scene = _background(bits)
        _add_objects(scene, labels[chunk], bits)
        images[chunk] = np.clip(scene, 0, 255, out=scene)
    return images.reshape(_N, -1), labels.astype(np.int32)


def _integers(bits: np.random.PCG64, count: int, end: int) -> np.ndarray:
    """`count` integers from 0 to `end` − 1, uniform to one part in 2⁶⁴ / `end`."""
    return (bits.random_raw(count) % np.uint64(end)).astype(np.int64)


def _background(bits: np.random.PCG64) -> np.ndarray:
    """Noise [chunk, 3, 32, 32] int16 around a grey: octaves of random cells, smoothed."""
    images = np.full((_CHUNK, 3, 1, 1), 120, np.int16)
    for amplitude in _NOISE:
        images = images.repeat(2, axis=2).repeat(2, axis=3)
        images[:, :, 1:] = (images[:, :, 1:] + images[:, :, :-1]) >> 1
        images[:, :, :, 1:] = (images[:, :, :, 1:] + images[:, :, :, :-1]) >> 1
        images += _noise(bits, (_CHUNK, 1, *images.shape[2:]), amplitude)  # light, all channels
        images += _noise(bits, images.shape, amplitude // 2)  # colour, per channel
    return images


def _noise(bits: np.random.PCG64, shape: tuple[int, ...], amplitude: int) -> np.ndarray:
    """Uniform integers from −`amplitude` to `amplitude` − 1, int16."""
    n = math.prod(shape)
    words = bits.random_raw(-(-n // 8)).astype("<u8", copy=False)  # the same bytes everywhere
    return (words.view(np.int8)[:n].reshape(shape).astype(np.int16) * np.int16(amplitude)) >> 7


def _add_objects(images: np.ndarray, labels: np.ndarray, bits: np.random.PCG64) -> None:
    """Adds an object to each image, in place; two in five have a random class's colour."""
    n = len(labels)
    row, column = np.mgrid[-16:16, -16:16]
    radius = row**2 + column**2
    tall, wide = abs(row), abs(column)
    shapes = [
        (tall <= 2) & (wide <= 11),  # bar
        (tall <= 5) & (wide <= 9),  # block
        radius <= 30,  # small disk
        (radius <= 70) & (radius >= 22),  # ring
        (wide <= 3) & (tall <= 10),  # post
        (tall <= 7) & (wide <= 7) & ((tall >= 5) | (wide >= 5)),  # frame
        tall + wide <= 8,  # diamond
        (abs(row - column) <= 2) & (tall <= 10),  # diagonal
        (row >= -6) & (row <= 6) & (wide <= row + 6),  # triangle
        ((tall <= 2) & (wide <= 8)) | ((wide <= 2) & (tall <= 8)),  # cross
    ]
    padded = np.pad(shapes, ((0, 0), (SIDE, SIDE), (SIDE, SIDE))).astype(np.int16)
    shift = _CENTRES[labels] - 16 + _integers(bits, 2 * n, 2 * _JITTER + 1).reshape(n, 2) - _JITTER
    contrast = 2 + _integers(bits, n, 8)
    mixed = _integers(bits, n, 5) < 2
    hue = np.where(mixed, _integers(bits, n, 10), labels)
    colour = (_COLOURS[hue] * contrast[:, None]).astype(np.int16)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), axis=(1, 2))
    masks = windows[labels, SIDE - shift[:, 0], SIDE - shift[:, 1]]
    images += masks[:, None] * colour[:, :, None, None]
