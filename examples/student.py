"""A student of ten lines, on what `ddoq export digits --to torch --out digits-distilled` wrote."""

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

data = torch.load("digits-distilled/distilled.pt")
loader = DataLoader(TensorDataset(data["images"], data["labels"], data["weights"]), batch_size=50, shuffle=True)
model = resnet18(num_classes=len(data["classes"]))
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
for epoch in range(20):
    for x, y, w in loader:
        loss = (w * cross_entropy(model(x / 255), y, reduction="none")).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
