"""What an import must not bring in: the core stays free of orchestration, and planning free of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ddoq_core


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
        ("flows.cli", {"prefect", "torch", "zarr", "dask", "distributed", "pyarrow", "sklearn"}),
        ("flows.local", {"prefect", "torch", "zarr", "dask", "distributed", "pyarrow", "sklearn"}),
        ("tasks.inputs.data", {"prefect", "torch", "zarr", "dask", "distributed", "sklearn"}),
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


def test_the_library_gives_all_its_names_and_no_others() -> None:
    assert all(hasattr(ddoq_core, name) for name in ddoq_core.__all__)
    with pytest.raises(ImportError, match="cannot import name 'quantise'"):
        from ddoq_core import quantise  # type: ignore[attr-defined]  # noqa: F401
