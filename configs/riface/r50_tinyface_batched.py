# Resized and augmented on the device; meant for a pack: TINYFACE_ROOT=data/tinyface.pack
_base_ = './r50_tinyface.py'

train_dataloader = _base_.batched
