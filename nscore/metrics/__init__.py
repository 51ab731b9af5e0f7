"""Metrics: each a function from columns to an aggregating Polars expression, one to a file.

A new one is a file beside these with one function under `@metric(...)`, an import line here, and its test; it then
appears in the catalogue, in `nscore.score` and on the command line.
"""

# In the catalogue's order, which is the order of the import lines: the original's three scores first.
# ruff: noqa: I001
from nscore.metrics._catalogue import CATALOGUE, DEFAULT, Metric, MetricLike, metric, resolve
from nscore.metrics._moments import MOMENTS, Columns, Moments, moments
from nscore.metrics.ev_correlation_score import ev_correlation_score
from nscore.metrics.rsquared_score import rsquared_score
from nscore.metrics.absolute_dev_explained_score import absolute_dev_explained_score
from nscore.metrics.pearson import pearson
from nscore.metrics.spearman import spearman
from nscore.metrics.cosine import cosine
from nscore.metrics.r2_about_mean import r2_about_mean
from nscore.metrics.d2_absolute_error import d2_absolute_error
from nscore.metrics.mean_squared_error import mean_squared_error
from nscore.metrics.mean_absolute_error import mean_absolute_error
from nscore.metrics.auroc import auroc
from nscore.metrics.average_precision import average_precision
from nscore.metrics.coverage import coverage

__all__ = [
    "CATALOGUE",
    "DEFAULT",
    "MOMENTS",
    "Columns",
    "Metric",
    "MetricLike",
    "Moments",
    "absolute_dev_explained_score",
    "auroc",
    "average_precision",
    "cosine",
    "coverage",
    "d2_absolute_error",
    "ev_correlation_score",
    "mean_absolute_error",
    "mean_squared_error",
    "metric",
    "moments",
    "pearson",
    "r2_about_mean",
    "resolve",
    "rsquared_score",
    "spearman",
]
