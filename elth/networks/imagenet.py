"""Residual networks for ImageNet (He et al. 2016, table 1), as torchvision builds them.

ResNet-26 is that of E-LTH: 2, 3, 4 and 3 basic blocks. torchvision takes a second to import, and so
is imported with the first of these networks.
"""

from __future__ import annotations

from elth.networks._network import Builder, Init, Network
from elth.networks._parts import Affine, Shortcut, check_side
from elth.specs import DataShape


def _of_units(*units: int, bottleneck: bool = False) -> Builder:
    def build(
        shape: DataShape,
        *,
        shortcut: Shortcut = "conv",
        bn_affine: Affine = True,
        init: Init = "kaiming_normal",
    ) -> Network:
        check_side("an ImageNet-type ResNet", shape, halvings=5)
        from elth.networks._torchvision import ImageNetResNet

        return ImageNetResNet(
            shape,
            units=units,
            bottleneck=bottleneck,
            shortcut=shortcut,
            bn_affine=bn_affine,
            init=init,
        )

    return build


NETWORKS: dict[str, Builder] = {
    "resnet18": _of_units(2, 2, 2, 2),
    "resnet26": _of_units(2, 3, 4, 3),
    "resnet34": _of_units(3, 4, 6, 3),
    "resnet50": _of_units(3, 4, 6, 3, bottleneck=True),
}
