"""What lies beside the weights in a checkpoint: which objects are inert, and what a file names.

``torch.load(weights_only=True)`` refuses a file for one date or path in it. Objects that only hold values are put in
as empty stand-ins here, so that the weights beside them can be read: nothing of the classes that a file names is ever
imported or called. Anything else is refused, by the name that stands in the file.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# full names of what only holds values: numbers, states, paths, versions, dates, containers, options
_VALUES = re.compile(
    r"""
    numpy\.(_?core\.(multiarray|numeric|_multiarray_umath)\.(_reconstruct|scalar|_frombuffer|_internal)
           |ndarray|dtype|dtypes?\.\w+|bool_?|str_|bytes_|void|(u?int|float|complex|datetime|timedelta)\d*_?
           |random\.(_pickle|mtrand|bit_generator|_generator|_mt19937|_pcg64|_philox|_sfc64)\.\w+
           |ma(\.core)?\.\w+)
    |pathlib(\._local)?\.\w+
    |(packaging\.version|distutils\.version|pkg_resources(\.\w+)*\.version|packaging\._structures)\.\w+
    |torch\.torch_version\.TorchVersion
    |torch\.(_C\.)?Generator|torch\.(memory_format|layout|preserve_format|strided)
    |datetime\.\w+|zoneinfo\.ZoneInfo(\._unpickle)?|dateutil\.tz\.\w+\.\w+
    |builtins\.(set|frozenset|complex|bytearray|slice|range|object|int|float|bool|str|bytes|tuple|type|Exception)
    |copyreg\._reconstructor
    |decimal\.Decimal|fractions\.Fraction|uuid\.(UUID|SafeUUID)|enum\.\w+|random\.Random
    |argparse\.Namespace|types\.SimpleNamespace|optparse\.Values
    |typing\.\w+
    |omegaconf\.\w+(\.\w+)+
    |ml_collections(\.\w+)*\.(ConfigDict|FrozenConfigDict|FieldReference)
    |mm(engine|cv)(\.\w+)*\.(HistoryBuffer|LogBuffer)
    """,
    re.VERBOSE,
)
# dictionaries of other libraries: their entries are kept, since the weights may be among them
_MAPPINGS = re.compile(
    r"""
    builtins\.dict|collections\.(defaultdict|ChainMap|UserDict)|types\.MappingProxyType
    |easydict\.EasyDict|addict(\.\w+)*\.(Dict|ConfigDict)|box(\.\w+)*\.(Box|ConfigBox)|munch(\.\w+)*\.(Munch|DefaultMunch)
    |mm(engine|cv)(\.\w+)*\.(Config|ConfigDict)|yacs\.config\.CfgNode|detectron2\.config(\.\w+)*\.CfgNode
    |(pytorch_lightning|lightning|lightning_fabric)(\.\w+)*\.AttributeDict
    """,
    re.VERBOSE,
)
_LISTS = re.compile(r"builtins\.list|collections\.(deque|UserList)")
# what tensors are made of; torch itself decides what it takes of these
_TENSORS = re.compile(
    r"""
    torch\.(_utils\._rebuild_\w+|_tensor\._rebuild_from_type_v2|serialization\._get_layout|nn\.parameter\.Parameter
           |storage\.(_?TypedStorage|_?UntypedStorage)|(cuda\.)?\w*(Storage|Tensor)|Size|device|u?int\d+|bfloat16|float\w*|bool|complex\d+|q\w+
           |per_(tensor|channel)_\w+|half|double|long|short)
    |collections\.(OrderedDict|Counter)|_codecs\.encode
    """,
    re.VERBOSE,
)


class InertValue:
    """Stands for an object that holds values; keeps none of them."""

    def __new__(cls, *_: Any) -> InertValue:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Nothing of it is kept."""


class InertMapping:
    """Stands for a class of dictionaries: calling it makes a plain one."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


class InertList:
    """Stands for a class of lists: calling it makes a plain one."""

    def __new__(cls, *_: Any) -> list[Any]:  # type: ignore[misc]
        return []


def stand_in(name: str) -> type | None:
    """The stand-in of an object by its full name in a pickle; None for one that is not known to be inert."""
    for pattern, cls in ((_MAPPINGS, InertMapping), (_LISTS, InertList), (_VALUES, InertValue)):
        if pattern.fullmatch(name):
            return cls
    return None


def is_part_of_tensors(name: str) -> bool:
    """Whether a full name belongs to how tensors are stored."""
    return _TENSORS.fullmatch(name) is not None


class PickleHead(NamedTuple):
    """The protocol of a torch file's pickle, and the full names of the classes and functions in it, each once."""

    protocol: int
    names: list[str]


def pickle_head(path: Path) -> PickleHead:
    """What the pickle in a torch file names; nothing is run.

    Raises:
        Exception: of almost any kind, if the file is damaged.
    """
    names: dict[str, None] = {}
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            content = next(archive.read(name) for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        return PickleHead(_protocol(content[:2]), list(dict.fromkeys(_globals(content))))
    with path.open("rb") as file:
        protocol = _protocol(file.read(2))
        file.seek(0)
        # before torch 1.6: magic number, protocol, system, the object, its storages' names; one pickle each
        for number in range(5):
            try:
                names |= dict.fromkeys(_globals(file))
            except Exception:
                if not number:
                    raise
                break
    return PickleHead(protocol, list(names))


def _protocol(head: bytes) -> int:
    return head[1] if head[:1] == pickle.PROTO and len(head) == 2 else 0


def _globals(content: Any) -> Iterator[str]:
    texts: list[str] = []  # the last two strings: what STACK_GLOBAL takes
    memo: dict[int, str] = {}
    count = 0
    argument: Any
    for operation, argument, _ in pickletools.genops(content):
        name = operation.name
        if name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            yield _present_name(module, attribute)
        elif name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif "UNICODE" in name:
            texts.append(argument)
        elif name.endswith("GET") and int(argument) in memo:
            texts.append(memo[int(argument)])
        elif name == "MEMOIZE" or name.endswith("PUT"):
            if texts:
                memo[count if name == "MEMOIZE" else int(argument)] = texts[-1]
            count += 1
        del texts[:-2]


def _present_name(module: str, name: str) -> str:
    """A name of Python 2 as Python 3 calls it."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"
