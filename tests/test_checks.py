"""Checks of arguments: ranges of settings, real numbers, keys, text and choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linear_cifar.checks import Setting, as_key, check_choice, is_text, real_numbers
from linear_cifar.errors import InputError

SHARE = Setting("a share", low=0, below=1)
COUNT = Setting("a count", low=1, high=2**31 - 1, integer=True)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({}, ""),
        ({"low": 0}, "at least 0"),
        ({"above": 0}, "above 0"),
        ({"low": 0, "below": 1}, "at least 0 and below 1"),
        ({"low": 1, "high": 2147483647}, "from 1 to 2147483647"),
    ],
)
def test_a_range_is_told_in_words(bounds, text):
    assert Setting("help", **bounds).range == text


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"low": 0}, [0, 5], [-1e-9]),
        ({"above": 0}, [1e-9], [0, -1]),
        ({"high": 1}, [1, -5], [1.1]),
        ({"below": 1}, [0.999], [1]),
        ({}, [-1e300], []),
    ],
)
def test_every_bound_binds_and_only_finite_values_are_admitted(bounds, inside, outside):
    setting = Setting("help", **bounds)
    values = np.array([*inside, *outside, np.nan, np.inf])
    expected = [True] * len(inside) + [False] * (len(outside) + 2)
    assert setting.admits(values).tolist() == expected
    assert bool(setting.admits(inside[0])) is True


@pytest.mark.parametrize("values", [0.5, [0, 0.9], np.float32(0), jnp.array([0.1])])
def test_values_in_the_range_pass(values):
    SHARE.check("share", values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (1.0, "share is 1.0: it has to be at least 0 and below 1"),
        ([0.1, -2.0, 0.5], "share is -2.0"),  # names the value that is out of the range
        (np.nan, "share is nan"),
        ("much", "share is str: it has to be real numbers"),
        (None, "real numbers"),
        (1j, "real numbers"),
        (10**400, "real numbers"),
    ],
)
def test_a_value_out_of_the_range_is_named(values, words):
    with pytest.raises(InputError, match=words):
        SHARE.check("share", values)


@pytest.mark.parametrize("value", [1.0, 20.7, True, "20"])
def test_an_integer_setting_takes_integers_only(value):
    COUNT.check("count", 20)
    COUNT.check("count", np.array([1, 2], np.uint8))
    with pytest.raises(InputError, match=r"^count is"):
        COUNT.check("count", value)


def test_traced_values_pass_so_that_settings_can_be_checked_under_jit():
    def double(value):
        SHARE.check("share", value)
        return 2 * value

    assert jax.jit(double)(3.0) == 6


def test_real_numbers_keep_their_dtype_and_bfloat16_is_one():
    for values in (np.arange(3, dtype=np.uint8), jnp.ones(2, jnp.bfloat16), np.ones(2, np.float16)):
        assert real_numbers("x", values).dtype == values.dtype


@pytest.mark.parametrize(
    "values", ["a", ["0.1"], [True], 1j, [[1], [1, 2]], np.ma.array([1.0]), jax.random.key(0), None]
)
def test_other_values_are_no_real_numbers(values):
    with pytest.raises(
        InputError, match=r"^x is .*: it has to be real numbers, not masked or traced$"
    ):
        real_numbers("x", values)


def test_a_choice_is_one_of_some_strings():
    check_choice("by", "loss", ("accuracy", "loss"))
    for value in ("los", [], None, 1):
        with pytest.raises(InputError, match=r"by is .* one of accuracy, loss"):
            check_choice("by", value, ("accuracy", "loss"))


def test_text_is_a_string_that_files_can_hold():
    assert is_text("λ 猫")
    assert not any(map(is_text, ["\0", "a\ud800", b"a", None, 1]))


def test_old_and_new_keys_are_keys_and_nothing_else_is():
    new, old = jax.random.key(7), jax.random.PRNGKey(7)
    assert as_key(new) is new
    assert jax.random.uniform(as_key(old)) == jax.random.uniform(new)
    assert as_key(jax.random.split(new, 3)).shape == (3,)
    for value in (0, None, "a", np.zeros(3)):
        with pytest.raises(InputError, match=r"key is .* PRNG key"):
            as_key(value)


def test_an_error_is_one_line_whatever_it_names():
    assert str(InputError("a\nb   c")) == "a b c"
    assert issubclass(InputError, ValueError)
