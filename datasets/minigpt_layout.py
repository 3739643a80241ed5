"""The evaluation files of MiniGPT-v2: ``<set>_<split>.json``, one object per expression, boxes but no masks."""

from __future__ import annotations

import re
from pathlib import Path

from vgbench.datasets.layout import Layout, LayoutDataset, TargetReader, expression_of, folders

from vgbench.dataset import BadSample, check_size, take
from vgbench.errors import UserError
from vgbench.table import AnnotationTable

IMG_ID = re.compile(r"(COCO_train2014_(\d{12}))_(\d+)")


class MiniGPTLayout(Layout):
    """Entries {img_id ``COCO_train2014_<12 digits>_<n>``, sents (one text or a list), bbox xywh, height, width}."""

    key = "minigpt"

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        for stem in data.files.minigpt:
            for folder in folders(data.data_root, ("minigpt4_refcoco_eval", "eval_data", stem)):
                paths = {split: folder / f"{stem}_{split}.json" for split in data.splits}
                there = {split: path for split, path in paths.items() if path.is_file()}
                if there:
                    return cls(data, there)
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        return f"{data.files.minigpt[0]}_SPLIT.json (evaluation splits, boxes only)" if data.files.minigpt else ""

    def sources(self, split: str) -> list[Path]:
        return [self.files[split]] if split in self.files else []

    def read(self, split: str) -> AnnotationTable:
        path = self.files[split]
        entries = self.data.parse_file(path)
        if not isinstance(entries, list):
            raise UserError(f"{path}: holds a {type(entries).__name__}, expected a list of expressions")
        builder = self.data.builder(split, self)
        builder.notes.append("the texts of this layout are lower-cased, not as typed")
        targets = TargetReader()
        groups: dict[str, int] = {}
        for index, entry in enumerate(entries):
            try:
                img_id = take(entry, "img_id", str)
                parts = IMG_ID.fullmatch(img_id)
                if parts is None:
                    raise BadSample("img_id that is not COCO_train2014_<12 digits>_<n>", repr(img_id)[:80])
                width, height = check_size(take(entry, "width", int), take(entry, "height", int))
                target = {"box": take(entry, "bbox", list)}
                if self.data.file_suffix_is_ann_id:
                    target["ann_id"] = int(parts[3])
                found = targets.gather([target], width, height)
                sentences = take(entry, "sents", (str, list))
                texts = [expression_of(text) for text in ([sentences] if isinstance(sentences, str) else sentences)]
            except BadSample as error:
                builder.skip(f"{path}: [{index}]", error)
                continue
            for number, text in enumerate(texts):
                builder.add(
                    key=f"{split}.{index}.{number}",
                    image_id=int(parts[2]),
                    image=f"{parts[1]}.jpg",
                    width=width,
                    height=height,
                    expression=text,
                    group=groups.setdefault(img_id, len(groups)),
                    source=self.data.source,
                    **vars(found),
                )
        return builder.table()
