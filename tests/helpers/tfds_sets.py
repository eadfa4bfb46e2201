"""Small sets in the on-disk format of TFDS."""

import tensorflow_datasets as tfds
from PIL import Image

FEATURES = tfds.features
WORDS = ("red", "green", "blue")


def prepare(
    set_name, features, splits, data_dir, *, file_format="array_record", config=None, **info
):
    """Writes a set in TFDS's own format; `splits` maps each split to its records."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = set_name
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=FEATURES.FeaturesDict(features), **info
            )

        def _split_generators(self, _):
            return {split: enumerate(records) for split, records in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    Builder(data_dir=str(data_dir), file_format=file_format).download_and_prepare()


def pictures(directory, count, *, suffix="png"):
    """Files of one color each: arrays would need TensorFlow to encode them."""
    directory.mkdir(exist_ok=True)
    paths = [directory / f"{index}.{suffix}" for index in range(count)]
    for index, path in enumerate(paths):
        Image.new("RGB", (6 + index % 3, 5), WORDS[index % 3]).save(path)
    return [str(path) for path in paths]
