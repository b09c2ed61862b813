"""Proves that the README's code runs, one block after the other, and that its assertions hold."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = README.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert len(blocks) >= 5
    names = {}
    for match in blocks:
        # Line numbers are those of the README.
        block = "\n" * text.count("\n", 0, match.start(1)) + match[1]
        if "import torch" in block:
            try:
                import torch  # noqa: F401
            except ImportError:
                continue
        exec(compile(block, str(README), "exec"), names)
