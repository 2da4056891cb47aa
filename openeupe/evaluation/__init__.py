"""Tokens -> scores: benchmarks, typed results, comparisons."""

from openeupe.evaluation.compare import Comparison, PairedDifference, compare
from openeupe.evaluation.records import BenchmarkResult, Metric
from openeupe.evaluation.results import Results
from openeupe.table import Table

__all__ = [
    "BenchmarkResult",
    "Comparison",
    "Metric",
    "PairedDifference",
    "Results",
    "Table",
    "compare",
]
