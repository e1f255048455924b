"""The card of an exported set: what it is, under which terms, and how it was made."""

from __future__ import annotations

import json

from tasks.export.handout import Handout

CARD = "README.md"


def card_text(handout: Handout, front_matter: str = "") -> str:
    """The data set's card, in Markdown."""
    where = " ".join(handout.card["source"].values())
    kind = "real" if handout.card["pictures"]["method"] == "medoid" else "synthetic"
    settings = json.dumps(handout.card, indent=1, default=str)
    mosaic, size_px = handout.card["pictures"].get("mosaic", 1), handout.images.shape[1]
    tiles = f"""
They are the tiles of {len(handout.images) // mosaic**2} mosaics of {mosaic}×{mosaic}, which were kept in the pixels of
as many pictures: of {size_px // mosaic} px each, brought up to {size_px} px bilinearly as students are shown them.
"""
    return f"""{front_matter}# A distilled data set

{len(handout.images)} {kind} pictures of {len(handout.classes)} classes, {size_px} px, made by
ddoq (optimal quantisation in latent space, arXiv 2501.07681).
{tiles if mosaic > 1 else ""}
Each picture has a weight: multiply its loss by it. The mean over a class is 1, or at most 1 for the rule
`sqrt-paper`. `centroid` is the number of the prototype within its class. Soft labels, where there are any, are a
teacher's logits for the picture as it is, without augmentation.

## Licence

These pictures derive from: {where}. Its licence and terms of use hold for them too, as may those of the
autoencoder, the diffusion model and the teacher. Read them before you pass the set on.

## How it was made

```json
{settings}
```
"""
