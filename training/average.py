"""Average the weights of two model files: of a run's model and of the one that the run started from, or of two runs.

    python training/average.py before.safetensors after.safetensors --share 0.75 -o averaged.safetensors

Between the two lies often a model that is better than either: it keeps what a long run on other data has unlearned
(arXiv 2109.01903). SHARE is the part of the second one, whose card the new model gets, without figures: those are to be
measured (training/evaluate.py --card). Of models that come neither from one another nor from one start, the average is
of no use. Exit status: 0 done, 2 bad input.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from rs4d_core.errors import OptionError
from rs4d_core.models.card import join_training_data
from rs4d_core.models.checkpoint import load_model, save_weights
from rs4d_core.models.config import RPNConfig, SegmenterConfig
from rs4d_core.runs.command import exit_status


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="a model file, such as the one that a run started from")
    parser.add_argument("second", type=Path, help="a model file of the same architecture and classes")
    parser.add_argument("--share", type=float, default=0.5, help="part of the second, 0 to 1 (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the model file, ending in .safetensors")
    return parser.parse_args()


def _run() -> int:
    arguments = _arguments()
    if arguments.output.suffix != ".safetensors":
        raise OptionError(f"{arguments.output}: model files end in .safetensors")
    if not 0 <= arguments.share <= 1:
        raise OptionError(f"--share is {arguments.share:g}: give 0 to 1")
    first, second = load_model(arguments.first, "cpu"), load_model(arguments.second, "cpu")
    if _architecture(first.card.config) != _architecture(second.card.config):
        raise OptionError(
            f"{arguments.first} and {arguments.second} differ in architecture or classes: only models that come from "
            "one another, or from one start, can be averaged"
        )
    others = second.segmenter.state_dict()
    weights = {
        name: torch.lerp(weight, others[name], arguments.share) if weight.is_floating_point() else others[name]
        for name, weight in first.segmenter.state_dict().items()
    }
    data = join_training_data(second.card.training_data, first.card.training_data)
    card = dataclasses.replace(second.card, training_data=data, metrics={})
    save_weights(arguments.output, weights, card, torch.float16)  # half precision, as training writes its models
    print(arguments.output)
    return 0


def _architecture(config: SegmenterConfig) -> SegmenterConfig:
    """The configuration, with any one choice of what changes no weight's shape: what is proposed, kept and told."""
    return dataclasses.replace(
        config,
        preset="any",
        rpn=RPNConfig(config.rpn.anchor_scales),
        max_instances=1,
        nms_iou=0.5,
        min_score=0.5,
        mask_scores=False,
        second_look=False,
    )


def main() -> int:
    return exit_status(_run, "nothing was written")


if __name__ == "__main__":
    sys.exit(main())
