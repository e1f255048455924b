"""Strict loading of weights: every tensor a network has is given, of its shape, and no other.

diffusers and transformers fill what is missing with random numbers and say so in a log that nobody reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from ddoq_core.errors import InvalidInput

SHOWN = 3
DERIVED = "position_ids"  # 0, 1, 2, …, which old checkpoints hold and networks make themselves


def load_pretrained_network(kind: Any, weights: str | Path, subfolder: str | None = None) -> Any:
    """A network of diffusers or transformers in float32, of a class with `from_pretrained`.

    Raises InvalidInput for tensors that are missing, unexpected or of another shape, and for a file that is none of
    weights, OSError where there is no such folder.
    """
    where = f"{weights}/{subfolder}" if subfolder else str(weights)
    try:
        _check_shards(Path(where))
        network, told = kind.from_pretrained(
            str(weights),
            subfolder=subfolder or "",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to be told which
            low_cpu_mem_usage=False,
        )
    except (SafetensorError, RuntimeError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise InvalidInput(f"{where} holds no {kind.__name__}: {_first_line(error)}") from error
    shapes = [f"{name} {tuple(given)} for {tuple(wanted)}" for name, given, wanted in told["mismatched_keys"]]
    _refuse_misfits(where, told["missing_keys"], told["unexpected_keys"], shapes)
    return network.float()


def fill(network: nn.Module, state: Mapping[str, Any], where: str | Path) -> None:
    """Load tensors by name. Raises InvalidInput for what is missing, unexpected or of another shape."""
    own = network.state_dict()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise InvalidInput(f"{where}: {str(name)[:60]!r} is a {type(value).__name__}, no tensor")
    both = [name for name in state if name in own and state[name].shape != own[name].shape]
    shapes = [f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}" for name in both]
    _refuse_misfits(where, own.keys() - state.keys(), state.keys() - own.keys(), shapes)
    network.load_state_dict(state)


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name. Raises InvalidInput for a file that is none, OSError without one."""
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise InvalidInput(f"{path} is no whole safetensors file: {_first_line(error)}") from error


def _check_shards(folder: Path) -> None:
    """Raise InvalidInput for a folder's safetensors files that lack what their index says: diffusers believes it."""
    for index in folder.glob("*.safetensors.index.json"):
        place = json.loads(index.read_text())["weight_map"]
        for name in set(place.values()):
            with safe_open(folder / name, framework="pt") as file:
                there = set(file.keys())
            absent = [tensor for tensor, at in place.items() if at == name and tensor not in there]
            _refuse_misfits(folder / name, absent, (), ())


def _refuse_misfits(
    where: str | Path, missing: Iterable[str], unexpected: Iterable[str], shapes: Iterable[str]
) -> None:
    odd = [name for name in unexpected if not name.endswith(DERIVED)]
    kinds = {"missing": sorted(missing), "unexpected": sorted(odd), "of another shape": sorted(shapes)}
    faults = [f"{len(names)} tensors {kind} ({_few(names)})" for kind, names in kinds.items() if names]
    if faults:
        raise InvalidInput(f"{where} does not fit its network: {', '.join(faults)}: give whole weights of it")


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
