"""Tiny diffusers pipelines of random weights, saved to disk as published ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

SD_SCHEDULE: dict[str, Any] = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1,
}  # fmt: skip


def tiny_vae(**more: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(8,),
        norm_num_groups=8,
        sample_size=8,
        **{"latent_channels": 4, **more},
    )


def tiny_unet(**more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
        **more,
    )


def tiny_tokenizer(folder: Path, length: int = 12) -> CLIPTokenizer:
    """Byte pairs of a few letters, as CLIP's own files spell them; prompts are padded to a length in tokens."""
    folder.mkdir(parents=True)
    letters = [*"acdogt", *(f"{letter}</w>" for letter in "acdogt")]
    tokens = [*letters, "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=length)


def text_encoder(
    tokenizer: CLIPTokenizer, width: int, num_layers: int, num_heads: int, kind: Any = CLIPTextModel
) -> Any:
    """CLIP's text encoder at a size, or another of its kinds."""
    config = CLIPTextConfig(
        projection_dim=width,
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config)


def save_stable_diffusion(folder: Path) -> Path:
    """A StableDiffusionPipeline of random weights for images of 8 px and latents of 4×8×8."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder / "words")
    unet = tiny_unet(cross_attention_dim=16)
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=text_encoder(tokenizer, width=16, num_layers=2, num_heads=2),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler(**SD_SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def save_dit(folder: Path) -> Path:
    """A DiTPipeline of random weights for latents of 4×8×8 that knows 1,000 classes, some by name."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,  # noise and variance, as in DiT-XL/2
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=1000,
    )
    for parameter in transformer.parameters():  # a fresh DiT's last layers are small: let the classes matter
        parameter.data += 0.1 * torch.randn(parameter.shape)
    DiTPipeline(transformer, tiny_vae(), DDIMScheduler()).save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["id2label"] = {"1": "goldfish, Carassius auratus", "3": "shark", "7": "cock"}  # as published, not saved
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def save_stable_diffusion_xl(folder: Path) -> Path:
    """A StableDiffusionXLPipeline of random weights for images of 8 px and latents of 4×8×8."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder / "words")
    unet = tiny_unet(
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 16,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=text_encoder(tokenizer, width=16, num_layers=2, num_heads=2),
        text_encoder_2=text_encoder(tokenizer, 16, 2, 2, CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(**{k: v for k, v in SD_SCHEDULE.items() if k != "set_alpha_to_one"}),
    )
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def save_stable_diffusion_3(folder: Path) -> Path:
    """A StableDiffusion3Pipeline of random weights without T5, for images of 8 px and latents of 16×8×8."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder / "words")
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        out_channels=16,
        pos_embed_max_size=8,
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=text_encoder(tokenizer, 16, 2, 2, CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        text_encoder_2=text_encoder(tokenizer, 16, 2, 2, CLIPTextModelWithProjection),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def save_pixart(folder: Path, kind: Any = PixArtSigmaPipeline, sample_size: int = 8) -> Path:
    """A PixArtSigmaPipeline, or another of PixArt's, of random weights for images of 8 px and latents of 4×8×8."""
    torch.manual_seed(0)
    pieces = ["<pad>", "</s>", "<unk>", "▁", *"acdogt"]
    tokenizer = T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    transformer = PixArtTransformer2DModel(
        sample_size=sample_size,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=16,
    )
    pipeline = kind(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(config),
        vae=tiny_vae(scaling_factor=0.13025),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )
    pipeline.save_pretrained(folder)
    return folder


def tiny_dc_autoencoder() -> AutoencoderDC:
    """Latents of 4×1×1 from images of 32 px."""
    settings = {f"{half}_layers_per_block": (1,) * 6 for half in ("encoder", "decoder")}
    settings |= {f"{half}_block_out_channels": (4, 4, 4, 4, 8, 8) for half in ("encoder", "decoder")}
    return AutoencoderDC(latent_channels=4, attention_head_dim=4, scaling_factor=0.41407, **settings)


def save_sana(folder: Path, scheduler: Any = None) -> Path:
    """A SanaPipeline of random weights for images of 32 px and more, 32 px for each latent of 4 channels."""
    torch.manual_seed(0)
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"acdogt"]
    tokenizer = GemmaTokenizer(vocab={token: k for k, token in enumerate(tokens)})
    config = Gemma2Config(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=8,
        timestep_scale=0.5,
    )
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    pipeline = SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(config),
        vae=tiny_dc_autoencoder(),
        transformer=transformer,
        scheduler=scheduler or DPMSolverMultistepScheduler(**flow),
    )
    pipeline.save_pretrained(folder)
    return folder
