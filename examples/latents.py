"""The latents of a class in xarray, after `ddoq run digits`: named axes, read from the disk as they are asked for."""

import sys

import xarray as xr

store = sys.argv[1] if len(sys.argv) > 1 else "runs/digits/encode/latents.zarr"
three = xr.open_zarr(store, group="3")
print(dict(three.latents.sizes))
spread = three.latents.astype("float32").std("image").mean(("height", "width"))  # (channel,)
print("spread by channel:", *(f"{value:.2f}" for value in spread.values))
