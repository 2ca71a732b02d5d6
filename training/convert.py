"""Make a model file of a public RS4D checkpoint, or a file to start training from of an encoder or SAM's mask decoder.

    python training/convert.py detector.pth -o ships.safetensors --classes ship --colors "#e6194b" --resolution 1 10
    python training/convert.py model_parameterskk.pth -o encoder.safetensors
    python training/convert.py sam-vit-base/ -o sam-decoder.safetensors

What the file is, its tensors tell. A detector gives a whole model, to be used as any other; its checkpoint names no
classes: give them in the order in which it was trained. An encoder gives what `model.encoder` of a recipe starts from,
and SAM (a file or folder of transformers) a mask decoder, which `model.start` of a recipe with a prompt head takes. No
code that a checkpoint may hold is run. Exit status: 0 done, 2 bad input.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from rs4d_core.errors import OptionError
from rs4d_core.models.card import ModelCard
from rs4d_core.models.checkpoint import save_weights
from rs4d_core.models.convert import Converted, convert
from rs4d_core.models.encoder import Encoder
from rs4d_core.models.encoder_card import EncoderCard
from rs4d_core.models.encoder_file import save_encoder
from rs4d_core.models.foreign_weights import read_foreign_weights
from rs4d_core.runs.command import exit_status

PUBLIC_WINDOW_PX = 1024
"""Side of the crops that the public models were trained on."""
_OVERLAP_PX = PUBLIC_WINDOW_PX // 4
_DEFAULT_SCORE = 0.5
_PART_COLOR = "#c8c8c8"
_ENCODER = "encoder."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="the weights: a .pth, .bin or .safetensors file, or a folder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the model file, ending in .safetensors")
    parser.add_argument("--name", help="the model's name (default: the output's)")
    parser.add_argument("--classes", nargs="+", default=[], help="of a detector, in the order of its training")
    parser.add_argument("--colors", nargs="+", default=[], metavar="#RRGGBB", help="of the classes, for the card")
    parser.add_argument(
        "--resolution", nargs=2, type=float, metavar=("LEAST", "MOST"), help="metres a pixel that a detector expects"
    )
    parser.add_argument("--licence", help="of the data that a model was trained on, for its card (default: not stated)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _card(arguments: argparse.Namespace, converted: Converted) -> ModelCard:
    classes, colors = converted.config.classes, tuple(color.lower() for color in arguments.colors)
    if not arguments.classes:
        colors, resolution_m = (_PART_COLOR,) * len(classes), (1.0, 1.0)
    elif arguments.resolution is None or len(colors) != len(classes):
        raise OptionError("give one of --colors for each class, and --resolution, the metres a pixel it was trained at")
    else:
        resolution_m = tuple(arguments.resolution)
    return ModelCard(
        name=arguments.name or arguments.output.stem,
        config=converted.config,
        colors=colors,
        resolution_m=resolution_m,
        window_px=PUBLIC_WINDOW_PX,
        overlap_px=_OVERLAP_PX,
        default_scores=(_DEFAULT_SCORE,) * len(classes),
        training_data=(
            {"name": f"as {arguments.checkpoint.name} was trained", "licence": arguments.licence or "not stated"},
        ),
    )


def _save(arguments: argparse.Namespace, converted: Converted) -> None:
    """As an encoder file where it is an encoder, else as a model file."""
    if not all(name.startswith(_ENCODER) for name in converted.weights):
        save_weights(arguments.output, converted.weights, _card(arguments, converted), torch.float32)
        return
    for option in ("classes", "colors", "resolution", "licence"):
        if getattr(arguments, option):
            raise OptionError(
                f"{arguments.checkpoint} is an encoder, whose card tells no {option}: leave --{option} out"
            )
    encoder = Encoder(converted.config.encoder)
    encoder.load_state_dict({name.removeprefix(_ENCODER): tensor for name, tensor in converted.weights.items()})
    card = EncoderCard(
        name=arguments.name or arguments.output.stem,
        config=encoder.config,
        source=f"converted from {arguments.checkpoint.name}",
        image_size=PUBLIC_WINDOW_PX,
    )
    save_encoder(arguments.output, encoder, card)


def _run() -> int:
    arguments = _arguments()
    if arguments.output.suffix != ".safetensors":
        raise OptionError(f"{arguments.output}: model files end in .safetensors")
    tensors = read_foreign_weights(arguments.checkpoint)
    converted = convert(tensors, arguments.checkpoint, tuple(arguments.classes))
    _save(arguments, converted)
    parameters = sum(tensor.numel() for tensor in converted.weights.values())
    if arguments.json:
        report = {"output": str(arguments.output), "tensors": len(converted.weights), "parameters": parameters}
        print(json.dumps({**report, "notes": converted.notes}))
    else:
        for note in converted.notes:
            print(f"- {note}")
        print(f"{arguments.output}: {len(converted.weights)} tensors, {parameters / 1e6:.2f} M numbers")
    return 0


def main() -> int:
    return exit_status(_run, "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
