# IR-50 of the ArcFace family, 512-d, RGB in [-1, 1].
network = dict(
    backbone=dict(type='IResNet', depth=50, embed_dims=512, frozen_bn=True),
    data_preprocessor=dict(
        type='FaceDataPreprocessor',
        size=(112, 112),
        interpolation='bicubic',
        color_order='RGB',
        mean=127.5,
        std=127.5,
    ),
)
load_from = '{{$PRETRAINED:checkpoints/ir50.pth}}'
