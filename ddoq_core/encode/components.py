"""An autoencoder that starts as the best linear one of patches, their principal components, and learns what those
leave out: a network alone takes minutes to come as far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.models.autoencoders.vae import DecoderOutput
from sklearn.decomposition import PCA
from torch import nn

MOST_IMAGES = 4096  # whose patches are looked at


class ComponentsAutoencoder(ModelMixin, ConfigMixin):
    """z = A(x) + γ·E(x) and x̂ = B(z) + δ·D(z) of pictures x (B, 3, S, S) in [−1, 1]; A and B are linear maps of
    patches, E and D an AutoencoderTiny's (github.com/madebyollin/taesd). Its arguments are named as there."""

    @register_to_config
    def __init__(
        self,
        encoder_block_out_channels: Sequence[int],
        decoder_block_out_channels: Sequence[int],
        num_encoder_blocks: Sequence[int],
        num_decoder_blocks: Sequence[int],
        latent_channels: int,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
    ) -> None:
        super().__init__()
        patch = 2 ** (len(encoder_block_out_channels) - 1)
        self.analysis = nn.Conv2d(3, latent_channels, patch, stride=patch)  # A
        self.synthesis = nn.ConvTranspose2d(latent_channels, 3, patch, stride=patch)  # B
        self.rest = AutoencoderTiny(  # E and D
            encoder_block_out_channels=tuple(encoder_block_out_channels),
            decoder_block_out_channels=tuple(decoder_block_out_channels),
            num_encoder_blocks=tuple(num_encoder_blocks),
            num_decoder_blocks=tuple(num_decoder_blocks),
            latent_channels=latent_channels,
        )
        self.gain_of_latents = nn.Parameter(torch.zeros(latent_channels, 1, 1))  # γ
        self.gain_of_pictures = nn.Parameter(torch.zeros(3, 1, 1))  # δ

    def start(self, pictures: torch.Tensor) -> None:
        """Set A and B by pictures (n, 3, S, S). The latents' mean is then 0, their deviation about 1; γ and δ are 0.

        Raises ValueError for more latent channels than a patch has numbers.
        """
        channels, _, patch, _ = self.analysis.weight.shape
        if channels > 3 * patch**2:
            raise ValueError(f"patches of {patch} px have {3 * patch**2} components, not {channels}")
        chosen = pictures[:: -(-len(pictures) // MOST_IMAGES)]
        x = F.pixel_unshuffle(chosen, patch).movedim(1, -1).flatten(0, 2).numpy()  # (patches, 3·p²)
        found = PCA(channels, svd_solver="covariance_eigh").fit(x)
        axes = torch.from_numpy(found.components_).reshape(channels, 3, patch, patch).float()
        mean = torch.from_numpy(found.mean_).float().reshape(3, patch, patch)
        deviation = max(float(np.sqrt(found.explained_variance_.mean())), 1e-6)  # of images of one colour it is 0
        offset = -(axes * mean).sum((1, 2, 3)) / deviation
        self.analysis.load_state_dict({"weight": axes / deviation, "bias": offset})
        self.synthesis.load_state_dict({"weight": axes * deviation, "bias": mean.mean((1, 2))})

    def encode(self, x: torch.Tensor) -> AutoencoderTinyOutput:
        """Latents (B, C, H, W) of pictures."""
        return AutoencoderTinyOutput(latents=self.analysis(x) + self.gain_of_latents * self.rest.encode(x).latents)

    def decode(self, z: torch.Tensor) -> DecoderOutput:
        """Pictures of latents."""
        return DecoderOutput(sample=self.synthesis(z) + self.gain_of_pictures * self.rest.decode(z).sample)
