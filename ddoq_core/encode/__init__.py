"""Images to latents: autoencoders, their precision, and how a small one is trained."""
