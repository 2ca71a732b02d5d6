"""The whole model: images in, instances out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rs4d_core.models import boxes as box_ops
from rs4d_core.models.assign import assign, sample
from rs4d_core.models.box_head import BoxHead
from rs4d_core.models.config import PIXEL_MEAN, PIXEL_STD, SIZE_DIVISOR, SegmenterConfig
from rs4d_core.models.encoder import Encoder, EncoderOutput
from rs4d_core.models.instances import Instances, Target
from rs4d_core.models.mask_head import MaskHead
from rs4d_core.models.neck import STRIDES, Neck
from rs4d_core.models.prompt_head import PromptHead
from rs4d_core.models.regions import Regions
from rs4d_core.models.rpn import RPN
from rs4d_core.ops.nms import batched_nms

_REGIONS_MULTIPLE = 160
_SAMPLES = 256
_POSITIVE_SHARE = 0.25
_NEGATIVES = 3.0
_REGION_IOU = 0.5
# A box that somebody has drawn is loose where what it is around fills less than this of it.
_LOOSE = 0.6


@dataclass(frozen=True)
class Encoded:
    """What the heads read of one image: all that has to be kept to look at it again.

    Attributes:
        encoded: its last map alone; the blocks and the fine maps served the neck.
        levels: the pyramid, `(1, C, H / stride, W / stride)` each.
    """

    encoded: EncoderOutput
    levels: list[Tensor]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        height, width = self.levels[0].shape[2:]
        return height * STRIDES[0], width * STRIDES[0]

    @property
    def nbytes(self) -> int:
        """Memory that it holds, in bytes."""
        return sum(tensor.nbytes for tensor in (self.encoded.last, *self.levels))


class Segmenter(nn.Module):
    """Encoder, neck, region proposals, box branch and mask branch.

    Images are `(B, 3, H, W)`, RGB in 0..255, with H and W multiples of 32.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        channels, classes = config.neck.channels, len(config.classes)
        self.encoder = Encoder(config.encoder)
        self.neck = Neck(config.encoder, config.neck)
        self.rpn = RPN(channels, classes, config.rpn)
        self.box_head = BoxHead(channels, classes, config.box_head)
        if config.head == "prompt":
            self.mask_head = PromptHead(channels, config.encoder.dim, config.prompt_head)
        else:
            self.mask_head = MaskHead(channels, classes, config.mask_head)
        # Not among the weights: they stand on the model's card.
        self.register_buffer("pixel_mean", torch.empty(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.empty(1, 3, 1, 1), persistent=False)
        self.set_normalisation(PIXEL_MEAN, PIXEL_STD)

    def set_normalisation(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Mean and standard deviation of the three channels, in 0..255."""
        self.pixel_mean.copy_(torch.tensor(mean).view(1, 3, 1, 1))
        self.pixel_std.copy_(torch.tensor(std).view(1, 3, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Images in 0..255 to zero mean and unit variance."""
        height, width = images.shape[-2:]
        if images.shape[1:2] != (3,) or height % SIZE_DIVISOR or width % SIZE_DIVISOR:
            raise ValueError(f"images must be (B, 3, H, W) with H and W multiples of 32, not {tuple(images.shape)}")
        normalised = (images.float() - self.pixel_mean) / self.pixel_std
        return normalised.contiguous(memory_format=torch.channels_last)

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """The losses of a batch, each a scalar, to be summed. Finite also on images without any instance."""
        height, width = images.shape[-2:]
        encoded = self.encoder(self.normalise(images))
        levels = self.neck(encoded)
        logits, deltas = self.rpn(levels)
        losses = self.rpn.losses(levels, logits, deltas, targets)

        candidates = self.rpn.proposals(levels, logits, deltas, height, width)
        if self.config.second_look:
            candidates = self._with_second_look(levels, candidates, height, width)
        regions, labels, truth, truth_xyxy, annotated = self._sample_regions(candidates, targets)
        class_logits, box_deltas = self.box_head(levels, regions)
        losses |= self.box_head.losses(class_logits, box_deltas, regions, labels, truth_xyxy, annotated)

        positive = torch.nonzero(labels < len(self.config.classes)).squeeze(1)
        losses |= self.mask_head.losses(encoded, levels, regions[positive], labels[positive], truth[positive], targets)
        return losses

    def _look(self, levels: list[Tensor], regions: Regions, height: int, width: int) -> tuple[Tensor, Tensor]:
        """What the box branch says of K regions of images of this size: scores `(K, classes)` and the boxes
        `(K, classes, 4)` of instances of each class."""
        of_padded = self.box_head(levels, regions.padded(_REGIONS_MULTIPLE))
        logits, deltas = (values[: len(regions)] for values in of_padded)
        boxes_xyxy = box_ops.clip(self.box_head.decode(deltas, regions), height, width)
        return logits.softmax(1)[:, :-1], boxes_xyxy

    def _to_look_at_again(self, regions: Regions, scores: Tensor, boxes_xyxy: Tensor) -> tuple[Regions, Tensor]:
        """What a second look sees of K regions, and the indices `(M,)` of those of which it sees anything: the boxes of
        their best class, where that is likely enough.

        Args:
            regions: as the first look saw them.
            scores: `(K, classes)`, the first look's.
            boxes_xyxy: `(K, classes, 4)`, the first look's.
        """
        score, label = scores.max(1)
        best_xyxy = _of_label(boxes_xyxy, label)
        chosen = torch.nonzero((score > self.config.min_score) & box_ops.visible(best_xyxy)).squeeze(1)
        return Regions(best_xyxy[chosen], regions.batch_index[chosen]), chosen

    @torch.no_grad()
    def _with_second_look(self, levels: list[Tensor], proposals: list[Tensor], height: int, width: int) -> list[Tensor]:
        """Each image's proposals `(P, 4)`, and behind them what a second look sees: the head learns from both."""
        first = Regions.of_images(proposals)
        second, _ = self._to_look_at_again(first, *self._look(levels, first, height, width))
        # What autocast rounds here knows no gradients, and older versions of torch would learn with it afterwards.
        torch.clear_autocast_cache()
        return [
            torch.cat([found, second.boxes_xyxy[second.batch_index == image]]) for image, found in enumerate(proposals)
        ]

    @torch.no_grad()
    def _sample_regions(
        self, proposals: list[Tensor], targets: list[Target]
    ) -> tuple[Regions, Tensor, Tensor, Tensor, Tensor]:
        """Regions to learn from, a quarter of them on instances.

        Returns:
            K regions; their labels `(K,)` (background last); the index of their instance `(K,)`; its box `(K, 4)`; the
            classes labelled in their image `(K, classes)`.
        """
        boxes, labels, truth, truth_xyxy, annotated = [], [], [], [], []
        for found, target in zip(proposals, targets, strict=True):
            # The truth itself is proposed too, or the heads would wait for the proposals to become good.
            candidates = torch.cat([target.boxes_xyxy, found])
            assignment = assign(candidates, target, _REGION_IOU, _REGION_IOU)
            # Images with few instances do not fill up with background: nearly all regions would then be background,
            # and that is what the heads would learn first, and for long.
            positive, negative = sample(assignment, _SAMPLES, _POSITIVE_SHARE, _NEGATIVES)
            chosen = torch.cat([positive, negative])
            instance = assignment.truth[chosen]
            label = torch.full_like(instance, len(self.config.classes))
            label[: len(positive)] = target.labels[instance[: len(positive)]]
            box = candidates.new_zeros(len(chosen), 4)
            box[: len(positive)] = target.boxes_xyxy[instance[: len(positive)]]
            boxes.append(candidates[chosen])
            labels.append(label)
            truth.append(instance)
            truth_xyxy.append(box)
            annotated.append(target.annotated.expand(len(chosen), -1))
        return (
            Regions.of_images(boxes),
            torch.cat(labels),
            torch.cat(truth),
            torch.cat(truth_xyxy),
            torch.cat(annotated),
        )

    @torch.inference_mode()
    def predict(
        self, images: Tensor, least_scores: Tensor | None = None, usual_area_px: int | None = None
    ) -> list[Instances]:
        """The instances of each image of `(B, 3, H, W)`, best first, above `config.min_score`.

        Args:
            least_scores: `(classes,)`, what an instance of each class needs to be told. The others are found, and
                suppress each other, all the same; but no masks are drawn for them.
            usual_area_px: how large the images are that the numbers of proposals and instances are meant for. A larger
                image shows more, and has as many more of them; None takes any image for one of the usual size.
        """
        height, width = images.shape[-2:]
        encoded = self.encoder(self.normalise(images), self.neck.depths)
        levels = self.neck(encoded)
        times = 1.0 if usual_area_px is None else max(height * width / usual_area_px, 1.0)
        regions = Regions.of_images(self.rpn.propose(levels, height, width, times))
        scores, boxes_xyxy = self._look(levels, regions, height, width)
        if self.config.second_look:
            regions, chosen = self._to_look_at_again(regions, scores, boxes_xyxy)
            second_scores, boxes_xyxy = self._look(levels, regions, height, width)
            scores = (scores[chosen] * second_scores).sqrt()
        kept = [
            self._select(boxes_xyxy[mine], scores[mine], least_scores, round(times * self.config.max_instances))
            for mine in (regions.batch_index == image for image in range(len(images)))
        ]
        final = Regions.of_images([boxes for boxes, _, _ in kept])
        patches = self.mask_head.predict(encoded, levels, final, torch.cat([labels for _, _, labels in kept]))
        instances = []
        for boxes, score, labels in kept:
            mine, patches = patches[: len(labels)], patches[len(labels) :]
            found = Instances(boxes.cpu(), score.cpu(), labels.cpu(), mine)
            instances.append(self._by_masks(found, least_scores) if self.config.mask_scores else found)
        return instances

    def _by_masks(self, found: Instances, least_scores: Tensor | None) -> Instances:
        """The instances with scores that count their masks too, in their new order, without those now too low."""
        certainty = torch.tensor([patch.certainty for patch in found.masks])
        scores = found.scores * certainty.sqrt()
        wanted = scores > self.config.min_score
        if least_scores is not None:
            wanted &= scores >= least_scores.cpu()[found.labels]
        order = scores.argsort(descending=True, stable=True)
        order = order[wanted[order]]
        masks = [found.masks[index] for index in order.tolist()]
        return Instances(found.boxes_xyxy[order], scores[order], found.labels[order], masks)

    @torch.inference_mode()
    def encode(self, image: Tensor) -> Encoded:
        """One image `(1, 3, H, W)` as `outline` reads it: nearly all of the work, and the same for every box."""
        encoded = self.encoder(self.normalise(image), self.neck.depths)
        return Encoded(EncoderOutput([], encoded.last, []), self.neck(encoded))

    @torch.inference_mode()
    def outline(self, image: Encoded, boxes_xyxy: Tensor, label: int | None = None) -> Instances:
        """What lies in boxes `(K, 4)` that somebody has drawn around instances: K instances, in the order of the boxes.

        Args:
            image: from `encode`.
            boxes_xyxy: pixels, inside of the image.
            label: the class of all of them; None takes each one's best.

        Returns:
            The boxes are those given, or lie inside of them where these are drawn loosely (`_tightened`). Scores are
            those of the class, however small: that there is something, says who drew the box.
        """
        drawn = boxes_xyxy.to(image.levels[0].device, torch.float32)
        regions = Regions.of_images([drawn])
        scores, looked_xyxy = self._look(image.levels, regions, *image.size)
        labels = scores.argmax(1) if label is None else torch.full((len(drawn),), label, device=drawn.device)
        if self.config.second_look:
            regions = self._tightened(image, regions, looked_xyxy, labels)
        patches = self.mask_head.predict(image.encoded, image.levels, regions, labels)
        score = scores.gather(1, labels[:, None]).squeeze(1)
        return Instances(regions.boxes_xyxy.cpu(), score.cpu(), labels.cpu(), patches)

    def _tightened(self, image: Encoded, drawn: Regions, looked_xyxy: Tensor, labels: Tensor) -> Regions:
        """K drawn regions; in place of each that is far larger than what it is around, what two looks see inside of it.

        A mask of 28 x 28 cells needs a box that fits. One drawn with care fits better than the box branch's own.

        Args:
            image: from `encode`.
            drawn: the K regions.
            looked_xyxy: `(K, classes, 4)`, where the first look puts the boxes.
            labels: `(K,)`, the class of each.
        """
        first = Regions(_of_label(looked_xyxy, labels), drawn.batch_index)
        second_xyxy = _of_label(self._look(image.levels, first, *image.size)[1], labels)
        corners, drawn_corners = second_xyxy.unflatten(1, (2, 2)), drawn.boxes_xyxy.unflatten(1, (2, 2))
        inside = corners.clamp(drawn_corners[:, :1], drawn_corners[:, 1:]).flatten(1)
        loose = box_ops.visible(inside) & (box_ops.area(inside) < _LOOSE * box_ops.area(drawn.boxes_xyxy))
        return Regions(torch.where(loose[:, None], inside, drawn.boxes_xyxy), drawn.batch_index)

    def _select(
        self, boxes_xyxy: Tensor, scores: Tensor, least_scores: Tensor | None, most: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of one image's boxes `(P, classes, 4)` and scores `(P, classes)`: the kept boxes, scores and labels."""
        region, label = torch.nonzero(scores > self.config.min_score, as_tuple=True)
        score, box = scores[region, label], boxes_xyxy[region, label]
        visible = box_ops.visible(box)
        score, box, label = score[visible], box[visible], label[visible]
        kept = batched_nms(box, score, label, self.config.nms_iou, most)
        if least_scores is not None:
            kept = kept[score[kept] >= least_scores.to(score.device)[label[kept]]]
        return box[kept], score[kept], label[kept]


def _of_label(boxes_xyxy: Tensor, labels: Tensor) -> Tensor:
    """Of the boxes `(K, classes, 4)` of K regions those `(K, 4)` of each one's label."""
    return boxes_xyxy[torch.arange(len(labels), device=labels.device), labels]
