"""Checks of arguments: ranges of settings, real numbers and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linear_cifar import InputError
from linear_cifar.checks import Setting, as_key, real_numbers

SHARE = Setting("a share", low=0, below=1)


@pytest.mark.parametrize(
    ("bounds", "words", "inside", "outside"),
    [
        ({}, "", [-1e300], []),
        ({"low": 0}, "at least 0", [0, 5], [-1e-9]),
        ({"above": 0}, "above 0", [1e-9], [0, -1]),
        ({"low": 0, "below": 1}, "at least 0 and below 1", [0, 0.999], [1, -1e-9]),
        ({"low": 1, "high": 2**31 - 1}, "from 1 to 2147483647", [1, 2**31 - 1], [2**31, 0]),
    ],
)
def test_every_bound_binds_is_told_in_words_and_admits_finite_values_only(
    bounds, words, inside, outside
):
    setting = Setting("help", **bounds)
    assert setting.range == words
    values = np.array([*inside, *outside, np.nan, np.inf])
    assert setting.admits(values).tolist() == [i < len(inside) for i in range(len(values))]
    assert bool(setting.admits(inside[0])) is True


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.1, -2.0, 0.5], "share is -2.0: .* at least 0 and below 1"),
        (np.nan, "share is nan"),
        ("much", "share is str: .* real numbers"),
        (None, "real numbers"),
        (10**400, "real numbers"),
    ],
)
def test_a_value_out_of_the_range_is_named(values, words):
    SHARE.check("share", np.float32([0, 0.9]))
    with pytest.raises(InputError, match=words):
        SHARE.check("share", values)


@pytest.mark.parametrize("value", [1.0, 20.7, True, "20"])
def test_an_integer_setting_takes_integers_only(value):
    count = Setting("a count", low=1, integer=True)
    count.check("count", np.array([1, 2], np.uint8))
    with pytest.raises(InputError, match="count"):
        count.check("count", value)


@pytest.mark.parametrize(
    "values", ["a", ["0.1"], [True], 1j, [[1], [1, 2]], np.ma.array([1.0]), jax.random.key(0), None]
)
def test_other_values_are_no_real_numbers(values):
    assert real_numbers("x", jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16
    with pytest.raises(InputError, match=r"^x is"):
        real_numbers("x", values)


def test_old_and_new_keys_are_keys():
    new, old = jax.random.key(7), jax.random.PRNGKey(7)
    assert as_key(new) is new
    assert np.array_equal(jax.random.key_data(as_key(old)), jax.random.key_data(new))
    with pytest.raises(InputError, match="key"):
        as_key(np.zeros(3))


def test_an_error_is_one_line_whatever_it_names():
    assert str(InputError("a\nb   c")) == "a b c"
    assert issubclass(InputError, ValueError)
