"""Every public function of the library has an example, and the examples are true."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

from reasoning_embedding import hrsa

FUNCTIONS = [name for name in hrsa.__all__ if inspect.isfunction(getattr(hrsa, name))]
MODULES = sorted({getattr(hrsa, name).__module__ for name in FUNCTIONS})


@pytest.mark.parametrize("name", ["reasoning_embedding.hrsa", *MODULES])
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name):
    assert doctest.DocTestFinder().find(getattr(hrsa, name))[0].examples
