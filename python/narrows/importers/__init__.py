"""Trained models of other libraries as profiles.

What is read are the modules' parameters and buffers, by name; nothing here imports PyTorch, CompressAI or sc2bench.
"""

from __future__ import annotations

from .compressai import IndexedTables, from_entropy_bottleneck, from_factorized_prior, from_gaussian_conditional
from .sc2bench import EntropicStudent, from_entropic_student
from .tables import Tables, convert_tables

__all__ = [
    "EntropicStudent",
    "IndexedTables",
    "Tables",
    "convert_tables",
    "from_entropic_student",
    "from_entropy_bottleneck",
    "from_factorized_prior",
    "from_gaussian_conditional",
]
