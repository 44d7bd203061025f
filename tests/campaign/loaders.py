"""Everything that the project reads, as functions of bytes, with honest files to begin with.

A reader gives its input to the project's own loader. It returns where that was read or refused as
documented, and raises where something else happened, or where what was read can't be.

Checksums of .npz members are not compared, since no random change would get past them, and .tar is
packed here for the same reason. Those of checkpoints are: they are the point.
"""

from tests.campaign import features, images, kept
from tests.campaign.reading import Loader

LOADERS: dict[str, Loader] = {**images.LOADERS, **features.LOADERS, **kept.LOADERS}
