"""What an import must not bring in: the core stays free of orchestration, and planning free of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("ddoq_core", {"prefect", "zarr", "dask", "distributed", "torch"}),
        ("flows.distill", {"torch", "diffusers", "timm", "torchvision", "transformers"}),
        ("tasks.inputs.checks", {"torch", "diffusers", "timm"}),
        ("tasks.recipe.settings", {"prefect", "torch", "zarr", "dask"}),
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
