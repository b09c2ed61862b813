"""Proves that the code of the READMEs runs, one block after the other, and that its assertions hold."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks_of(path):
    """The blocks of Python, with line numbers of the file."""
    text = path.read_text()
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield "\n" * text.count("\n", 0, match.start(1)) + match[1]


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = list(blocks_of(README))
    assert len(blocks) >= 5
    names = {}
    for block in blocks:
        if "import torch" in block:
            try:
                import torch  # noqa: F401
            except ImportError:
                continue
        exec(compile(block, str(README), "exec"), names)


def test_the_code_of_the_main_readme_runs(make):
    pytest.importorskip("torch")
    path = README.parents[1] / "README.md"
    (block,) = blocks_of(path)
    names = {
        "samples": [make(seed) for seed in range(8)],
        "tail": lambda batch: batch.mean((2, 3)),
        "feature": make(9),
    }
    exec(compile(block, str(path), "exec"), names)
    assert len(names["stream"]) <= 600 and np.shape(names["feature"]) == make(9).shape
