# The training loader of faces.py, but batches are resized and augmented on the device: `batched` is
# merged into train_dataloader. For packed data; all other loaders keep transforming one by one.
batched = dict(
    collate_fn=dict(type='mmvlr.native_collate'),
    dataset=dict(
        pipeline=[
            dict(type='LoadFace'),
            dict(
                type='PackNativeFace',
                transforms=[
                    dict(type='FlipFace', prob=0.5),
                    dict(type='RotateFace', degrees=10),
                    dict(type='RescaleFace', sizes=(64, 100)),
                ],
            ),
        ]
    ),
)
