"""Python that loads the model of a folder and classifies a photo, for the card. A test runs it."""

from textwrap import indent

from runs.hub.subject import Subject

TIMM = """\
import timm
import torch
from PIL import Image, ImageOps

network = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
with torch.inference_mode():
    probabilities = network(transform(photo)[None]).softmax(dim=1)[0]
print(network.pretrained_cfg["label_names"][int(probabilities.argmax())], float(probabilities.max()))
"""
BEFORE = """\
import json
{imports}
import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

with open("config.json", encoding="utf-8") as file:
    config = json.load(file)
weights = load_file("model.safetensors")
"""
ONE = """\
{build}
network.load_state_dict(weights)
network.eval()
"""
SEVERAL = """

def build():
{build}
    return network


networks = []
for number in range(config["networks"]):
    start = f"networks.{{number}}."
    own = {{name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}}
    networks.append(build().eval())
    networks[-1].load_state_dict(own)
"""
AFTER = """
side = config["image_size"]
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
photo = photo.resize((side, side), Image.Resampling.BILINEAR)
pixels = torch.from_numpy(np.array(photo)).float() / 255
inputs = ((pixels - torch.tensor(config["mean"])) / torch.tensor(config["std"])).permute(2, 0, 1)[None]
with torch.inference_mode():
    probabilities = {probabilities}
print(config["label_names"][int(probabilities.argmax())], float(probabilities.max()))
"""
OF_ONE = "network(inputs).softmax(dim=1)[0]"
OF_SEVERAL = "torch.stack([network(inputs).softmax(dim=1) for network in networks]).mean(dim=0)[0]"


def code(subject: Subject) -> str:
    """Lines to run in the folder, beside a photo named ``photo.jpg``; they end by printing class and probability."""
    if subject.is_timms:
        return TIMM
    lines = subject.lines_that_build.splitlines()
    imports = dict.fromkeys(line for line in lines if line.startswith(("import ", "from ")))
    build = "\n".join(line for line in lines if line not in imports)
    one = subject.opened.facts.networks == 1
    middle = ONE.format(build=build) if one else SEVERAL.format(build=indent(build, "    "))
    after = AFTER.format(probabilities=OF_ONE if one else OF_SEVERAL)
    return BEFORE.format(imports="\n".join(imports)) + middle + after
