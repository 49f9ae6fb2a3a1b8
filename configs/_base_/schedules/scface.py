# RI-Face, table 5, SCface: batch 64 (in the data set's file), 6 epochs; x0.1 at epoch 12 is
# never reached.
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=1)
val_cfg = dict()
test_cfg = dict()
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[12], gamma=0.1)
optim_wrapper = dict(
    optimizer=dict(type='Adam', lr=1e-3, weight_decay=1e-4),
    constructor='PartRateConstructor',
)
