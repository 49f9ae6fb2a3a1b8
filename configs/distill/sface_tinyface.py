_base_ = ['../arcface/sface_tinyface.py']

# The network that the training starts from is the teacher; it sees the faces before DegradeFace.
model = dict(distillation=[dict(type='CosineDistillationLoss', loss_weight=10.0)])
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            _base_.load,
            dict(type='DegradeFace'),
            _base_.resize,
            *_base_.augmentation,
            _base_.pack,
        ]
    )
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='TeacherHook', checkpoint=_base_.load_from, dataloader='prototype_dataloader'),
]
