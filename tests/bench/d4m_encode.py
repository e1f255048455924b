"""D4M's way of encoding, re-stated with public libraries from the description of its published code.

Batches of 10 from a DataLoader, float32, the usual memory layout, latents sampled from the posterior; the class prompt
goes through the text encoder for every batch and is thrown away; each latent is copied to float64 on its own, as rows
for scikit-learn's k-means. The networks are random and small; the text encoder has the share of the computing that
CLIP ViT-L has beside Stable Diffusion v1.5's autoencoder at 512 px, about 1 %.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BATCH = 10
CHANNELS = (32, 64, 128, 128)


def save_small_autoencoder(folder: Path) -> Path:
    """An AutoencoderKL with the blocks of Stable Diffusion's, a quarter as wide, its weights random."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=CHANNELS,
        layers_per_block=2,
        latent_channels=4,
        sample_size=128,
        scaling_factor=0.18215,
    ).save_pretrained(folder)
    return folder


def in_a_process_of_its_own(images: Path, weights: Path, size_px: int, num_threads: int) -> float:
    """Seconds of encode_like_d4m, whose loader forks, without the caller's threads."""
    command = [sys.executable, "-m", "tests.bench.d4m_encode", str(images), str(weights), str(size_px)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def encode_like_d4m(images: Path, weights: Path, size_px: int) -> float:
    """Seconds to encode a folder of class folders on OMP_NUM_THREADS cores."""
    import torch
    from diffusers import AutoencoderKL
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4)
    ).eval()
    model = AutoencoderKL.from_pretrained(weights, low_cpu_mem_usage=False).eval()
    transform = transforms.Compose(
        [transforms.Resize((size_px, size_px)), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    )
    loader = DataLoader(
        datasets.ImageFolder(images, transform), BATCH, shuffle=True, num_workers=torch.get_num_threads()
    )
    rows: dict[int, list[np.ndarray]] = {}
    start = time.perf_counter()
    with torch.no_grad():
        for x, labels in loader:
            text(torch.randint(0, 49408, (len(x), 77)))
            z = model.encode(x).latent_dist.sample() * model.config.scaling_factor
            for latent, label in zip(z, labels, strict=True):
                rows.setdefault(int(label), []).append(latent.flatten().numpy().astype(np.float64))
    return time.perf_counter() - start


if __name__ == "__main__":
    print(encode_like_d4m(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
