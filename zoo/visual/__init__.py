"""Pictures of models and data: pure functions that return a `matplotlib.figure.Figure`.

They import matplotlib when they are called, never touch pyplot's global state (so that they need no display
and leave nothing open) and share one style and one colour-blind-safe palette. `save` writes a PNG file.
"""

from zoo.visual.alignment import alignment
from zoo.visual.attention import attention
from zoo.visual.clusters import clusters
from zoo.visual.coefficients import coefficients, output_names
from zoo.visual.curves import curve
from zoo.visual.decomposition import scree
from zoo.visual.glances import glances
from zoo.visual.heads import bits, heads
from zoo.visual.images import filters, images
from zoo.visual.jacobian import memory, sequential_jacobian
from zoo.visual.likelihoods import densities, telling_features
from zoo.visual.paths import coefficient_path
from zoo.visual.rules import rule_graph, rule_metrics
from zoo.visual.scores import elbow, silhouette
from zoo.visual.sequences import forecast, gates
from zoo.visual.style import class_colors, new_figure, rows_of, save, titled
from zoo.visual.supervised import confusion_matrix, decision_boundary, margins, region, residuals
from zoo.visual.surfaces import surface
from zoo.visual.thresholds import precision_recall, roc
from zoo.visual.validation import bands, error_parts, folds, importance_ranges, reliability

__all__ = [
    "alignment",
    "attention",
    "bands",
    "bits",
    "class_colors",
    "clusters",
    "coefficient_path",
    "coefficients",
    "confusion_matrix",
    "curve",
    "decision_boundary",
    "densities",
    "elbow",
    "error_parts",
    "filters",
    "folds",
    "forecast",
    "gates",
    "glances",
    "heads",
    "images",
    "importance_ranges",
    "margins",
    "memory",
    "new_figure",
    "output_names",
    "precision_recall",
    "region",
    "reliability",
    "residuals",
    "roc",
    "rows_of",
    "rule_graph",
    "rule_metrics",
    "save",
    "scree",
    "sequential_jacobian",
    "silhouette",
    "surface",
    "telling_features",
    "titled",
]
