# ArcFace with RI-Face's scale and margin.
method = dict(
    type='FaceRecognizer',
    head=dict(
        type='RecognitionModule',
        dropout=0.2,
        loss=dict(type='ArcFaceLoss', scale=64.0, margin=0.45),
    ),
)
