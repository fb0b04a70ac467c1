"""Metrics of a user's own: functions of the rows of two layers that a configuration names."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reasoning_embedding import config
from reasoning_embedding.config.functions import check_call, explain_own_code, load_function
from reasoning_embedding.errors import InputError

from .result import Metric


def check_own_metrics(settings: config.Measuring) -> None:
    """Import every metric of one's own, before any model is opened.

    Raises
    ------
    InputError
        If one cannot be imported, or does not take two matrices and its options; or two have one name.
    """
    labels = [metric.label for metric in settings.metrics]
    for number, metric in enumerate(settings.metrics):
        where = f"metrics[{number}] ({metric.function})"
        if metric.label in labels[:number]:
            raise InputError(f"two metrics are called {metric.label!r}", where=where, todo="give them names")
        check_call(
            load_function(metric.function, where=where, sha256=metric.sha256), 2, metric.options, where=where
        )


def measure_own(metric: config.OwnMetric, x: np.ndarray, y: np.ndarray) -> Metric:
    """Call a metric of one's own.

    Parameters
    ----------
    metric : config.OwnMetric
        Which.
    x, y : ndarray
        (n, D) and (n, E), the same rows in two models: the kept rows, where more were read.

    Raises
    ------
    InputError
        If it fails, or returns no finite number.
    """
    where = f"metrics ({metric.function})"
    function = load_function(metric.function, where=where, sha256=metric.sha256)
    with explain_own_code(where):
        value: Any = function(x.copy(), y.copy(), **metric.options)
        number = float(value) if np.ndim(value) == 0 else math.nan
    if not math.isfinite(number):
        raise InputError(f"{metric.label} is {value!r:.60}", where=where, todo="return one finite number")
    return Metric(
        value=number,
        n=len(x),
        definition=f"a function of the user's own, {metric.function.rpartition('/')[2]}",
        no_interval="a function of one's own is computed once",
    )
