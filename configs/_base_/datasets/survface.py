_base_ = './faces.py'

survface_root = __import__('os').environ.get('SURVFACE_ROOT') or 'data/survface'
train_set = dict(type='SurvFace', data_root=survface_root, split='train')

train_dataloader = dict(batch_size=100, dataset=train_set)
val_dataloader = dict(dataset=dict(dataset=train_set))
prototype_dataloader = dict(dataset=train_set)
degraded_dataloader = dict(dataset=train_set)
test_dataloader = dict(dataset=dict(type='SurvFace', data_root=survface_root, split='test'))
test_evaluator = [
    dict(type='OpenSetMetric', prefix='survface'),
    dict(type='VerificationMetric', prefix='survface'),
]
