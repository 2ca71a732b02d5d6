"""Model files that nobody should have made: one that rs4d has written, broken as chance and malice would."""

import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutations_rasters import flipped, spliced

_CARD = "rs4d"
_ODD_NAMES = (
    "../../escaped",
    "/etc/cron.d/escaped",
    "a/b\\c:d*e?",
    "con.txt\0hidden",
    "\x1b[2J\x1b]0;owned\x07ship",
    "two\nlines",
    "carriage\rreturn",
    "\u202egnp.exe",
    "\x9b31mship",
    "<b>bold</b><img src='file:///etc/passwd'>",
    "",
    " ",
    "x" * 100_000,
    "\ud800",
    "'; DROP TABLE instances; --",
    "%s%n{0}{}",
)
_ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    0.5,
    10**9,
    10**30,
    2**63,
    float("nan"),
    float("inf"),
    1e300,
    -1e300,
    "text",
    "",
    [],
    {},
    [[]],
    ["a"],
    [1e9, 1e9],
    {"a": {"b": []}},
    [None] * 3,
)
_MARKER = "ran"


def seeds(folder: Path) -> list[Path]:
    """A model file that is whole, small and finds noise."""
    from small_model import write_untrained_model

    path = folder / "untrained.safetensors"
    write_untrained_model(path)
    return [path]


class Parts:
    """A safetensors file: 8 bytes of the header's length, the header in JSON, and the tensors' bytes."""

    def __init__(self, content: bytes) -> None:
        (length,) = struct.unpack_from("<Q", content)
        self.header: dict[str, Any] = json.loads(content[8 : 8 + length])
        self.body = content[8 + length :]

    @property
    def card(self) -> dict[str, Any]:
        return json.loads(self.header["__metadata__"][_CARD])

    @card.setter
    def card(self, card: Any) -> None:
        self.card_text = json.dumps(card)

    def _set_text(self, text: str) -> None:
        self.header["__metadata__"][_CARD] = text

    card_text = property(None, _set_text)

    @property
    def tensors(self) -> list[str]:
        return [name for name in self.header if name != "__metadata__"]

    def joined(self, header: bytes | None = None, length: int | None = None) -> bytes:
        text = json.dumps(self.header).encode(errors="surrogatepass") if header is None else header
        return struct.pack("<Q", len(text) if length is None else length) + text + self.body


def _flipped(content: bytes, rng: random.Random) -> bytes:
    return flipped(content, rng)


def _flipped_header(content: bytes, rng: random.Random) -> bytes:
    return flipped(content, rng, 8 + struct.unpack_from("<Q", content)[0])


def _truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.choice((rng.randrange(16), rng.randrange(len(content)), len(content) - 1))]


def _spliced(content: bytes, rng: random.Random) -> bytes:
    return spliced(content, rng)


def _odd_length(content: bytes, rng: random.Random) -> bytes:
    length = len(content) - len(Parts(content).body) - 8
    odd = rng.choice((0, 1, 2**64 - 1, 2**63, 2**43, 100_000_001, 99_999_999, length - 1, length + 1, len(content)))
    return struct.pack("<Q", odd) + content[8:]


def _odd_tensor(content: bytes, rng: random.Random) -> bytes:
    parts = Parts(content)
    tensor = parts.header[rng.choice(parts.tensors)]
    what = rng.randrange(3)
    if what == 0:
        tensor["dtype"] = rng.choice(("F64", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "I64", "C64", "", "X", None, 5))
    elif what == 1:
        odd = ([], [-1], [2**62, 4], [0], [0.5], "8", None, [1] * 5000, [10**30], [*tensor["shape"], 1])
        tensor["shape"] = rng.choice(odd)
    else:
        low, high = tensor["data_offsets"]
        near = ([high, low], [low - 4, high - 4], [low, high + 4], [low])
        tensor["data_offsets"] = rng.choice((*near, [0, 2**62], [-8, 0], [0.0, 4.0], [2**64, 2**64 + 4], None))
    return parts.joined()


def _odd_names_of_tensors(content: bytes, rng: random.Random) -> bytes:
    parts = Parts(content)
    name = rng.choice(parts.tensors)
    tensor = parts.header.pop(name)
    parts.header[rng.choice(("", "x" * 10_000, "\x1b[31m", "__metadata__2", name.upper(), "../" + name))] = tensor
    return parts.joined()


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths to all values of a card."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in _places(one, (*path, key)))]


def _changed(card: Any, place: tuple, value: Any) -> Any:
    if not place:
        return value
    inner = card
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return card


def _odd_value(content: bytes, rng: random.Random) -> bytes:
    parts = Parts(content)
    card = parts.card
    for _ in range(rng.choice((1, 1, 2))):
        card = _changed(card, rng.choice(_places(card)), rng.choice(_ODD_VALUES))
    parts.card = card
    return parts.joined()


def _lost_or_new_key(content: bytes, rng: random.Random) -> bytes:
    parts = Parts(content)
    card = parts.card
    fields = rng.choice([card, card["config"], card["config"]["encoder"], card["config"]["rpn"]])
    if rng.random() < 0.5:
        del fields[rng.choice(sorted(fields))]
    else:
        fields[rng.choice(("new", "__class__", "\x1b[31m", "self", "config"))] = rng.choice(_ODD_VALUES)
    parts.card = card
    return parts.joined()


def _odd_name(content: bytes, rng: random.Random) -> bytes:
    parts = Parts(content)
    card = parts.card
    name = rng.choice(_ODD_NAMES)
    where = rng.choice(("name", "class", "class", "data", "metrics", "created_by", "preset", "bands", "color"))
    if where == "class":
        card["config"]["classes"][0] = name
    elif where == "data":
        card["training_data"] = [{"name": name, name: "CC0"}]
    elif where == "metrics":
        card["metrics"] = {name: {"mask": {"ap50": 0.5, "by_class": {name: {"ap": 0.1}}}}}
    elif where == "preset":
        card["config"]["preset"] = name
    elif where == "bands":
        card["bands"][0] = name
    elif where == "color":
        card["colors"][0] = name
    else:
        card[where] = name
    parts.card = card
    return parts.joined()


def _absurd_size(content: bytes, rng: random.Random) -> bytes:
    parts = Parts(content)
    card = parts.card
    config = card["config"]
    big = rng.choice((2**14, 10**6, 10**9, 10**18))
    parts_of_config = [value for value in config.values() if isinstance(value, dict)]
    inner = [(fields, key) for fields in parts_of_config for key in fields]
    part, key = rng.choice([*inner, (config, "max_instances"), (card, "window_px"), (card, "overlap_px")])
    part[key] = [big] * 3 if isinstance(part[key], list) else big * 32 if key == "window_px" else big
    if rng.random() < 0.3:
        config["head"] = "prompt"
    parts.card = card
    return parts.joined()


def _many_classes(content: bytes, rng: random.Random) -> bytes:
    parts = Parts(content)
    card = parts.card
    count = rng.choice((0, 1, 1000, 1_000_000))
    card["config"]["classes"] = [f"class {number}" for number in range(count)]
    card["colors"], card["default_scores"] = ["#112233"] * count, [0.5] * count
    parts.card = card
    return parts.joined()


def _deep_or_huge_card(content: bytes, rng: random.Random) -> bytes:
    parts = Parts(content)
    text = json.dumps(parts.card)
    parts.card_text = rng.choice(
        (
            "[" * 200_000,
            '{"a":' * 200_000,
            text[:-1] + ', "metrics": ' + '{"a":' * 900 + "1" + "}" * 900 + "}",
            text[:-1] + ', "created_by": "' + "y" * 60_000_000 + '"}',
            text[:-1] + ', "name": ' + "1" * 100_000 + "}",
            text + text,
            text[: len(text) // 2],
            "",
            "null",
            "[]",
            text[:-1] + ', "name": "again", "format_version": 1, "format_version": 1}',
        )
    )
    return parts.joined()


def _keys_twice(content: bytes, rng: random.Random) -> bytes:
    parts = Parts(content)
    text = json.dumps(parts.header)
    name = rng.choice([*parts.tensors, "__metadata__"])
    return parts.joined((text[:-1] + f", {json.dumps(name)}: {json.dumps(parts.header[name])}}}").encode())


def _weights_without_value(content: bytes, rng: random.Random) -> bytes:
    parts = Parts(content)
    body = bytearray(parts.body)
    chosen = rng.sample(parts.tensors, rng.choice((1, 5, len(parts.tensors))))
    value = struct.pack("<f", rng.choice((float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-45)))
    for name in chosen:
        tensor = parts.header[name]
        low, high = tensor["data_offsets"]
        if tensor["dtype"] == "F32":
            body[low:high] = value * ((high - low) // 4)
    parts.body = bytes(body)
    return parts.joined()


class _Runs:
    def __reduce__(self):
        return open, (_MARKER, "w")


def _other_program(content: bytes, rng: random.Random) -> bytes:
    import io

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(_Runs()))
        file.writestr("archive/version", "3")
    empty = (b"", bytes(9), struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 20) + b'{"__metadata__": {}}')
    foreign = (b"GGUF" + rng.randbytes(200), b"<!DOCTYPE html><html>", rng.randbytes(4000))
    return rng.choice((pickle.dumps(_Runs()), archive.getvalue(), *foreign, *empty))


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bytes changed": _flipped,
    "bytes of the header changed": _flipped_header,
    "cut short": _truncated,
    "stretch lost, doubled or turned": _spliced,
    "odd length of the header": _odd_length,
    "tensor of odd type, shape or place": _odd_tensor,
    "tensors of odd names": _odd_names_of_tensors,
    "odd value in the card": _odd_value,
    "key of the card lost or new": _lost_or_new_key,
    "odd name in the card": _odd_name,
    "absurd size in the card": _absurd_size,
    "many classes, or none": _many_classes,
    "deep or huge card": _deep_or_huge_card,
    "keys twice": _keys_twice,
    "weights that are no numbers": _weights_without_value,
    "file of another program": _other_program,
}
# Where the most is to be found.
_TURNS = [*MUTATIONS, "odd value in the card", "odd name in the card", "absurd size in the card"]
_TURNS.append("tensor of odd type, shape or place")


def mutated(number: int, seeds: list[Path], folder: Path, seed: int) -> tuple[str, Path]:
    """The model file of this number, always the same: what was done, and where it is."""
    rng = random.Random(f"model {seed} {number}")
    name = _TURNS[number % len(_TURNS)]
    target = folder / "model.safetensors"
    target.write_bytes(MUTATIONS[name](rng.choice(seeds).read_bytes(), rng))
    return name, target
