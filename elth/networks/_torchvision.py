"""torchvision's ResNet as one of our networks; imported when the first one is built."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from elth.networks._anatomy import Anatomy, Stage
from elth.networks._network import Init, Network
from elth.networks._parts import PadShortcut, Shortcut
from elth.specs import DataShape


class ImageNetResNet(ResNet, Network):  # type: ignore[misc]  # torchvision has no types
    """ResNet with so many ``units`` in each stage; its state dict is named as torchvision's."""

    def __init__(
        self,
        shape: DataShape,
        *,
        units: tuple[int, ...],
        bottleneck: bool,
        shortcut: Shortcut,
        bn_affine: bool,
        init: Init,
    ) -> None:
        """Lay out the network for images of ``shape``."""
        block = Bottleneck if bottleneck else BasicBlock
        super().__init__(block, list(units), num_classes=shape.classes)
        self.init = init
        if shape.channels != 3:
            self.conv1 = nn.Conv2d(shape.channels, 64, 7, 2, 3, bias=False)
        if shortcut == "pad":
            for module in self.modules():
                if isinstance(module, BasicBlock | Bottleneck) and module.downsample is not None:
                    conv = module.downsample[0]
                    module.downsample = PadShortcut(
                        conv.in_channels, conv.out_channels, module.stride
                    )
        if not bn_affine:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.affine = False
                    module.register_parameter("weight", None)
                    module.register_parameter("bias", None)
        self.anatomy = Anatomy(
            family="imagenet-bottleneck-resnet" if bottleneck else "imagenet-resnet",
            stages=tuple(
                Stage.numbered(f"layer{number}", depth, fixed=(0,))
                for number, depth in enumerate(units, 1)
            ),
            head="fc",
        )
