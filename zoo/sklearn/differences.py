"""Where the estimators differ from scikit-learn's of the same names: by name, each with its reason.

A parameter of scikit-learn's class is taken and does what it does there, or stands in one of these lists:

- `IDLE`: it is taken and checked, and changes nothing here;
- `REFUSED`: any other value than the default raises an error with the reason, or the constructor does not know it;
- `REFUSED_VALUES`: these values raise an error with the reason.

`DEFAULTS` are the parameters whose default is another one here, and `ATTRIBUTES` the fitted attributes that only
scikit-learn's class has.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ATTRIBUTES", "DEFAULTS", "IDLE", "REFUSED", "REFUSED_VALUES", "check_refused"]

_ROWS_STAY = "rows are never written to"
_THREADS = "threads are torch's: torch.set_num_threads"
_SAME_MINIMUM = "the objective is convex, and the solver here ends at its minimum whatever its name"
_EXACT = "the solution is exact"

_DESCENT = {
    "copy_X": _ROWS_STAY,
    "precompute": "coordinate descent always works on the Gram matrix, which is made of the rows",
    "selection": "the order of coordinates does not change the minimum, which is met to rounding",
    "random_state": "nothing is drawn: the order of coordinates does not change the minimum",
    "tol": "the search ends when the optimality conditions hold to rounding, which is stricter",
}

IDLE: dict[str, dict[str, str]] = {
    "LinearRegression": {"copy_X": _ROWS_STAY, "n_jobs": _THREADS, "tol": _EXACT},
    "Ridge": {
        "copy_X": _ROWS_STAY,
        "tol": _EXACT,
        "random_state": "nothing is drawn: the solution is exact",
        "solver": _SAME_MINIMUM,
    },
    "Lasso": _DESCENT,
    "ElasticNet": _DESCENT,
    "LogisticRegression": {
        "dual": "the primal problem has the same minimum",
        "n_jobs": _THREADS,
        "random_state": "nothing is drawn: the solver takes all rows in each pass",
        "solver": f"{_SAME_MINIMUM}; liblinear penalizes the intercept, here as there",
    },
    "PCA": {
        "copy": _ROWS_STAY,
        "power_iteration_normalizer": "the Krylov basis of the randomized solver is orthonormal to rounding",
    },
    "IncrementalPCA": {"copy": _ROWS_STAY},
    "TSNE": {
        "angle": "there is no tree whose cells it would judge: forces are exact, or interpolated by FFT",
        "n_jobs": _THREADS,
    },
    **{
        name: {"copy_x": _ROWS_STAY, "algorithm": "Elkan's bounds spare distances and come to the same centroids"}
        for name in ("KMeans", "BisectingKMeans")
    },
    **{
        name: {
            "dual": "both problems have the same minimum",
            "random_state": "rows are shuffled by what stands in them",
        }
        for name in ("LinearSVC", "LinearSVR")
    },
    "SVC": {"random_state": "rows are dealt to the folds of probability by what stands in them"},
    "Nystroem": {"n_jobs": _THREADS},
    **{
        name: {"n_jobs": _THREADS, "verbose": "the trees grow side by side: there is nothing to tell in between"}
        for name in ("ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor")
    },
}

REFUSED: dict[str, dict[str, str]] = {
    **{
        name: {"interaction_cst": "a node looks at its features without regard to those above it"}
        for name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
    },
}  # fmt: skip

_SUBSAMPLE = "the classes of a tree's own draw are not counted before it grows: balanced takes those of all rows"

# Single values of a parameter that is taken otherwise.
REFUSED_VALUES: dict[str, dict[str, dict[str, str]]] = {
    name: {"class_weight": {"balanced_subsample": _SUBSAMPLE}}
    for name in ("ExtraTreesClassifier", "RandomForestClassifier")
}
REFUSED_VALUES["LinearSVC"] = {
    "penalty": {"l1": "the dual of the hinge needs a squared norm; LogisticRegression has an L1 penalty"},
    "multi_class": {"crammer_singer": "each class has a machine against the rest, which is as accurate and cheaper"},
}

DEFAULTS: dict[str, dict[str, str]] = {}

ATTRIBUTES: dict[str, dict[str, str]] = {}


def check_refused(name: str, parameters: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Raise one line with the reason if a refused parameter has another value than the default.

    Args:
        name: of the estimator.
        parameters: as set.
        defaults: as in its constructor.

    Example:
        >>> check_refused("HistGradientBoostingClassifier", {"interaction_cst": "pairwise"}, {"interaction_cst": None})
        Traceback (most recent call last):
        ...
        ValueError: interaction_cst='pairwise' of HistGradientBoostingClassifier is not supported:
        a node looks at its features without regard to those above it.
    """
    for parameter, reason in REFUSED.get(name, {}).items():
        if parameter in parameters and parameters[parameter] != defaults[parameter]:
            raise ValueError(f"{parameter}={parameters[parameter]!r} of {name} is not supported: {reason}.")
    for parameter, values in REFUSED_VALUES.get(name, {}).items():
        given = parameters.get(parameter)
        if isinstance(given, str) and given in values:
            raise ValueError(f"{parameter}={given!r} of {name} is not supported: {values[given]}.")
