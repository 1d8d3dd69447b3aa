"""Model, data, training and test, as an app of one's own would have them."""

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import models, transforms

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Photos(Dataset[tuple[Tensor, int]]):
    """Decodes an image whenever it is read."""

    def __init__(self, listed: Path, size: int) -> None:
        lines = [line.split("\t") for line in listed.read_text(encoding="utf-8").splitlines()]
        self._items = [(file, int(label)) for file, label in lines]
        self._transform = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, DEVIATION),
            ]
        )

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self._items[index]
        with Image.open(file) as image:
            return self._transform(image.convert("RGB")), label


def load_arrays(file: Path) -> tuple[Tensor, Tensor]:
    """Normalised images, (n, 3, size, size) float32, and labels, (n,) int64."""
    with np.load(file) as arrays:
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    return ((images.float() / 255 - mean) / deviation).permute(0, 3, 1, 2).contiguous(), labels


def load_data(
    folder: Path, name: str, size: int, batch_size: int, shuffle: bool
) -> "DataLoader[tuple[Tensor, Tensor]]":
    """Batches of the arrays of that name, or of the photos if there are none."""
    arrays = folder / f"{name}.npz"
    dataset = TensorDataset(*load_arrays(arrays)) if arrays.exists() else Photos(folder / f"{name}.tsv", size)
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)  # type: ignore[arg-type]


def build_model(name: str, num_classes: int, seed: int) -> nn.Module:
    """A torchvision ResNet whose initial weights depend on the seed alone; no global generator is left seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, zero_init_residual=True)
    return model


def train(
    model: nn.Module,
    loader: "DataLoader[tuple[Tensor, Tensor]]",
    epochs: int,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> tuple[float, int, float]:
    """Train in place; mean loss of a step, the number of steps, and their seconds without loading images."""
    model.to(DEVICE)
    model.train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    loss_sum, steps, seconds = 0.0, 0, 0.0
    for _ in range(epochs):
        for images, labels in loader:
            started = time.perf_counter()
            optimizer.zero_grad()
            loss = criterion(model(images.to(DEVICE)), labels.to(DEVICE))
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
            steps += 1
            seconds += time.perf_counter() - started
    return loss_sum / steps, steps, seconds


def test(model: nn.Module, loader: "DataLoader[tuple[Tensor, Tensor]]") -> tuple[float, float]:
    """Mean loss and accuracy."""
    model.to(DEVICE)
    model.eval()
    criterion = nn.CrossEntropyLoss(reduction="sum")
    loss, hits, count = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in loader:
            labels = labels.to(DEVICE)
            logits = model(images.to(DEVICE))
            loss += criterion(logits, labels).item()
            hits += int((logits.argmax(dim=1) == labels).sum())
            count += len(labels)
    return loss / count, hits / count
