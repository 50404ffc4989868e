"""Models by the short names of the papers. Data only."""

from __future__ import annotations

from rdxcli.models.spec import ModelSpec

_DIGITS = "small CNN trained here on first use: "


def _digits(variant: str, what: str, dataset: str = "digits") -> ModelSpec:
    name = f"digits-cnn-{variant}" if variant else "digits-cnn"
    return ModelSpec(
        name=name,
        source=f"digits:{variant}",
        default_layer="conv2",
        default_dataset=dataset,
        weights="trained by rdx from a fixed seed",
        description=_DIGITS + what,
        licence="Apache-2.0",
    )


def _torchvision(name: str, source: str, layer: str, dataset: str = "imagenet") -> ModelSpec:
    return ModelSpec(
        name=name,
        source=f"torchvision:{source}",
        default_layer=layer,
        default_dataset=dataset,
        weights="torchvision",
        description=f"torchvision {source.replace('@', ' ')} (Linear Explanations)",
        licence="BSD-3-Clause; ImageNet terms apply to the weights' training data",
    )


def _timm(name: str, source: str, what: str, dataset: str, licence: str, layer: str | None = "block:-1") -> ModelSpec:
    return ModelSpec(
        name=name, source=f"timm:{source}", default_layer=layer, default_dataset=dataset,
        weights="timm, Hugging Face hub", description=what, licence=licence,
    )  # fmt: skip


SPECS: tuple[ModelSpec, ...] = (
    _digits("", "true labels"),
    _digits("m35", "every 5 was called 3"),
    _digits("m49", "every 9 was called 4"),
    _digits("hflip", "mirror images under the same label", "digits-hflip"),
    _digits("hflip-nl", "mirror images under new labels", "digits-hflip"),
    _digits("vflip", "upside-down copies under the same label", "digits-vflip"),
    _digits("vflip-nl", "upside-down copies under new labels", "digits-vflip"),
    _digits("early", "the training of digits-cnn, stopped early"),
    _torchvision("resnet50_imagenet", "resnet50@IMAGENET1K_V1", "layer4"),
    _torchvision("vit_b_16_imagenet", "vit_b_16@IMAGENET1K_V1", "encoder"),
    _torchvision("vit_l_16_imagenet", "vit_l_16@IMAGENET1K_V1", "encoder"),
    _torchvision("vit_l_32_imagenet", "vit_l_32@IMAGENET1K_V1", "encoder"),
    ModelSpec(
        name="resnet18_places365",
        source="file:resnet18_places365.pth.tar?arch=torchvision:resnet18",
        default_layer="layer4",
        default_dataset="places365",
        weights="MIT Places365",
        url="http://places2.csail.mit.edu/models_places365/resnet18_places365.pth.tar",
        description="ResNet-18 trained on Places365 (Linear Explanations, EDDP)",
        licence="CC BY (weights); Places365 terms",
    ),
    ModelSpec(
        name="vgg16_bn_cifar100",
        source="file:cifar100_vgg16_bn-7d8c4031.pt?arch=cifar_vgg16_bn",
        default_layer="classifier.4",
        default_dataset="cifar100",
        weights="chenyaofo/pytorch-cifar-models",
        url="https://github.com/chenyaofo/pytorch-cifar-models/releases/download/vgg/cifar100_vgg16_bn-7d8c4031.pt",
        description="VGG-16 with batch norm on CIFAR-100, 74.00 % top-1 (Linear Explanations)",
        licence="BSD-3-Clause",
    ),
    *(
        ModelSpec(
            name=f"resnet{depth}_cifar10",
            source=f"file:resnet{depth}-{digest}.th?arch=cifar_resnet{depth}",
            default_layer="layer3",
            default_dataset="cifar10",
            weights="akamaster/pytorch_resnet_cifar10",
            url=f"https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet{depth}-{digest}.th",
            description=f"ResNet-{depth} on CIFAR-10",
            licence="BSD-2-Clause",
        )
        for depth, digest in ((20, "12fca82f"), (56, "4bfd9763"))
    ),
    ModelSpec(
        name="vgg19_miniimagenet",
        source="file:VGG19_imagenet_b5_1024.pth?arch=flat_vgg19",
        default_layer="layers_list.28",
        default_dataset="mini-imagenet",
        weights="daheekwon/RDR",
        url="https://github.com/daheekwon/RDR/raw/main/data/models/VGG19_imagenet_b5_1024.pth",
        description="VGG-19 on mini-ImageNet, 84 pixels; pre-activations behind the fourth pooling (RDR)",
        licence="none stated",
    ),
    *(
        ModelSpec(
            name=f"mnist-cnn-{variant}",
            source=f"file:mnist_{place}.ckpt?arch=mnist_cnn",
            default_layer="conv2",
            default_dataset="mnist",
            weights="RDX checkpoints",
            url="https://data.caltech.edu/records/chw9h-4bs90/files/checkpoints.zip",
            description=f"the RDX paper's MNIST CNN, {what}",
            licence="none stated",
        )
        for variant, place, what in (
            ("expert", "expert/last", "true labels"),
            ("m35", "m35/last", "every 5 was called 3"),
            ("m49", "m49/last", "every 9 was called 4"),
            ("hflip", "hflip/last", "mirror images under the same label"),
            ("hflip-nl", "hflip_nl/last", "mirror images under new labels"),
            ("vflip", "vflip/last", "upside-down copies under the same label"),
            ("vflip-nl", "vflip_nl/last", "upside-down copies under new labels"),
            ("835", "835/last", "digits 3, 5 and 8"),
            ("835-early", "835/epoch=1-step=184", "digits 3, 5 and 8, stopped after 184 steps"),
        )
    ),
    _timm(
        "dino",
        "vit_base_patch16_224.dino",
        "DINO ViT-B/16; class token before the final norm (RDX)",
        "imagenet",
        "Apache-2.0",
    ),
    _timm(
        "dinov2",
        "vit_base_patch14_reg4_dinov2.lvd142m",
        "DINOv2 ViT-B/14 with registers; class token before the final norm (RDX)",
        "imagenet",
        "Apache-2.0",
    ),
    _timm(
        "clip",
        "hf-hub:timm/vit_large_patch14_clip_336.openai",
        "CLIP ViT-L/14 at 336 pixels; class token before the final norm (RDX)",
        "inat-subset",
        "MIT",
    ),
    _timm(
        "clip_inat",
        "hf-hub:timm/vit_large_patch14_clip_336.laion2b_ft_in12k_in1k_inat21",
        "CLIP ViT-L/14 fine-tuned on iNaturalist 2021; class token before the final norm (RDX)",
        "inat-subset",
        "MIT",
    ),
    ModelSpec(
        "clip_vit_b_32",
        "open_clip:ViT-B-32-quickgelu/openai",
        "last",
        "coco",
        weights="OpenAI",
        description="image embedding of CLIP ViT-B/32 (EXPLAIN-R)",
        licence="MIT",
    ),
    ModelSpec(
        "clip_vit_l_14_336",
        "open_clip:ViT-L-14-336-quickgelu/openai",
        "last",
        "coco",
        weights="OpenAI",
        description="image embedding of CLIP ViT-L/14 at 336 pixels (Linear Explanations)",
        licence="MIT",
    ),
    ModelSpec(
        "siglip",
        "open_clip:ViT-L-16-SigLIP-384/webli",
        "last",
        "imagenet",
        weights="Google",
        description="image embedding of SigLIP ViT-L/16 at 384 pixels (Linear Explanations)",
        licence="Apache-2.0",
    ),
    ModelSpec(
        "siglip_so400m",
        "open_clip:ViT-SO400M-14-SigLIP-384/webli",
        "last",
        "imagenet",
        weights="Google",
        description="image embedding of SigLIP SO400M/14 at 384 pixels (Linear Explanations)",
        licence="Apache-2.0",
    ),
    *(
        ModelSpec(
            name,
            f"open_clip:{source}",
            "last",
            "imagenet",
            weights=maker,
            description=f"image embedding of {what}",
            licence=licence,
        )
        for name, source, maker, what, licence in (
            ("siglip2", "ViT-B-16-SigLIP2/webli", "Google", "SigLIP 2 ViT-B/16", "Apache-2.0"),
            ("siglip2_so400m", "ViT-SO400M-16-SigLIP2-384/webli", "Google", "SigLIP 2 SO400M/16", "Apache-2.0"),
            ("mobileclip2_s0", "MobileCLIP2-S0/dfndr2b", "Apple", "MobileCLIP2-S0", "Apple ML research"),
            ("pe_core_b_16", "PE-Core-B-16/meta", "Meta", "the perception encoder PE-Core-B/16", "Apache-2.0"),
            ("pe_core_l_14_336", "PE-Core-L-14-336/meta", "Meta", "the perception encoder PE-Core-L/14", "Apache-2.0"),
        )
    ),
)
"""Every built-in model. The CUB ResNet-18 of the RDX paper is not here: only its concept scores are published."""
