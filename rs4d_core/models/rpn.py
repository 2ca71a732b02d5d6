"""Region proposals."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rs4d_core.models import boxes as box_ops
from rs4d_core.models.anchors import anchor_count, anchors_at, pyramid_anchors
from rs4d_core.models.assign import assign, sample
from rs4d_core.models.config import RPNConfig
from rs4d_core.models.instances import Target
from rs4d_core.models.neck import STRIDES
from rs4d_core.models.prepared import Prepared
from rs4d_core.ops.best_anchors import best_anchors
from rs4d_core.ops.best_class import best_class
from rs4d_core.ops.best_overlap import best_overlap
from rs4d_core.ops.compiled import run_spans
from rs4d_core.ops.nms import batched_nms

_SAMPLES = 256
# At most so many anchors on background for each on an instance. Images with few instances would else teach little but
# background, and things that only such images show, as airplanes are, would never be proposed.
_NEGATIVES = 5.0
# Half of them are drawn from those that look most like instances, so many times as many as are drawn: nearly all others
# are plain ground, and what has to be told from an instance would hardly ever be among them. Not the very worst alone:
# some of those are instances that nobody has labelled.
_HARD_SHARE, _HARD_POOL = 0.5, 8
_POSITIVE_IOU, _NEGATIVE_IOU = 0.7, 0.3
# So many anchors of a level, for each that a class may propose: many of the best lie around one object.
_CLASS_CANDIDATES = 2


class _Candidates(NamedTuple):
    """Anchors `(B, N)`: what each is worth, which of its level's anchors it is, and whom it may suppress."""

    scores: Tensor
    at: Tensor
    group: Tensor


class RPN(nn.Module):
    """Region proposal network (arXiv 1506.01497) that can learn from data sets of different classes.

    A data set that labels ships only says nothing about the cars in its images. With one objectness, every such car
    would be taught as "no object", and no head could ever see it again. So an anchor has an objectness for each class:
    a common part, which learns from all that is labelled anywhere, and a part of the class's own, which is left alone
    where the class is not labelled. Proposals are ranked by their best class.
    """

    def __init__(self, channels: int, classes: int, config: RPNConfig) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        anchors = anchor_count(config.anchor_scales)
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(channels, anchors, 1)
        self.rpn_own = nn.Conv2d(channels, anchors * classes, 1)
        self.rpn_reg = nn.Conv2d(channels, anchors * 4, 1)
        self._joint = Prepared()
        for layer in (self.rpn_conv, self.rpn_cls, self.rpn_own, self.rpn_reg):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness logits `(B, M, K)` and box deltas `(B, M, 4)` of each level's M anchors, for K classes."""
        logits, deltas = [], []
        for level in levels:
            hidden = F.relu(self.rpn_conv(level))
            logits.append(_by_anchor(self.rpn_cls(hidden), 1) + _by_anchor(self.rpn_own(hidden), self.classes))
            deltas.append(_by_anchor(self.rpn_reg(hidden), 4))
        return logits, deltas

    @torch.no_grad()
    def proposals(
        self, levels: list[Tensor], logits: list[Tensor], deltas: list[Tensor], height: int, width: int
    ) -> list[Tensor]:
        """The boxes `(P, 4)` of each image that are handed on.

        At most `config.proposals`, best first; then those of the best `config.class_proposals` of each class that are
        not among them.
        """
        best, count = [], self._of_each_class()
        for number, level in enumerate(logits):
            of_class = level.mT.topk(min(count, level.shape[1]), dim=2) if count else None
            best.append(self._best(level.amax(2), of_class, number))
        of_best = [
            values.gather(1, chosen.at[..., None].expand(-1, -1, 4))
            for values, chosen in zip(deltas, best, strict=True)
        ]
        return self._boxes(levels, best, torch.cat(of_best, 1), height, width)

    @torch.no_grad()
    def propose(self, levels: list[Tensor], height: int, width: int, times: float = 1.0) -> list[Tensor]:
        """What `proposals` makes of what `forward` says of these levels, at less work; `times` as many.

        What an anchor is worth is what its best class is worth, and only the best anchors have to say where their box
        is.
        """
        anchors = anchor_count(self.config.anchor_scales)
        layers = (self.rpn_cls.weight, self.rpn_cls.bias, self.rpn_own.weight, self.rpn_own.bias)
        weight, bias = self._joint.of(layers, _joint)
        best, pixels, count = [], [], self._of_each_class(times)
        for number, level in enumerate(levels):
            hidden = F.relu(self.rpn_conv(level), inplace=True)
            logits = _pixels(F.conv2d(hidden, weight, bias))
            of_class = best_anchors(logits, anchors, count) if count else None
            chosen = self._best(best_class(logits, anchors), of_class, number, times)
            image = torch.arange(len(level), device=level.device)[:, None]
            best.append(chosen)
            pixels.append(_pixels(hidden)[image, chosen.at // anchors])
        deltas = F.linear(torch.cat(pixels, 1), self.rpn_reg.weight.flatten(1), self.rpn_reg.bias).float()
        anchor = torch.cat([chosen.at % anchors for chosen in best], 1)[..., None, None].expand(-1, -1, 1, 4)
        deltas = deltas.unflatten(2, (anchors, 4)).gather(2, anchor).squeeze(2)
        return self._boxes(levels, best, deltas, height, width, times)

    def _of_each_class(self, times: float = 1.0) -> int:
        """How many anchors of a level go on for the sake of each class."""
        return round(times * _CLASS_CANDIDATES * self.config.class_proposals)

    def _best(
        self, best: Tensor, of_class: tuple[Tensor, Tensor] | None, level: int, times: float = 1.0
    ) -> _Candidates:
        """The anchors of a level that go on: of what each is worth `(B, M)` the best; and those of each class, what
        they are worth to it and which they are, both `(B, K, n)`; None where classes do not propose."""
        anchors = best.shape[1]
        scores, at = best.topk(min(round(times * self.config.pre_nms), anchors))
        found = [_Candidates(scores, at, torch.full_like(at, level))]
        if of_class is not None:
            scores, at = of_class
            group = len(STRIDES) + torch.arange(self.classes, device=at.device)[:, None]
            found.append(_Candidates(*(values.flatten(1) for values in (scores, at, group.expand_as(at)))))
        return _Candidates(*(torch.cat(values, 1) for values in zip(*found, strict=True)))

    def _boxes(
        self,
        levels: list[Tensor],
        best: list[_Candidates],
        deltas: Tensor,
        height: int,
        width: int,
        times: float = 1.0,
    ) -> list[Tensor]:
        """The proposals of each image, from each level's `_best` and the deltas `(B, N, 4)` of those of all levels."""
        scores, chosen, groups = (torch.cat(values, 1) for values in zip(*best, strict=True))
        sizes = torch.tensor([candidates.at.shape[1] for candidates in best], device=chosen.device)
        widths, strides = (
            torch.tensor(values, device=chosen.device).repeat_interleave(sizes)
            for values in ([level.shape[3] for level in levels], STRIDES)
        )
        anchors = anchors_at(chosen, widths, strides, self.config.anchor_scales)
        boxes = box_ops.clip(box_ops.decode(deltas, anchors, box_ops.RPN_STD), height, width)
        # On the CPU: it is a walk from box to box.
        images = list(zip(boxes.cpu(), scores.cpu(), groups.cpu(), strict=True))
        found: dict[int, Tensor] = {}

        def suppress(first: int, last: int) -> None:
            for number in range(first, last):
                found[number] = self._suppress(*images[number], times).to(boxes.device)

        run_spans(suppress, len(images))
        return [found[number] for number in range(len(images))]

    def _suppress(self, boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, times: float) -> Tensor:
        """Of one image's candidates the proposals. Groups are levels; then, of all levels, classes."""
        visible = box_ops.visible(boxes_xyxy)
        of_class = groups >= len(STRIDES)
        of_any, of_one = (
            (boxes_xyxy[wanted], scores[wanted], groups[wanted]) for wanted in (visible & ~of_class, visible & of_class)
        )
        iou, most = self.config.nms_iou, round(times * self.config.class_proposals)
        found = of_any[0][batched_nms(*of_any, iou, round(times * self.config.proposals))]
        if not most or not len(found):
            return found
        kept = batched_nms(*of_one, iou)
        group = of_one[2][kept] - len(STRIDES)
        more = of_one[0][torch.cat([kept[group == label][:most] for label in range(self.classes)])]
        return torch.cat([found, more[best_overlap(more, found)[0] <= iou]])  # nearly all are there already

    def losses(
        self, levels: list[Tensor], logits: list[Tensor], deltas: list[Tensor], targets: list[Target]
    ) -> dict[str, Tensor]:
        """`rpn_class` and `rpn_box`, scalars; finite also where no image has an instance."""
        anchors = torch.cat(pyramid_anchors(levels, self.config.anchor_scales))
        all_logits, all_deltas = torch.cat(logits, 1), torch.cat(deltas, 1)
        # Anchors of all images, one after the other: each look into them costs the way back a map as large as they.
        positives, negatives, labels, annotated, coded = [], [], [], [], []
        for image, target in enumerate(targets):
            assignment = assign(anchors, target, _POSITIVE_IOU, _NEGATIVE_IOU, keep_best=_NEGATIVE_IOU)
            positive, negative = sample(assignment, _SAMPLES, 0.5, _NEGATIVES)
            objectness = _most_like(all_logits[image].detach(), target.annotated)
            negative = _harder(negative, assignment.negative, objectness)
            truth = assignment.truth[positive]
            labels.append(target.labels[truth])
            coded.append(box_ops.encode(target.boxes_xyxy[truth], anchors[positive], box_ops.RPN_STD))
            annotated.append(target.annotated.expand(len(negative), -1))
            positives.append(image * len(anchors) + positive)
            negatives.append(image * len(anchors) + negative)
        positive, negative = torch.cat(positives), torch.cat(negatives)
        logits_of = all_logits.flatten(0, 1)[torch.cat([positive, negative])]
        # An instance speaks for its own class; background, for all the classes that would have been labelled.
        own = logits_of[: len(positive)].gather(1, torch.cat(labels)[:, None])
        like = logits_of[len(positive) :].masked_fill(~torch.cat(annotated), float("-inf")).amax(1)
        class_loss = F.softplus(-own).sum() + F.softplus(like).sum()
        deltas_of = all_deltas.flatten(0, 1)[positive]
        box_loss = F.smooth_l1_loss(deltas_of, torch.cat(coded), beta=1 / 9, reduction="sum")
        drawn = max(len(positive) + len(negative), 1)
        return {"rpn_class": class_loss / drawn, "rpn_box": box_loss / drawn}


def _most_like(logits: Tensor, annotated: Tensor) -> Tensor:
    """Of `(M, K)` the logits `(M,)` of the best class, of those that are labelled."""
    if not annotated.any():
        return logits.new_full((len(logits),), float("-inf"))
    return logits.index_select(1, torch.nonzero(annotated).squeeze(1)).amax(1)


def _harder(drawn: Tensor, negative: Tensor, objectness: Tensor) -> Tensor:
    """Indices of as many negatives as were drawn, some of them in the place of harder ones.

    Args:
        drawn: `(N,)`, at random.
        negative: `(M,)` bool, all that there are.
        objectness: `(M,)`.
    """
    count = int(_HARD_SHARE * len(drawn))
    pool = objectness.masked_fill(~negative, float("-inf")).topk(min(_HARD_POOL * count, int(negative.sum()))).indices
    hard = pool[torch.randperm(len(pool), device=pool.device)[:count]]
    return torch.cat([drawn[count:], hard])


def _joint(common: Tensor, common_bias: Tensor, own: Tensor, own_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of one layer for both objectnesses: the common one of all anchors, then class after class."""
    anchors = len(common_bias)
    own, own_bias = (values.unflatten(0, (anchors, -1)).transpose(0, 1).flatten(0, 1) for values in (own, own_bias))
    return torch.cat([common, own]), torch.cat([common_bias, own_bias])


def _pixels(maps: Tensor) -> Tensor:
    """`(B, C, h, w)` to `(B, h * w, C)`."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def _by_anchor(maps: Tensor, values: int) -> Tensor:
    """`(B, A * values, h, w)` to `(B, h * w * A, values)`, float32: the order of the anchors."""
    return maps.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, values)).float()
