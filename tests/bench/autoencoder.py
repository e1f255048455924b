"""What the trained autoencoder of the recipe `folder` keeps of photographs, and what its start alone does:
`uv run python -m tests.bench.autoencoder IMAGES --root FOLDER [--size-px 32] [--seconds 120]` prints a table and, last,
one line of JSON.

IMAGES are class folders. Each row has the seconds, of one core; psnr_db and recognised are those of the training images
that the recipe keeps for choosing, the latter the share that a teacher knows of what comes back. Shard, view and
teacher are made as in a run, in FOLDER, and kept there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ddoq_core.encode.autoencoder import encode, pictures_of, reconstruction_psnr
from ddoq_core.encode.training import train_autoencoder
from ddoq_core.train.accuracy import predict
from flows.catalogue import load_recipe
from tasks import shard, teacher, view
from tasks.inputs.models import load_classifier
from tasks.inputs.real import read_split
from tasks.inputs.sizes import Watch
from tasks.inputs.stores import indexed
from tests.tasks.conftest import complete

CHANNELS = (8, 16, 32)
STEPS_TIMED = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--size-px", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120, help="of one core, for each row")
    parser.add_argument("--teacher-epochs", type=int, default=24)
    args = parser.parse_args()
    torch.set_num_threads(1)
    given = {"data.path": str(args.images.absolute()), "images.size_px": args.size_px, "minutes": None}
    lengths = {"autoencoder.train.num_steps": 1, "prior.train.num_steps": 1, "teacher.num_epochs": args.teacher_epochs}
    recipe = load_recipe("folder").with_changes({**given, **lengths})
    listed, index = indexed(complete(shard.plan(recipe, args.root.absolute())))
    judge = load_classifier(complete(teacher.plan(recipe, listed, complete(view.plan(recipe, listed, "train")))))
    images, _ = read_split(listed, index, "train", recipe.images.for_training)
    kept, labels = read_split(listed, index, "tune", recipe.images.for_training)

    def measured(model: Any) -> dict[str, float]:
        again = pictures_of(model, torch.from_numpy(encode(model, kept, dtype=np.float32))) if model else kept
        known = float((predict(judge, again).argmax(1) == labels).mean())
        return {"recognised": known, **({"psnr_db": reconstruction_psnr(model, kept)} if model else {})}

    rows = {"the images": {"steps": 0, **measured(None)}}
    config = recipe.autoencoder.train
    assert config is not None
    for channels in CHANNELS:
        own = {**config.shape(args.size_px), "latent_channels": channels}
        settings = {**config.model_dump(exclude={"num_steps"}), **own, "kind": "components"}
        start, _ = train_autoencoder(images, **{**settings, "learning_rate": 0.0}, num_steps=1, checkpoint=Watch())
        rows[f"{channels} channels, the start"] = {"steps": 0, **measured(start)}
        watch = Watch()
        train_autoencoder(images[:256], **settings, num_steps=STEPS_TIMED, checkpoint=watch)
        steps, began = int(args.seconds / watch.seconds), time.monotonic()
        model, _ = train_autoencoder(images, **settings, num_steps=steps, checkpoint=Watch())
        rows[f"{channels} channels"] = {"steps": steps, "seconds": time.monotonic() - began, **measured(model)}
    table = Table("autoencoder", *(names := ("steps", "seconds", "psnr_db", "recognised")))
    for name, row in rows.items():
        table.add_row(name, *(f"{row[key]:.4g}" if key in row else "" for key in names))
    Console(width=100).print(table)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
