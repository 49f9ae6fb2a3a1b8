# The paper read literally: random prototypes, xi itself as target, a linear PRM on the embedding,
# index diversion from the first epoch on with statistics that follow the model, no floor under
# sigma_UI, no refitted read-out. It collapses (docs/benchmarks.md); it is here for the comparison.
_base_ = ['./mobilefacenet_tinyface_paper.py']

model = dict(
    regression=dict(with_norm=False, zero_init=False),
    recognizability=dict(log=False),
    loss_diversion=dict(sigma_floor=0.0),
)
custom_hooks = [
    dict(
        type='UICenterHook',
        dataloader='ui_dataloader',
        diversion_begin=0,
        freeze_statistics=False,
    ),
]
