"""Proves that the type hints are there, say what is correct, and agree with the extension module."""

import subprocess
import sys
from pathlib import Path

import pytest

import narrows

pytest.importorskip("mypy")


def run(*arguments, folder):
    result = subprocess.run([sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_calls_are_checked(tmp_path):
    source = Path(__file__).parent / "typed.py"
    run("mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(source), folder=tmp_path)


def test_the_package_itself_is_checked(tmp_path):
    arguments = ["-p", "narrows"]
    if not typed_torch():
        # Training alone knows PyTorch, whose early versions had few types.
        arguments = ["-m", "narrows", "-m", "narrows._errors", "-m", "narrows._tensors"]
    run("mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *arguments, folder=tmp_path)


def typed_torch():
    try:
        import torch
    except ImportError:
        return False
    return int(torch.__version__.split(".")[0]) >= 2


def test_stubs_are_those_of_the_module(tmp_path):
    run("mypy.stubtest", "narrows._narrows", "--concise", "--ignore-disjoint-bases", folder=tmp_path)


def test_everything_public_is_documented():
    for name in narrows.__all__:
        thing = getattr(narrows, name)
        if name != "__version__":
            assert thing.__doc__, name
            for part, value in vars(thing).items() if isinstance(thing, type) else []:
                assert part.startswith("_") or value.__doc__, f"{name}.{part}"
