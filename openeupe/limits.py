"""Upper limits of the counts, sizes and depths in inputs.

They are far above real use. They prevent a typing mistake or a malicious file from filling the
memory or the disk, or from running forever. Messages contain the limit.
"""

from __future__ import annotations

# Settings files
NAME_CHARACTERS = 100
MESSAGE_CHARACTERS = 2_000
YAML_BYTES = 2**20
YAML_DEPTH = 64  # mappings and lists inside one another; also parts of an override's key
YAML_VALUES = 100_000  # with every alias counted as often as it is used

# Training
WORKERS = 1_024  # loader processes, threads, jobs
STEPS = 10**9
BATCH = 2**20  # images
RESOLUTION = 2**14  # pixels of a square that an encoder sees
WIDTH = 2**16  # numbers of a token, of a hidden layer, and of any integer in an encoder's `args`
VIEWS = 10**6  # of each image
SEED = 2**63 - 1
FACTOR = 1_000  # strength of an augmentation, ratio of sides, weight of an image
RATE = 10**6  # learning rates, loss weights and the like
DEVICES = 10**6
MODULES = 20_000  # layers of a network, each with its parts
PARAMETERS = 10**11

# Images
IMAGES = 10**9  # of one source
FOLDER_PATHS = 1_000  # paths by which links lead to one folder
SHARDS = 10**6  # files of a pattern
IMAGE_BYTES = 2**30  # of an encoded image: a file, or a member of a tar file
IMAGE_WEIGHT = 1_000.0  # of an image in a manifest, where the mean is about 1
JSON_BYTES = 2**30  # of a file of results, answers or settings
