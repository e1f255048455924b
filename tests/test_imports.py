"""What an import must not bring in: the core stays free of orchestration, and planning free of torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

import ddoq_core
from tasks.recipe.settings import COMPARE, STAGES
from tests.places import REPOSITORY


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("ddoq_core", {"prefect", "zarr", "dask", "distributed", "torch"}),
        ("ddoq_core.train.protocol", {"prefect", "zarr", "dask", "torch", "numpy", "sklearn"}),
        ("flows.distill", {"torch", "diffusers", "timm", "torchvision", "transformers"}),
        ("flows.cli", {"prefect", "torch", "zarr", "dask", "distributed", "pyarrow", "sklearn", "fsspec"}),
        ("flows.local", {"prefect", "torch", "zarr", "dask", "distributed", "pyarrow", "sklearn", "fsspec"}),
        ("tasks.inputs.data", {"prefect", "torch", "zarr", "dask", "distributed", "sklearn", "fsspec"}),
        ("tasks.inputs.checks", {"torch", "diffusers", "timm"}),
        ("tasks.recipe.settings", {"prefect", "torch", "zarr", "dask", "numpy", "sklearn"}),
        ("storage.inspection", {"prefect", "dask", "distributed", "torch"}),
    ],
)
def test_a_heavy_import_did_not_happen(module: str, absent: set[str]) -> None:
    loaded = loaded_by(f"import {module}")
    assert module.split(".")[0] in loaded
    assert loaded & absent == set()


def test_the_library_quantises_without_the_pipeline() -> None:
    statement = "from ddoq_core import Quantizer, quantize; Quantizer(2).fit(quantize([[0], [1], [2]], 2).centroids)"
    assert loaded_by(statement) & {"prefect", "zarr", "dask", "distributed", "torch"} == set()


def imports_of(module: str, path: Path, known: Collection[str]) -> set[str]:
    """Modules of tasks/ that a module of tasks/ imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found & set(known) - {module}


def test_no_stage_imports_another_and_chains_are_short() -> None:
    paths = {".".join(p.relative_to(REPOSITORY).with_suffix("").parts): p for p in (REPOSITORY / "tasks").rglob("*.py")}
    graph = {module: imports_of(module, path, paths) for module, path in paths.items()}
    stages = {module for module in graph if module.count(".") == 1}
    assert {f"tasks.{stage}" for stage in (*STAGES, COMPARE)} <= stages
    assert not {(stage, other) for stage in stages for other in graph[stage] & stages}

    def chain(module: str) -> list[str]:
        return [module, *max((chain(other) for other in graph[module]), key=len, default=[])]

    assert len(longest := max(map(chain, graph), key=len)) <= 4, longest


def test_the_library_gives_all_its_names_and_no_others() -> None:
    assert all(hasattr(ddoq_core, name) for name in ddoq_core.__all__)
    with pytest.raises(ImportError, match="cannot import name 'quantise'"):
        from ddoq_core import quantise  # type: ignore[attr-defined]  # noqa: F401
