# The public 192-d MobileFaceNet (mmvlr convert-mobilefacenet), RGB.
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
load_from = __import__('os').environ.get('PRETRAINED') or 'checkpoints/mobilefacenet_tfjs.pth'
