"""The merged pre-training sets of the SeqTR family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, TypeVar

from vgbench.core.errors import UserError
from vgbench.data.builder import TableBuilder
from vgbench.data.checks import BadSample, check_name, take
from vgbench.data.dataset import Counts
from vgbench.data.layouts.base import Layout, LayoutDataset
from vgbench.data.layouts.flat import files_by_split
from vgbench.data.layouts.mdetr import MDETR_FOLDERS, MDETRLayout
from vgbench.data.layouts.seqtr import SeqTRLayout, read_splits
from vgbench.data.layouts.targets import number_in
from vgbench.datasets.refcoco import RefCOCO, RefCOCOg, RefCOCOPlus
from vgbench.datasets.vg import coco_aliases, evaluation_images, read_image_data

__all__ = ["CocoAll", "Mixed", "MixedSeg"]

_Entry = TypeVar("_Entry")


# data_source of the merged files -> (source, folder of the images, image name)
SOURCES = {
    "coco": ("coco", "mscoco/train2014", "COCO_train2014_{:012d}.jpg"),
    "vg": ("vg", "visual-genome", "{:d}.jpg"),
    "visual-genome": ("vg", "visual-genome", "{:d}.jpg"),
    "saiaprtc12": ("saiaprtc12", "saiaprtc12", "{:d}.jpg"),
    "flickr": ("flickr", "flickr30k", "{:d}.jpg"),
    "flickr30k": ("flickr", "flickr30k", "{:d}.jpg"),
}


class MergedLayout(SeqTRLayout):
    """The SeqTR layout of a merged file: entries say by ``data_source`` where their image comes from."""

    data: Mixed

    def data_source(self, entry: Any, split: str) -> str:
        """A key of :data:`SOURCES`; evaluation entries may leave it to the name of the split.

        Raises:
            BadSample: if it is not known.
        """
        if isinstance(entry, dict) and "data_source" not in entry:
            for part, source in (("flickr", "flickr"), ("referit", "saiaprtc12"), ("refcoco", "coco")):
                if part in split:
                    return source
        value = take(entry, "data_source", str)
        if value not in SOURCES:
            raise BadSample("unknown data_source", f"{value!r}; known: {', '.join(SOURCES)}")
        return value

    def image_name(self, entry: dict[str, Any], image_id: int, split: str) -> tuple[str, str]:
        source, folder, name = SOURCES[self.data_source(entry, split)]
        return source, f"{folder}/{name.format(image_id)}"

    def image_of(self, entry: Any, split: str) -> tuple[str, int] | None:
        """(source, image id), or None if the entry is not usable (which :meth:`read` reports)."""
        try:
            return SOURCES[self.data_source(entry, split)][0], take(entry, "image_id", int)
        except BadSample:
            return None

    def entries(self, split: str, builder: TableBuilder) -> Iterator[tuple[int, Any]]:
        leaked = self.excluded_images() if split == "train" and self.data.exclude_eval_images else set()
        with_images = ((each, self.image_of(each[1], split)) for each in super().entries(split, builder))
        yield from self.data.sift(with_images, leaked, builder)
        if leaked and builder.info["entries"]["kept"].get("vg") and self.data.vg_image_data is None:
            builder.warnings.append(
                "Visual Genome images that are evaluation images cannot be told without vg_image_data=image_data.json"
            )

    def excluded_images(self) -> set[tuple[str, int]]:
        """(source, image id) of the images that training must not see."""
        coco = evaluation_images()
        excluded = {("coco", number) for number in coco}
        if self.data.vg_image_data is not None:
            images = read_image_data(self.data.vg_image_data)
            excluded |= {("vg", number) for number, image in images.items() if image.get("coco_id") in coco}
        for split, entries in self.data.parse_file(self.files["instances"], read_splits).items():
            if split != "train":
                excluded |= {image for entry in entries if (image := self.image_of(entry, split)) is not None}
        return excluded


class MergedMasksLayout(MergedLayout):
    """``annotations/mixed-seg/instances_nogoogle.json``: the SeqTR files of RefCOCO unc, RefCOCO+ unc and RefCOCOg umd
    in one, all on COCO images; PropVG and InstanceVG add ``id``."""

    file_names = ("instances_nogoogle_withid.json", "instances_nogoogle.json", "instances.json")

    def data_source(self, entry: Any, split: str) -> str:
        return super().data_source(entry, split) if isinstance(entry, dict) and "data_source" in entry else "coco"


class MergedPhrasesLayout(MDETRLayout):
    """MDETR's own merged set, ``final_mixed_train.json`` or its part ``final_mixed_train_no_coco.json``: RefCOCO/+/g,
    Visual Genome and GQA. A caption strings several sentences of one image together, so the expressions are the
    phrases that its annotations mark (``tokens_positive``), each with one box around all of its boxes."""

    data: Mixed

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        for ending in (".json", "_no_coco.json"):
            path = files_by_split(data, ("final_mixed",), MDETR_FOLDERS, ending).get("train")
            if path is not None:
                return cls(data, {"train": path})
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        return "final_mixed_train.json or final_mixed_train_no_coco.json (MDETR's set, phrases)"

    @property
    def by_phrase(self) -> bool:
        return True

    def image_of(self, entry: Any) -> tuple[str, int, str]:
        name = check_name(take(entry, "file_name", str))
        data_source = take(entry, "data_source", str)
        if data_source not in ("coco", "vg"):
            raise BadSample("unknown data_source", f"{data_source!r}; known: coco, vg")
        source, folder, _ = SOURCES[data_source]
        return source, number_in(name), f"{folder}/{name}"  # original_id is text here

    def entries(self, split: str, images: list[Any], builder: TableBuilder) -> Iterator[tuple[int, int, Any]]:
        # Visual Genome's images that are COCO images are there as such: ids tell
        leaked = {("coco", number) for number in evaluation_images()} if self.data.exclude_eval_images else set()
        with_images = (((index, index, entry), self._image_key(entry)) for index, entry in enumerate(images))
        yield from self.data.sift(with_images, leaked, builder)
        builder.warnings.append("this is MDETR's mixed set, not the one that SeqTR, SimVG and ALVG train on")

    def _image_key(self, entry: Any) -> tuple[str, int] | None:
        try:
            return self.image_of(entry)[:2]
        except BadSample:
            return None


class Mixed(LayoutDataset):
    """The merged pre-training set ("174K images"): COCO, Visual Genome, SAIAPR and Flickr30k in one file.

    Where that is not there, MDETR's merged set is taken (layout ``mdetr``, ``train`` only), with a warning.

    Args:
        exclude_eval_images: leave out of ``train`` what shares an image with an evaluation split: COCO images of the
            RefCOCO family (:func:`evaluation_images`), images of the file's own validation splits, and, if
            ``vg_image_data`` is given, Visual Genome images that are such COCO images.
        vg_image_data: Visual Genome's ``image_data.json`` (``image_id`` and ``coco_id`` per image).
        options: see :class:`~vgbench.data.layouts.base.LayoutDataset`.
    """

    name = "mixed"
    title = "Mixed pre-training set"
    tasks: tuple[str, ...] = ("rec",)
    licence = "each part has its own; see the authors' pages"
    homepage = "https://github.com/seanzhuh/SeqTR"
    layouts: tuple[type[Layout], ...] = (MergedLayout, MergedPhrasesLayout)
    image_folders = ("images", "data/images")
    layout_names: Mapping[str, Any] = {
        "seqtr": ("mixed",),
    }
    kept_sources: ClassVar[frozenset[str]] = frozenset({"coco", "vg", "saiaprtc12", "flickr"})
    splits: Mapping[str, Counts] = {
        "train": Counts(),
        "val_refcoco_unc": Counts(1_500, None, 10_834),
        "val_refcocoplus_unc": Counts(1_500, None, 10_758),
        "val_refcocog_umd": Counts(1_300, None, 4_896),
        "val_flickr30k": Counts(),
        "val_referitgame_berkeley": Counts(),
    }
    disjoint = False  # RefCOCO and RefCOCO+ share their validation images
    # other places of the images below the image root, by the folder in the table
    _other_folders: ClassVar[dict[str, tuple[str, ...]]] = {
        "mscoco/train2014": ("mscoco/images/train2014", "train2014", "mscoco/train2017", "train2017"),
        "visual-genome": (
            "visual-genome/VG_100K",
            "visual-genome/VG_100K_2",
            "vg",
            "vg/VG_100K",
            "vg/VG_100K_2",
            "gqa/images",
        ),
        "saiaprtc12": ("saiapr_tc-12", "referit/images"),
        "flickr30k": ("flickr30k_images", "flickr30k-images"),
    }
    file_options = frozenset({"vg_image_data"})

    def __init__(
        self,
        data_root: str | Path | None = None,
        *,
        exclude_eval_images: bool = True,
        vg_image_data: str | Path | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data_root, **options)
        self.exclude_eval_images = exclude_eval_images
        self.vg_image_data = None if vg_image_data is None else Path(vg_image_data).expanduser()

    def options(self) -> dict[str, Any]:
        return {**super().options(), "exclude_eval_images": self.exclude_eval_images}

    def sift(
        self,
        entries: Iterable[tuple[_Entry, tuple[str, int] | None]],
        leaked: set[tuple[str, int]],
        builder: TableBuilder,
    ) -> Iterator[_Entry]:
        """The entries of the wanted sources whose image (source, id) is not in ``leaked``, and those whose image is not
        known (None); the numbers go to ``builder``."""
        counts: dict[str, Counter[str]] = {"kept": Counter(), "of another source": Counter(), "excluded": Counter()}
        excluded_images: set[tuple[str, int]] = set()
        for entry, image in entries:
            if image is None:
                yield entry
                continue
            fate = (
                "of another source" if image[0] not in self.kept_sources else "excluded" if image in leaked else "kept"
            )
            counts[fate][image[0]] += 1
            if fate == "excluded":
                excluded_images.add(image)
            if fate == "kept":
                yield entry
        builder.info["excluded_images"] = len(excluded_images)
        builder.info["entries"] = {key: dict(value) for key, value in counts.items()}
        for what, per_source in counts.items():
            if per_source:
                text = ", ".join(f"{source} {count:,}" for source, count in sorted(per_source.items()))
                builder.notes.append(f"entries {what}: {text}")

    def image_aliases(self) -> Mapping[tuple[str, int], tuple[str, int]]:
        return {} if self.vg_image_data is None else coco_aliases(self.vg_image_data)

    def sources(self, split: str) -> list[Path]:
        sources = super().sources(split)
        if split == "train" and self.exclude_eval_images and self.vg_image_data is not None:
            if not self.vg_image_data.is_file():
                raise UserError(f"{self.name}: {self.vg_image_data}: no such file; set vg_image_data=FILE")
            sources = [*sources, self.vg_image_data]
        return sources

    def image_file_names(self, image: str) -> Iterator[str]:
        """The names of an image below the image root, in every folder that its collection is usual in."""
        path = PurePosixPath(image)
        names = [path.name, *super().image_file_names(path.name)] if path.name.startswith("COCO_") else [path.name]
        for folder in (str(path.parent), *self._other_folders.get(str(path.parent), ())):
            for name in names:
                yield f"{folder}/{name}"


class CocoAll(Mixed):
    """The COCO part of the merged set ("28K images": the union of the unc, unc+ and umd training images)."""

    name = "cocoall"
    title = "COCO part of the mixed pre-training set"
    layouts: tuple[type[Layout], ...] = (MergedLayout,)
    kept_sources = frozenset({"coco"})
    splits: Mapping[str, Counts] = {
        key: value for key, value in Mixed.splits.items() if key.startswith(("train", "val_refcoco"))
    }


class MixedSeg(Mixed):
    """RefCOCO (unc), RefCOCO+ (unc) and RefCOCOg (umd) in one, with masks: what PropVG and InstanceVG train on."""

    name = "mixed-seg"
    title = "RefCOCO/+/g in one, with masks"
    tasks = ("rec", "res")
    homepage = "https://github.com/Dmmm1997/PropVG"
    layouts: tuple[type[Layout], ...] = (MergedMasksLayout,)
    layout_names: Mapping[str, Any] = {
        "seqtr": ("mixed-seg",),
    }
    kept_sources = frozenset({"coco"})
    splits: Mapping[str, Counts] = {
        "train": Counts(),
        **{
            f"{split}_{name}": counts
            for name, (counts_by_split, _) in (
                ("refcoco_unc", RefCOCO.variants["unc"]),
                ("refcocoplus_unc", RefCOCOPlus.variants["unc"]),
                ("refcocog_umd", RefCOCOg.variants["umd"]),
            )
            for split, counts in counts_by_split.items()
            if split != "train"
        },
    }
