# The public 192-d MobileFaceNet (tools/model_converters/tfjs_mobilefacenet.py), RGB.
network = dict(
    backbone=dict(type='MobileFaceNet', variant='tfjs', frozen_bn=True),
    data_preprocessor=dict(
        type='FaceDataPreprocessor',
        size=(112, 112),
        interpolation='bicubic',
        color_order='RGB',
        mean=127.5,
        std=128.0,
    ),
)
load_from = '{{$PRETRAINED:checkpoints/mobilefacenet_tfjs.pth}}'
