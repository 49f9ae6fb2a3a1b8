# SFace's network of OpenCV's model zoo, 128-d, RGB (mmvlr convert-sface). Its stem
# and first five pairs, 11 of 27 convolutions, keep their weights: a step takes a sixth of the time.
network = dict(
    backbone=dict(type='SFaceNet', frozen_bn=True, frozen_stages=6),
    data_preprocessor=dict(
        type='FaceDataPreprocessor',
        size=(112, 112),
        interpolation='bicubic',
        color_order='RGB',
        mean=127.5,
        std=128.0,
    ),
)
load_from = '{{$PRETRAINED:checkpoints/sface.pth}}'
