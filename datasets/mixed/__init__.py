"""ReferIt, Flickr30k phrases, and the merged pre-training sets of the SeqTR family that hold both."""

from vgbench.datasets.mixed.flickr30k import Flickr30k
from vgbench.datasets.mixed.merged import CocoAll, Mixed, MixedSeg
from vgbench.datasets.mixed.referit import ReferIt

__all__ = ["CocoAll", "Flickr30k", "Mixed", "MixedSeg", "ReferIt"]
