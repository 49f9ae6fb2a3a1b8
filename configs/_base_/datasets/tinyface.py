_base_ = './faces.py'

tinyface_root = __import__('os').environ.get('TINYFACE_ROOT') or 'data/tinyface'
train_set = dict(type='TinyFace', data_root=tinyface_root, split='train')

train_dataloader = dict(dataset=train_set)
val_dataloader = dict(dataset=dict(dataset=train_set))
prototype_dataloader = dict(dataset=train_set)
degraded_dataloader = dict(dataset=train_set)
test_dataloader = dict(dataset=dict(type='TinyFace', data_root=tinyface_root, split='test'))
test_evaluator = dict(type='TinyFaceMetric')
