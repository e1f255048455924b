"""A teacher or a prior as a folder of its own: weights, classes in the order of its outputs or inputs, a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from storage.artifact import Artifact
from storage.errors import UsageError
from storage.files import whole_folder, write_json
from storage.names import without_places
from tasks.export.handout import CARD, front_text, source_of
from tasks.inputs.models import ELSEWHERE, read_model
from tasks.inputs.stores import index_of

AUTOENCODER = "autoencoder"  # the folder in a prior's, in whose latents it draws
CLASSES = "classes.json"
KINDS = ("teacher", "prior")

LOAD = {
    "teacher": """from pathlib import Path

import torch
from ddoq_core.train.networks import load_classifier

teacher = load_classifier(Path("."))
pictures = torch.rand(2, 3, {size_px}, {size_px})  # (B, 3, S, S), sRGB from 0 to 1
logits = teacher(pictures)  # (B, {num_classes}), in the order of classes.json
""",
    "prior": """from ddoq_core.decode.transformer import FlowTransformer

prior = FlowTransformer.from_pretrained(".")  # the velocity of latents (B, C, S, S), by time and class
""",
    "autoencoder": """from diffusers import AutoencoderKL

autoencoder = AutoencoderKL.from_pretrained("autoencoder")
""",
}
WHAT = {
    "teacher": "A classifier, whose logits label distilled pictures",
    "prior": "A class-conditional rectified flow in an autoencoder's latents, which turns centroids into pictures",
}
TOLD: dict[str, dict[str, Any]] = {
    "teacher": {"pipeline_tag": "image-classification", "metrics": ["accuracy"]},
    "prior": {"pipeline_tag": "unconditional-image-generation", "library_name": "diffusers"},
}


def export_model(artifact: Artifact, out: Path) -> None:
    """Write a model with its card into a new folder. Raises UsageError for weights that are somebody else's."""
    with whole_folder(out) as folder:
        write_model(artifact, folder)


def write_model(artifact: Artifact, folder: Path) -> None:
    """Write a teacher or a prior, and what goes with it, into a folder that is there or not."""
    model = read_model(artifact)
    if (model / ELSEWHERE).exists():
        raise UsageError(f"{artifact} is no model of ours, but weights that were given: hand out their own address")
    shutil.copytree(model, folder, dirs_exist_ok=True)
    parts = [LOAD[artifact.stage]]
    if artifact.stage == "prior" and not (read_model(artifact.ancestor(AUTOENCODER)) / ELSEWHERE).exists():
        shutil.copytree(read_model(artifact.ancestor(AUTOENCODER)), folder / AUTOENCODER)
        parts.append(LOAD[AUTOENCODER])
    write_json(folder / CLASSES, index_of(artifact).classes)
    (folder / CARD).write_text(_card(artifact, "\n".join(parts)))


def _card(artifact: Artifact, load: str) -> str:
    """The model's card, in Markdown."""
    record, where = artifact.record(), " ".join(source_of(artifact.ancestor("shard")).values())
    classes = index_of(artifact).classes
    told = {
        "license": "other",
        "license_name": f"that of {where}",
        "tags": ["dataset-distillation", "ddoq", artifact.stage],
        **TOLD[artifact.stage],
    }
    size_px = json.loads((read_model(artifact) / "config.json").read_text()).get("size_px", 0)
    numbers = {k: v for k, v in record.facts.items() if isinstance(v, int | float)}
    if losses := record.facts.get("losses"):
        numbers["last mean of the training loss"] = losses[-1]
    settings = without_places(record.config)
    made = {"settings": settings, "made from": {"digest": str(artifact)}, "versions": record.versions}
    found = "\n".join(f"- {name}: {value:.4g}" for name, value in numbers.items())
    accuracy = "Top-1 is the share of held-out real images, the last epoch's.\n\n" if "top1" in numbers else ""
    return f"""{front_text(told)}# A {artifact.stage} of ddoq

{WHAT[artifact.stage]}, made by ddoq (optimal quantisation in latent space,
arXiv 2501.07681) for {len(classes)} classes of {where}. `{CLASSES}` names them in their order.

## Licence

It was trained on images of: {where}. Their licence and terms of use may hold for it too, as may those of weights that
it started from. Read them before you pass it on.

## How it does

{accuracy}{found}

## How to load it

In this folder, with ddoq installed:

```python
{load.format(size_px=size_px, num_classes=len(classes))}```

## How it was made

```json
{json.dumps(made, indent=1, default=str)}
```
"""
